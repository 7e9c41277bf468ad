//! A rank's control connection: one thread writes what it reports, one reads what it is ordered, whatever else it does meanwhile.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};

use super::metrics::WorkerMetrics;
use super::session::SessionError;
use crate::cancel::Cancel;
use crate::fabric::framing::{Closer, Connection, ConnectionError};
use crate::protocol::{FromRank, ToRank};

/// How often a rank says that it is alive.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// The control connection, beside the orders that arrive on it.
pub(super) struct Control {
    pub closer: Closer,
    pub reports: Sender<FromRank>,
    /// Cancelled when the connection is gone.
    pub gone: Arc<Cancel>,
}

/// Orders as they arrive; the last is why no more do.
pub(super) type Orders = Receiver<Result<ToRank, ConnectionError>>;

impl Control {
    /// Over a connection on which the rank is registered.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn of(control: Connection, metrics: &WorkerMetrics) -> Result<(Self, Orders), SessionError> {
        let closer = control.closer()?;
        let (reports, outbox) = unbounded();
        spawn_writer(control.share()?, outbox, metrics.clone())?;
        let gone = Arc::new(Cancel::default());
        let orders = spawn_reader(control, &gone)?;
        Ok((Self { closer, reports, gone }, orders))
    }
}

/// Sends reports, and a sign of life every second whatever else this process does.
fn spawn_writer(mut control: Connection, outbox: Receiver<FromRank>, metrics: WorkerMetrics) -> io::Result<()> {
    let write = move || {
        let mut alive = Instant::now();
        loop {
            let message = match outbox.recv_deadline(alive + ALIVE_INTERVAL) {
                Ok(report) => {
                    metrics.reported(&report);
                    report
                }
                Err(RecvTimeoutError::Timeout) => {
                    alive = Instant::now();
                    let loading = metrics.load_progress().map(|(read, of)| FromRank::Loading { read, of });
                    loading.unwrap_or(FromRank::Alive)
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // The thread that reads reports the loss.
            if control.send(&message).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("control-write".to_owned()).spawn(write)?;
    Ok(())
}

/// Reads orders ahead, so that the loss of the coordinator is noticed while an order is carried out.
fn spawn_reader(mut control: Connection, gone: &Arc<Cancel>) -> io::Result<Orders> {
    let (orders, received) = unbounded();
    let gone = Arc::clone(gone);
    let read = move || {
        loop {
            let order = control.receive();
            let ended = order.is_err();
            if ended {
                gone.cancel();
            }
            if orders.send(order).is_err() || ended {
                return;
            }
        }
    };
    std::thread::Builder::new().name("control-read".to_owned()).spawn(read)?;
    Ok(received)
}
