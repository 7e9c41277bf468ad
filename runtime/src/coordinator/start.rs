//! Starts a coordinator and serves until it is told to stop.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::middleware::map_response;
use axum::response::Response;
use crossbeam_channel::Sender;
use plan::wire::RecordedMap;
use thiserror::Error;
use tokio::sync::watch;

use super::driver::{Driver, DriverSettings};
use super::fleet::{Fleet, FleetSettings};
use super::handle::DriverHandle;
use super::metrics::DriverMetrics;
use super::settings::{CoordinatorSettings, Prepared, SettingsError};
use crate::experts::record::record;
use crate::server::{self, App, Intake, ServerMetrics};

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
        /// Why.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("the system gives no thread")]
    Thread(#[source] io::Error),
    /// The HTTP server ended.
    #[error("the HTTP server failed")]
    Serve(#[source] io::Error),
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
    body_limit: usize,
    leave: Duration,
    grace: Duration,
}

impl Coordinator {
    /// Checks the settings, opens the sockets and starts the driver.
    ///
    /// # Errors
    /// If a setting is wrong or the system refuses.
    pub fn start(settings: CoordinatorSettings) -> Result<Self, StartError> {
        let Prepared { identity, served, rebalancer, planner, static_map } =
            settings.prepare(jiff::Timestamp::now().as_second())?;
        let public = listen(settings.listen, "requests")?;
        let admin = listen(settings.admin_listen, "the admin API")?;
        let control = listen(settings.control_listen, "ranks")?;
        let fleet = FleetSettings {
            ranks: settings.ranks,
            model: identity.clone(),
            staging_pages: settings.rebalance.staging_pages,
            move_bytes_per_second: settings.move_bytes_per_second,
            silence_limit: FleetSettings::SILENCE_LIMIT,
        };
        let (fleet, events) = Fleet::start(fleet, control).map_err(StartError::Thread)?;
        let control = fleet.address();
        let registry = prometheus::Registry::new();
        let driver = DriverSettings {
            limits: settings.limits,
            context: served.max_model_len,
            model: identity,
            rebalancer,
            static_map,
            planner: planner.start().map_err(StartError::Thread)?,
            recorder: settings.record_path.map(start_recorder).transpose().map_err(StartError::Thread)?,
        };
        let (driver, handle) = Driver::new(driver, fleet, events, DriverMetrics::new(&registry)?);
        let driver = spawn("driver", move || driver.run())?;
        let metrics = Arc::new(ServerMetrics::new(&registry)?);
        let intake = Arc::new(Intake::start().map_err(StartError::Thread)?);
        let app = App { driver: handle, model: Arc::new(served), intake, metrics, registry };
        let CoordinatorSettings { body_limit, leave, grace, .. } = settings;
        Ok(Self { app, public, admin, control, driver, body_limit, leave, grace })
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

    /// Its driver.
    #[must_use]
    pub fn driver(&self) -> DriverHandle {
        self.app.driver.clone()
    }

    /// Serves until `stop` is done; then turns clients away gently and lets requests end, each for as long as the settings
    /// allow.
    ///
    /// # Errors
    /// If a server fails.
    pub async fn serve(self, stop: impl Future<Output = ()>) -> Result<(), StartError> {
        if let (Ok(requests), Ok(admin)) = (self.address(), self.admin_address()) {
            tracing::info!(%requests, %admin, ranks = %self.control, "listening");
        }
        let Self { app, public, admin, driver, body_limit, leave, grace, .. } = self;
        let handle = app.driver.clone();
        let (leaving, is_leaving) = watch::channel(false);
        let (stopping, stopped) = watch::channel(false);
        let mut serving = tokio::task::JoinSet::new();
        let requests = server::public(app.clone(), body_limit).layer(map_response(move |response| {
            let closes = *is_leaving.borrow();
            async move { if closes { closing(response) } else { response } }
        }));
        serving.spawn(serve(requests, public, stopped.clone()));
        serving.spawn(serve(server::admin(app, body_limit), admin, stopped));
        let failed = tokio::select! {
            () = stop => None,
            ended = serving.join_next() => ended,
        };
        if failed.is_none() && !leave.is_zero() {
            tracing::info!(seconds = leave.as_secs(), "stopping: connections are closed after their answer");
            leaving.send_replace(true);
            tokio::time::sleep(leave).await;
        }
        tracing::info!("stopping: requests that run may end");
        handle.announce_stop();
        stopping.send_replace(true);
        let all_ended = async { while serving.join_next().await.is_some() {} };
        if tokio::time::timeout(grace, all_ended).await.is_err() {
            tracing::warn!(seconds = grace.as_secs(), "requests that still run are cut");
        }
        let stopped = tokio::task::spawn_blocking(move || {
            handle.stop();
            driver.join()
        });
        if !matches!(stopped.await, Ok(Ok(()))) {
            tracing::error!("the driver's thread panicked");
        }
        match failed {
            Some(Ok(Err(error))) => Err(StartError::Serve(error)),
            _ => Ok(()),
        }
    }
}

/// An answer after which the connection is closed: the client's next request takes another, and leads elsewhere.
fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn serve(router: Router, listener: TcpListener, mut stopped: watch::Receiver<bool>) -> io::Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let stop = async move {
        // An error means that whoever could say so is gone.
        let _ = stopped.wait_for(|&stopped| stopped).await;
    };
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, StartError> {
    TcpListener::bind(address).map_err(|source| StartError::Listen { address, purpose, source })
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<std::thread::JoinHandle<()>, StartError> {
    std::thread::Builder::new().name(name.to_owned()).spawn(run).map_err(StartError::Thread)
}

/// The thread that writes recorded maps.
fn start_recorder(path: PathBuf) -> io::Result<Sender<RecordedMap>> {
    let (maps, incoming) = crossbeam_channel::unbounded::<RecordedMap>();
    std::thread::Builder::new().name("recorder".to_owned()).spawn(move || {
        for map in incoming {
            match record(&path, &map) {
                Ok(()) => tracing::info!(path = %path.display(), epoch = map.provenance.epoch, "map recorded"),
                Err(error) => tracing::error!(error = &error as &dyn std::error::Error, "map not recorded"),
            }
        }
    })?;
    Ok(maps)
}
