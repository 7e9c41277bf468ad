//! What the admin API asks of the driver.

use plan::wire::MapDocument;

use super::{Driver, Ranks};
use crate::coordinator::handle::{AdminCommand, AdminError};
use crate::experts::rebalance::{Event, Serving};
use crate::experts::recorder::Recorder;

impl<R: Ranks> Driver<R> {
    /// Carries out a command. Whoever asked may have gone away, so an answer that nobody takes is no error.
    pub(super) fn administer(&mut self, command: AdminCommand) {
        let rebalancer = &self.settings.rebalancer;
        match command {
            AdminCommand::State(reply) => {
                let _ = reply.send(rebalancer.state(self.serving()));
            }
            AdminCommand::Map(reply) => {
                let _ = reply.send(rebalancer.map_document());
            }
            AdminCommand::RecordedMap(reply) => {
                let _ = reply.send(rebalancer.recorded().cloned());
            }
            AdminCommand::Load(reply) => {
                let _ = reply.send(rebalancer.last_load());
            }
            AdminCommand::ApplyMap(map, reply) => {
                let _ = reply.send(self.apply_map(&map));
            }
            AdminCommand::Rebalance(reply) => {
                let refused = self.tell_rebalancer(Event::Trigger);
                let _ = reply.send(refused.map_or(Ok(()), |reason| Err(AdminError::Busy(reason))));
            }
        }
    }

    fn serving(&self) -> Serving {
        Serving {
            ready: self.group.is_some(),
            generation: self.ranks.generation(),
            ranks: self.ranks.states(),
            static_map: self.settings.static_map,
            failure: self.failure.clone(),
            trouble: self.settings.recorder.as_ref().and_then(Recorder::trouble),
        }
    }

    fn apply_map(&mut self, document: &MapDocument) -> Result<(), AdminError> {
        let map = document.to_map(&self.settings.model)?;
        self.tell_rebalancer(Event::ApplyMap(map)).map_or(Ok(()), |reason| Err(AdminError::Refused(reason)))
    }
}
