//! Where bodies become requests: threads of their own for parsing, chat templates and tokenizing, which can take long and
//! never wait. One of them is kept for what is short, so that no short request waits for long ones. Knows nothing of what
//! it runs.

use std::io;
use std::num::NonZero;
use std::thread::{self, available_parallelism};

use axum::http::StatusCode;
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use thiserror::Error;
use tokio::sync::oneshot;

use super::error::{ApiError, Code};
use crate::threads::survive;

/// Threads, whatever the machine: two, so that one is left for short requests; no more than eight, since what they do is
/// small beside the steps that they take processors from.
const THREADS: std::ops::RangeInclusive<usize> = 2..=8;

/// Requests that may wait for a thread, of either length.
const WAITING: usize = 256;

/// Bytes of the longest body that is short: it is read in milliseconds.
const SHORT: usize = 64 << 10;

/// Why work was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IntakeError {
    /// A retry helps.
    #[error("{WAITING} requests are waiting to be read already; try again in a moment")]
    Full,
    /// The work has panicked, which is this program's fault.
    #[error("the request could not be read because of a defect of this server")]
    Panicked,
}

type Work = Box<dyn FnOnce() + Send>;

/// See the module's documentation. Its threads end when it is dropped.
#[derive(Debug)]
pub struct Intake {
    short: Sender<Work>,
    long: Sender<Work>,
}

impl Intake {
    /// Starts as many threads as suit this machine.
    ///
    /// # Errors
    /// If the system gives none.
    pub fn start() -> io::Result<Self> {
        let cores = available_parallelism().map_or(1, NonZero::get);
        Self::with(cores.clamp(*THREADS.start(), *THREADS.end()), WAITING)
    }

    /// The first thread takes nothing that is long.
    fn with(threads: usize, waiting: usize) -> io::Result<Self> {
        let ((short, shorts), (long, longs)) = (bounded::<Work>(waiting), bounded::<Work>(waiting));
        for thread in 0..threads {
            let (shorts, longs) = (shorts.clone(), longs.clone());
            let serve =
                move || if thread == 0 { shorts.iter().for_each(|work| work()) } else { serve(&shorts, &longs) };
            thread::Builder::new().name(format!("intake-{thread}")).spawn(serve)?;
        }
        Ok(Self { short, long })
    }

    /// Does the work that a body of so many bytes makes on one of the threads. Work is not begun once this future is
    /// dropped: whoever asked has left.
    ///
    /// # Errors
    /// If too much waits, or the work panics.
    pub async fn run<T: Send + 'static>(
        &self,
        bytes: usize,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, IntakeError> {
        let (reply, result) = oneshot::channel();
        let work = move || {
            if reply.is_closed() {
                return;
            }
            // A panic is reported by the hook; the thread goes on with the next request. Nothing of the work is left.
            if let Ok(done) = survive(work) {
                // Whoever asked may have left meanwhile.
                let _ = reply.send(done);
            }
        };
        let lane = if bytes <= SHORT { &self.short } else { &self.long };
        lane.try_send(Box::new(work)).map_err(|error| match error {
            TrySendError::Full(_) => IntakeError::Full,
            // The threads end with this value and not before.
            TrySendError::Disconnected(_) => IntakeError::Panicked,
        })?;
        result.await.map_err(|_| IntakeError::Panicked)
    }
}

/// Does work of either length, as it comes, until there will be none.
fn serve(shorts: &Receiver<Work>, longs: &Receiver<Work>) {
    loop {
        let work = select! {
            recv(shorts) -> work => work,
            recv(longs) -> work => work,
        };
        let Ok(work) = work else { return };
        work();
    }
}

impl From<IntakeError> for ApiError {
    fn from(error: IntakeError) -> Self {
        let message = error.to_string();
        match error {
            IntakeError::Full => Self {
                retry_after: Some(1),
                ..Self::other(StatusCode::TOO_MANY_REQUESTS, Code::RateLimitExceeded, message)
            },
            IntakeError::Panicked => Self::other(StatusCode::INTERNAL_SERVER_ERROR, Code::InternalError, message),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use futures::poll;

    #[tokio::test]
    async fn what_does_not_fit_is_refused_and_what_nobody_waits_for_is_not_begun() {
        let intake = Intake::with(1, 1).unwrap();
        let (go, wait) = mpsc::channel::<()>();
        let (begin, order) = mpsc::channel();
        let start = |name: &'static str| {
            let begin = begin.clone();
            move || begin.send(name).unwrap()
        };
        let first = start("first");
        let mut first = Box::pin(intake.run(0, move || {
            first();
            wait.recv().unwrap();
        }));
        assert!(poll!(&mut first).is_pending());
        assert_eq!(order.recv().unwrap(), "first", "the thread is taken, the queue is empty");
        let mut second = Box::pin(intake.run(0, start("second")));
        assert!(poll!(&mut second).is_pending());
        assert_eq!(intake.run(0, start("third")).await, Err(IntakeError::Full));
        drop(second);
        go.send(()).unwrap();
        assert_eq!(first.await, Ok(()));
        // The second keeps its place until the thread comes to it.
        while intake.run(0, start("fourth")).await == Err(IntakeError::Full) {
            tokio::task::yield_now().await;
        }
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["fourth"]);
    }

    #[tokio::test]
    async fn what_is_short_does_not_wait_for_what_is_long() {
        let intake = Intake::with(2, 8).unwrap();
        let (go, wait) = crossbeam_channel::bounded::<()>(8);
        let long = || {
            let wait = wait.clone();
            // It ends when the test lets it, or has failed.
            intake.run(SHORT + 1, move || {
                let _ = wait.recv();
            })
        };
        let mut longs: Vec<_> = (0..8).map(|_| Box::pin(long())).collect();
        for long in &mut longs {
            assert!(poll!(long).is_pending());
        }
        for bytes in [0, SHORT] {
            assert_eq!(intake.run(bytes, || 7).await, Ok(7));
        }
        for long in &mut longs {
            assert!(poll!(long).is_pending());
        }
        (0..8).for_each(|_| go.send(()).unwrap());
        for long in longs {
            assert_eq!(long.await, Ok(()));
        }
    }

    #[tokio::test]
    async fn work_that_panics_costs_its_own_request_alone() {
        let intake = Intake::with(1, 1).unwrap();
        assert_eq!(intake.run(0, || -> u32 { panic!("a defect") }).await, Err(IntakeError::Panicked));
        assert_eq!(intake.run(0, || 7).await, Ok(7));
    }
}
