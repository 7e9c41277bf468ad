//! Makes the plans that the rebalancer asks for, on a thread of its own: a plan may take many steps' time.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use plan::balance::{Policy, Request, balance};
use plan::moves::{best_first, transactions};
use plan::policy::{Decision, Terms, decide};
use plan::topology::Topology;

use super::rebalance::{Goal, PlanOutcome, PlanRequest};

/// What is asked for, and where the ranks are.
pub type Wanted = (PlanRequest, Arc<Topology>);

/// The number of a request, and what came of it.
pub type Planned = (u64, PlanOutcome);

/// What plans are made with.
#[derive(Clone, Debug)]
pub struct Planner {
    /// How a target map is found.
    pub policy: Policy,
    /// Staging pages of each rank.
    pub staging_pages: u32,
    /// Least gain in balance ratio for which experts move.
    pub minimum_gain: f64,
    /// Bytes of a page.
    pub page_bytes: u64,
    /// Bytes per second that moves to one rank may use; 0 is no limit.
    pub move_bytes_per_second: u64,
}

impl Planner {
    /// Makes one plan.
    #[must_use]
    pub fn plan(&self, request: &PlanRequest, topology: &Topology) -> PlanOutcome {
        self.try_plan(request, topology).unwrap_or_else(|reason| PlanOutcome::Failed { reason })
    }

    fn try_plan(
        &self,
        PlanRequest { map, goal, .. }: &PlanRequest,
        topology: &Topology,
    ) -> Result<PlanOutcome, String> {
        let (target, ratios) = match goal {
            Goal::Reach(target) => (target.clone(), None),
            Goal::Balance { load, lifetime } => {
                let target = balance(&Request {
                    policy: self.policy,
                    windows: std::slice::from_ref(load),
                    topology,
                    current: Some(map),
                    min_coverage: 0,
                })
                .map_err(|error| error.to_string())?
                .map;
                let terms = Terms {
                    minimum_gain: self.minimum_gain,
                    page_bytes: self.page_bytes,
                    bytes_per_second: match self.move_bytes_per_second {
                        0 => f64::INFINITY,
                        limit => limit as f64,
                    },
                    lifetime_seconds: lifetime.as_secs_f64(),
                };
                match decide(load, map, &target, &terms) {
                    Decision::Keep(reason, figures) => {
                        let (before, after) = (figures.ratio_before, figures.ratio_after);
                        let reason =
                            format!("{reason}: ratio {before:.3}, {after:.3} with {} pages moved", figures.pages);
                        return Ok(PlanOutcome::Keep { reason });
                    }
                    Decision::Move(figures) => (target, Some((figures.ratio_before, figures.ratio_after))),
                }
            }
        };
        let pages = self.staging_pages as usize;
        let transactions = match goal {
            Goal::Reach(_) => transactions(map, &target, pages),
            Goal::Balance { load, .. } => best_first(map, &target, load, pages),
        };
        let transactions = transactions.map_err(|error| error.to_string())?;
        let (ratio_before, ratio_after) = ratios.unzip();
        Ok(PlanOutcome::Move { transactions, ratio_before, ratio_after })
    }

    /// Starts the thread: requests go in, each comes out with its number and what came of it. It ends when no more
    /// requests can come.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(self) -> std::io::Result<(Sender<Wanted>, Receiver<Planned>)> {
        let (requests, incoming) = unbounded::<Wanted>();
        let (outgoing, outcomes) = unbounded();
        std::thread::Builder::new().name("planner".to_owned()).spawn(move || {
            super::Yield::Planning.apply();
            for (request, topology) in incoming {
                let outcome = self.plan(&request, &topology);
                if outgoing.send((request.number, outcome)).is_err() {
                    return;
                }
            }
        })?;
        Ok((requests, outcomes))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plan::load::ExpertLoad;
    use plan::map::{ExpertMap, MapShape};

    use super::*;

    fn planner() -> Planner {
        Planner {
            policy: Policy::default(),
            staging_pages: 2,
            minimum_gain: 0.02,
            page_bytes: 1000,
            move_bytes_per_second: 0,
        }
    }

    fn topology() -> Topology {
        Topology::single_node(2, 2)
    }

    fn map() -> ExpertMap {
        ExpertMap::contiguous(MapShape::with_redundancy(1, 4, 2, 0).unwrap()).unwrap()
    }

    fn balance_for(counts: [u64; 4]) -> PlanRequest {
        let load = ExpertLoad::from_rows(&[counts.to_vec()]).unwrap();
        PlanRequest { number: 1, map: map(), goal: Goal::Balance { load, lifetime: Duration::from_secs(1) } }
    }

    #[test]
    fn an_uneven_load_is_worth_a_move_whose_transactions_apply() {
        let outcome = planner().plan(&balance_for([50, 50, 1, 1]), &topology());
        let PlanOutcome::Move { transactions, ratio_before, ratio_after } = outcome else { panic!("{outcome:?}") };
        let target = transactions.iter().fold(map(), |map, work| map.apply(work).unwrap());
        assert_ne!(target, map());
        assert_eq!((ratio_before, ratio_after), (Some(0.51), Some(1.0)));
    }

    #[test]
    fn an_even_load_is_kept_with_the_reason() {
        let outcome = planner().plan(&balance_for([10, 10, 10, 10]), &topology());
        let PlanOutcome::Keep { reason } = outcome else { panic!("{outcome:?}") };
        assert!(reason.contains("ratio 1.000"), "{reason}");
    }

    #[test]
    fn a_move_that_takes_longer_than_the_plan_lasts_is_not_worth_it() {
        let slow = Planner { move_bytes_per_second: 10, ..planner() };
        assert!(matches!(slow.plan(&balance_for([50, 50, 1, 1]), &topology()), PlanOutcome::Keep { .. }));
    }

    #[test]
    fn a_plan_that_cannot_be_made_says_why() {
        let request = PlanRequest { number: 1, map: map(), goal: Goal::Reach(map()) };
        let none = Planner { staging_pages: 0, ..planner() };
        let PlanOutcome::Failed { reason } = none.plan(&request, &topology()) else { panic!() };
        assert!(reason.contains("at least one staging page"), "{reason}");
    }

    #[test]
    fn the_thread_answers_in_order_and_ends_with_its_requests() {
        let (requests, outcomes) = planner().start().unwrap();
        let topology = Arc::new(topology());
        requests.send((balance_for([50, 50, 1, 1]), Arc::clone(&topology))).unwrap();
        requests.send((PlanRequest { number: 2, map: map(), goal: Goal::Reach(map()) }, topology)).unwrap();
        drop(requests);
        let numbers: Vec<u64> = outcomes.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 2]);
    }
}
