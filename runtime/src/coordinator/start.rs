//! Starts a coordinator and serves until it is told to stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::map_response;
use axum::response::Response;
use thiserror::Error;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinError;

use super::driver::{Driver, DriverSettings};
use super::fleet::{Fleet, FleetSettings};
use super::handle::DriverHandle;
use super::metrics::DriverMetrics;
use super::settings::{CoordinatorSettings, Prepared, RankNeeds, SettingsError};
use crate::descriptors::Places;
use crate::experts::recorder::{Recorder, RecorderError};
use crate::http::{self, ConnectionBounds};
use crate::process_metrics;
use crate::server::{self, AdminAccess, Answers, App, Bodies, Intake, Keys, ServerMetrics};
use crate::threads::{ThreadEnded, VitalThreads, panic_words};

/// How long what is being answered may go on when the process ends because something in it has failed: enough to say so. The
/// driver has as long to end, which may wait for ranks that hang.
const FAILED_GRACE: Duration = Duration::from_secs(2);

/// Threads that read what is posted to the admin API.
const READERS: usize = 4;

/// Why a coordinator ends other than by being told to.
#[derive(Debug, Error)]
pub enum StartError {
    /// A setting, the checkpoint or the map is wrong.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// An address cannot be used.
    #[error("cannot listen on {address} for {purpose}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What it is for.
        purpose: &'static str,
        /// What the system says of it.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("the system gives no thread")]
    System(#[from] io::Error),
    /// A thread that it cannot do without has ended.
    #[error(transparent)]
    Thread(#[from] ThreadEnded),
    /// An HTTP server ended.
    #[error("an HTTP server ended: {reason}")]
    Serve {
        /// The reason, in words for people.
        reason: String,
    },
    /// The thread that records maps cannot be started.
    #[error(transparent)]
    Recorder(#[from] RecorderError),
    /// A metric is there twice.
    #[error("a metric cannot be registered")]
    Metrics(#[from] prometheus::Error),
}

/// A coordinator whose sockets are open and whose driver runs.
pub struct Coordinator {
    app: App,
    public: TcpListener,
    admin: TcpListener,
    control: SocketAddr,
    driver: std::thread::JoinHandle<()>,
    /// What each rank needs memory for.
    rank: RankNeeds,
    threads: VitalThreads,
    ended: watch::Receiver<Option<ThreadEnded>>,
    access: AdminAccess,
    api_keys: Option<Arc<Keys>>,
    places: Places,
    leave: Duration,
    grace: Duration,
}

impl Coordinator {
    /// Checks the settings, opens the sockets and starts the driver.
    ///
    /// # Errors
    /// If a setting is wrong or the system refuses.
    pub fn start(settings: &CoordinatorSettings) -> Result<Self, StartError> {
        let Prepared {
            identity,
            vocabulary,
            top_k,
            served,
            admin: access,
            api_keys,
            rebalancer,
            planner,
            rank,
            static_map,
            recorded_at,
        } = settings.prepare(jiff::Timestamp::now().as_second())?;
        let public = listen(settings.listen, "requests")?;
        let admin = listen(settings.admin_listen, "the admin API")?;
        let control = listen(settings.control_listen, "ranks")?;
        let fleet = FleetSettings {
            ranks: settings.ranks,
            secret: settings.secret.clone(),
            model: identity.clone(),
            vocabulary,
            top_k,
            step_tokens: settings.limits.step_tokens,
            staging_pages: rank.part.staging_pages,
            kv_tokens: rank.kv_tokens,
            move_bytes_per_second: settings.move_bytes_per_second,
            silence_limit: FleetSettings::SILENCE_LIMIT,
            stall_limit: FleetSettings::STALL_LIMIT,
            step_deadline: settings.step_deadline,
        };
        let (tell, ended) = watch::channel(None);
        let threads = VitalThreads::new(move |thread| drop(tell.send_replace(Some(thread))));
        let (fleet, events) = Fleet::start(fleet, control, &threads)?;
        let control = fleet.address();
        let registry = prometheus::Registry::new();
        process_metrics::register(&registry)?;
        let driver = DriverSettings {
            limits: settings.limits,
            context: served.max_model_len,
            model: identity,
            rebalancer,
            static_map,
            planner: planner.start(&threads)?,
            recorder: recorded_at.map(|path| Recorder::start(path, &registry, &threads)).transpose()?,
        };
        let metrics = DriverMetrics::new(&registry, driver.rebalancer.map().shape().ranks)?;
        let (driver, handle) = Driver::new(driver, fleet, events, metrics);
        let driver = threads.spawn("driver", move || driver.run())?;
        let metrics = Arc::new(ServerMetrics::new(&registry)?);
        let intake = Arc::new(Intake::start()?);
        let for_context = || Bodies::for_context(served.max_model_len, served.tokenizer.longest_token());
        let bodies = settings.body_limit.map_or_else(for_context, Bodies::of_at_most);
        let answers = Answers::of_scores(server::scores_at_most(served.max_model_len));
        let app = App { driver: handle, model: Arc::new(served), bodies, answers, intake, metrics, registry };
        let places = Places::of_this_process(settings.ranks);
        let &CoordinatorSettings { leave, grace, .. } = settings;
        Ok(Self { app, public, admin, control, driver, rank, threads, ended, access, api_keys, places, leave, grace })
    }

    /// Where requests are served.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.public.local_addr()
    }

    /// Where the admin API is served.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn admin_address(&self) -> io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Where ranks register.
    #[must_use]
    pub const fn control_address(&self) -> SocketAddr {
        self.control
    }

    /// The threads that it cannot do without: [`Self::serve`] ends with the first of them.
    #[must_use]
    pub const fn threads(&self) -> &VitalThreads {
        &self.threads
    }

    /// What each rank needs memory for beside its weights.
    #[must_use]
    pub const fn rank(&self) -> RankNeeds {
        self.rank
    }

    /// Its driver.
    #[must_use]
    pub fn driver(&self) -> DriverHandle {
        self.app.driver.clone()
    }

    /// Serves until `stop` is done; then turns clients away gently and lets requests end, each for as long as the settings
    /// allow.
    ///
    /// # Errors
    /// If a thread that it cannot do without or a server ends; it does not wait for requests then. Whoever it is told by, and
    /// whatever ranks do, it ends within the times of the settings and 2 s.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        if let (Ok(requests), Ok(admin)) = (self.address(), self.admin_address()) {
            // What is offered is the smaller of this and of what the caches of the ranks hold, which is told when they serve.
            let max_model_len = self.app.model.max_model_len;
            tracing::info!(%requests, %admin, ranks = %self.control, max_model_len, "listening");
        }
        let Self { app, public, admin, driver, threads, mut ended, access, api_keys, places, leave, grace, .. } = self;
        let handle = app.driver.clone();
        let (leaving, is_leaving) = watch::channel(false);
        let (stopping, stopped) = watch::channel(false);
        let mut serving = tokio::task::JoinSet::new();
        let requests = server::public(app.clone(), api_keys).layer(map_response(move |response| {
            let closes = *is_leaving.borrow();
            async move { if closes { closing(response) } else { response } }
        }));
        serving.spawn(http::serve(
            requests,
            public,
            ConnectionBounds::of(places.public, places.refused),
            stopped.clone(),
        ));
        let admin =
            http::serve(server::admin(app, access), admin, ConnectionBounds::of(places.admin, places.refused), stopped);
        serving.spawn(serve_apart(admin, &threads)?);
        let mut failed = tokio::select! {
            () = stop => None,
            thread = thread_ended(&mut ended) => Some(thread.into()),
            ended = serving.join_next() => Some(server_ended(ended)),
        };
        if failed.is_none() && !leave.is_zero() {
            tracing::info!(seconds = leave.as_secs(), "stopping: connections are closed after their answer");
            leaving.send_replace(true);
            failed = tokio::select! {
                () = tokio::time::sleep(leave) => None,
                thread = thread_ended(&mut ended) => Some(thread.into()),
                ended = serving.join_next() => Some(server_ended(ended)),
            };
        }
        let grace = if failed.is_none() { grace } else { grace.min(FAILED_GRACE) };
        tracing::info!("stopping: requests that run may end");
        handle.announce_stop();
        stopping.send_replace(true);
        let all_ended = async { while serving.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all_ended).await.is_err() {
            tracing::warn!(seconds = grace.as_secs(), "requests that still run are cut");
        }
        // A thread of its own, which the process does not wait for: a driver that waits for a rank hears nothing.
        let (tells, driver_ended) = oneshot::channel::<()>();
        std::thread::Builder::new().name("driver-end".to_owned()).spawn(move || {
            handle.stop();
            // However it ended, it has been told.
            drop(driver.join());
            drop(tells);
        })?;
        if tokio::time::timeout(FAILED_GRACE, driver_ended).await.is_err() {
            tracing::warn!(seconds = FAILED_GRACE.as_secs(), "a step that still runs is not waited for");
        }
        let thread = ended.borrow().clone().map(StartError::from);
        thread.or(failed).map_or(Ok(()), Err)
    }
}

/// An answer after which the connection is closed: the client's next request takes another, and leads elsewhere.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Runs the admin API's server on a thread of its own, where it answers whatever the public port is doing; gives what
/// waits for its end.
fn serve_apart(
    server: impl Future<Output = io::Result<()>> + Send + 'static,
    threads: &VitalThreads,
) -> io::Result<impl Future<Output = io::Result<()>> + Send + 'static> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(READERS).build()?;
    let (ends, ended) = oneshot::channel::<()>();
    threads.spawn("admin", move || {
        let result = runtime.block_on(server);
        drop(ends);
        result
    })?;
    Ok(async move {
        // How it ended is told by the thread.
        drop(ended.await);
        Ok(())
    })
}

