//! What the admin API asks of the driver.

use plan::wire::MapDocument;

use super::{Driver, Ranks};
use crate::coordinator::handle::{AdminCommand, AdminError, Look};
use crate::experts::rebalance::{Rebalancer, Service};
use crate::experts::recorder::Recorder;

impl<R: Ranks> Driver<R> {
    /// Carries out a command. Whoever asked may have gone away, so an answer that nobody takes is no error.
    pub(super) fn administer(&mut self, command: AdminCommand) {
        match command {
            AdminCommand::Look(reply) => {
                let (seen, roll) = (self.settings.rebalancer.seen(), self.ranks.roll());
                let _ = reply.send(Look { seen, service: self.service(), roll });
            }
            AdminCommand::ApplyMap(map, reply) => {
                let _ = reply.send(self.apply_map(&map));
            }
            AdminCommand::Rebalance(reply) => {
                let _ = reply.send(self.ask_rebalancer(Rebalancer::trigger).map_err(AdminError::Refused));
            }
        }
    }

    fn service(&self) -> Service {
        Service {
            ready: self.group.is_some(),
            generation: self.ranks.generation(),
            static_map: self.settings.static_map,
            failure: self.failure.clone(),
            trouble: self.settings.recorder.as_ref().and_then(Recorder::trouble),
        }
    }

    fn apply_map(&mut self, document: &MapDocument) -> Result<(), AdminError> {
        let map = document.to_map(&self.settings.model)?;
        Ok(self.ask_rebalancer(|rebalancer| rebalancer.apply_map(map))?)
    }
}
