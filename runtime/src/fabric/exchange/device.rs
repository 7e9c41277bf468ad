//! An exchange among the devices themselves: nothing of it passes through the host, which only puts it on the queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kernels::Backend;
use kernels::link::{Link, Lost};
use plan::ids::RankId;

use super::{Exchange, ExchangeCloser};
use crate::fabric::{Fabric, FabricError};

/// How long a device waits for another rank's before it gives that up: far longer than a rank may be behind in a step.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// See the module's documentation.
pub struct DeviceExchange<B: Backend, F> {
    link: Box<dyn Link<B>>,
    patience: Duration,
    closed: Arc<AtomicBool>,
    /// The ranks hold each other's connections for as long as they exchange, and see by them that one has ended.
    fabric: F,
}

impl<B: Backend, F: Fabric> DeviceExchange<B, F> {
    /// Over a link that gives ranks up after `patience`.
    #[must_use]
    pub fn new(link: Box<dyn Link<B>>, fabric: F, patience: Duration) -> Self {
        Self { link, patience, closed: Arc::default(), fabric }
    }

    /// What ends its waits from another thread.
    #[must_use]
    pub fn closer(&self) -> ExchangeCloser {
        let (closed, close) = (Arc::clone(&self.closed), self.link.closer());
        Box::new(move || {
            closed.store(true, Ordering::Release);
            close();
        })
    }
}

impl<B: Backend, F: Fabric> Exchange<B> for DeviceExchange<B, F> {
    fn ranks(&self) -> usize {
        self.fabric.ranks()
    }

    fn is_on_device(&self) -> bool {
        true
    }

    fn is_uniform(&self) -> bool {
        self.link.is_uniform()
    }

    fn dispatch(
        &mut self,
        queue: &B::Queue,
        routing: &mut B::Routing,
        x: &mut B::Buffer<f32>,
    ) -> Result<(), FabricError> {
        self.link.dispatch(queue, routing, x);
        Ok(())
    }

    fn combine(
        &mut self,
        queue: &B::Queue,
        routing: &mut B::Routing,
        results: &mut B::Buffer<f32>,
    ) -> Result<(), FabricError> {
        self.link.combine(queue, routing, results);
        Ok(())
    }

    fn begin(&mut self, tokens: usize) {
        self.link.begin(tokens);
    }

    fn end(&mut self) -> Result<(), FabricError> {
        self.link.end().map_err(|lost| match lost {
            _ if self.closed.load(Ordering::Acquire) => FabricError::Dissolved,
            Lost::Late { rank } => {
                FabricError::Silent { rank: rank.map(RankId::from), seconds: self.patience.as_secs() }
            }
            Lost::Ended { reason } => FabricError::Ended { reason },
        })
    }
}