/// Waits until a thread that the process cannot do without has ended.
async fn thread_ended(ended: &mut watch::Receiver<Option<ThreadEnded>>) -> ThreadEnded {
    loop {
        if let Some(thread) = &*ended.borrow_and_update() {
            return thread.clone();
        }
        if ended.changed().await.is_err() {
            // Nobody is left who could tell.
            std::future::pending::<()>().await;
        }
    }
}

/// Why a server ended before it was told to.
fn server_ended(ended: Option<Result<io::Result<()>, JoinError>>) -> StartError {
    let reason = match ended {
        Some(Ok(Err(error))) => error.to_string(),
        Some(Err(error)) if error.is_panic() => panic_words(&*error.into_panic()),
        Some(Ok(Ok(())) | Err(_)) | None => "it was not told to".to_owned(),
    };
    StartError::Serve { reason }
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    plan::wire::process::listen(address).map_err(|source| StartError::Listen { address, purpose, source })
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;
    use crate::coordinator::fake::Fake;
    use crate::memory::RankPart;
    use crate::server::fixture;

    /// A coordinator whose ranks are a script.
    fn coordinator(fake: Fake) -> Coordinator {
        let (tell, ended) = watch::channel(None);
        let threads = VitalThreads::new(move |thread| drop(tell.send_replace(Some(thread))));
        let app = fixture::Server::start(Fake { threads: threads.clone(), ..fake }).app;
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        Coordinator {
            app,
            public: listen(any, "requests").unwrap(),
            admin: listen(any, "the admin API").unwrap(),
            control: any,
            driver: std::thread::spawn(|| ()),
            rank: RankNeeds { part: RankPart::default(), kv_tokens: 64 },
            threads,
            ended,
            access: AdminAccess::Loopback,
            api_keys: None,
            places: Places::within(1024, 2),
            leave: Duration::from_hours(1),
            grace: Duration::from_hours(1),
        }
    }

    #[tokio::test]
    async fn a_coordinator_whose_driver_panics_ends_and_says_why() {
        let coordinator = coordinator(Fake { script: Arc::new(|_, _| panic!("a hole")), ..Fake::default() });
        let (address, driver) = (coordinator.address().unwrap(), coordinator.driver());
        let serving = tokio::spawn(coordinator.serve(pending()));
        let request = reqwest::Client::new().post(format!("http://{address}/v1/completions"));
        let answer = request.body(r#"{"prompt": "Once"}"#).send().await.unwrap();
        assert_eq!(answer.status(), 503);
        assert_eq!(driver.health(), crate::coordinator::handle::Health::Stopping);
        let error = serving.await.unwrap().unwrap_err();
        let words = "the thread 'driver' ended, which this process cannot do without: it panicked: a hole";
        assert_eq!(error.to_string(), words);
        assert!(reqwest::get(format!("http://{address}/health")).await.is_err(), "nothing listens any more");
    }

    #[tokio::test]
    async fn any_thread_that_ends_untold_ends_the_coordinator() {
        let coordinator = coordinator(Fake::default());
        let fails = || Err("the port is gone");
        coordinator.threads().spawn("fleet-accept", fails).unwrap().join().unwrap();
        let error = coordinator.serve(pending()).await.unwrap_err().to_string();
        assert!(error.contains("'fleet-accept'") && error.ends_with("the port is gone"), "{error}");
    }

    #[tokio::test]
    async fn a_coordinator_that_is_told_to_stop_ends_without_an_error() {
        let mut coordinator = coordinator(Fake::default());
        coordinator.leave = Duration::ZERO;
        coordinator.serve(async {}).await.unwrap();
    }

    #[tokio::test]
    async fn a_driver_that_waits_for_ever_keeps_no_process_from_ending() {
        let mut coordinator = coordinator(Fake::default());
        coordinator.leave = Duration::ZERO;
        let (_never, waits) = crossbeam_channel::bounded::<()>(0);
        coordinator.driver = std::thread::spawn(move || {
            let _ = waits.recv();
        });
        let started = std::time::Instant::now();
        coordinator.serve(async {}).await.unwrap();
        assert!(started.elapsed() < FAILED_GRACE * 10, "{:?}", started.elapsed());
    }

    #[tokio::test]
    async fn a_thread_that_ends_while_clients_are_turned_away_ends_the_coordinator() {
        let coordinator = coordinator(Fake::default());
        let (address, threads) = (coordinator.address().unwrap(), coordinator.threads().clone());
        let serving = tokio::spawn(coordinator.serve(async {}));
        let is_leaving = async || {
            let answer = reqwest::get(format!("http://{address}/health")).await.unwrap();
            answer.headers().get(CONNECTION).is_some_and(|value| value == "close")
        };
        while !is_leaving().await {}
        assert!(!serving.is_finished(), "it serves on for an hour");
        threads.spawn("planner", || Err("no plan")).unwrap();
        let error = serving.await.unwrap().unwrap_err().to_string();
        assert!(error.contains("'planner'"), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_ends_by_itself_says_why() {
        let panicked = tokio::spawn(async { panic!("a hole") }).await;
        assert_eq!(server_ended(Some(panicked)).to_string(), "an HTTP server ended: it panicked: a hole");
        let failed = server_ended(Some(Ok(Err(io::Error::other("no port")))));
        assert_eq!(failed.to_string(), "an HTTP server ended: no port");
        assert!(server_ended(Some(Ok(Ok(())))).to_string().ends_with("it was not told to"));
    }
}
