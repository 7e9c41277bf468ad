//! Makes the plans that the rebalancer asks for, on a thread of its own: a plan may take many steps' time.

use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::moves::transactions;
use plan::policy::Terms;
use plan::proposal::{Proposal, Rules, Situation, propose};
use plan::topology::Topology;

use super::rebalance::{Goal, PlanOutcome, PlanRequest};
use crate::threads::{VitalThreads, survive};

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
    /// What may be lost with every expert still present.
    pub min_coverage: Coverage,
    /// What plans are measured by; their life is that of the window they are made from.
    pub terms: Terms,
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
        match goal {
            Goal::Reach(target) => {
                let transactions = transactions(map, target, topology, self.staging_pages as usize);
                let transactions = transactions.map_err(|error| error.to_string())?;
                Ok(PlanOutcome::Move { transactions, decision: None })
            }
            Goal::Balance { windows, lifetime, history } => {
                let rules = Rules {
                    policy: self.policy,
                    min_coverage: self.min_coverage,
                    staging_pages: self.staging_pages as usize,
                    terms: Terms { lifetime_seconds: lifetime.as_secs_f64(), ..self.terms },
                };
                let situation = Situation { current: map, windows, topology, history: *history };
                propose(&situation, &rules).map(outcome).map_err(|error| error.to_string())
            }
        }
    }

    /// Starts the thread: requests go in, each comes out with its number and what came of it. It ends when no more
    /// requests can come.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(self, threads: &VitalThreads) -> std::io::Result<(Sender<Wanted>, Receiver<Planned>)> {
        let (requests, incoming) = unbounded::<Wanted>();
        let (outgoing, outcomes) = unbounded();
        threads.spawn("planner", move || {
            super::Yield::Planning.apply();
            answer(&incoming, &outgoing, |request, topology| self.plan(request, topology));
        })?;
        Ok((requests, outcomes))
    }
}

/// Answers every request. A plan that panics is one that could not be made: the placement in force serves on.
fn answer(
    requests: &Receiver<Wanted>,
    outcomes: &Sender<Planned>,
    plan: impl Fn(&PlanRequest, &Topology) -> PlanOutcome,
) {
    for (request, topology) in requests {
        let outcome = survive(|| plan(&request, &topology)).unwrap_or_else(|reason| PlanOutcome::Failed { reason });
        if outcomes.send((request.number, outcome)).is_err() {
            return;
        }
    }
}

fn outcome(Proposal { decision, transactions }: Proposal) -> PlanOutcome {
    if decision.moves() {
        PlanOutcome::Move { transactions, decision: Some(decision) }
    } else {
        PlanOutcome::Keep { decision }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use plan::load::ExpertLoad;
    use plan::map::{ExpertMap, MapShape};
    use plan::policy::{History, Reason};

    use super::*;

    fn planner() -> Planner {
        Planner {
            policy: Policy::default(),
            staging_pages: 2,
            min_coverage: Coverage::default(),
            terms: Terms::usual(1000, 0.0),
        }
    }

    fn topology() -> Topology {
        Topology::single_node(2, 2)
    }

    fn map() -> ExpertMap {
        ExpertMap::contiguous(MapShape::with_redundancy(1, 4, 2, 0).unwrap()).unwrap()
    }

    fn balance_for(counts: [u64; 4]) -> PlanRequest {
        let windows = vec![ExpertLoad::from_rows(&[counts.to_vec()]).unwrap()];
        let goal = Goal::Balance { windows, lifetime: Duration::from_secs(1), history: History::default() };
        PlanRequest { number: 1, map: map(), goal }
    }

    #[test]
    fn an_uneven_load_is_worth_a_move_whose_transactions_apply() {
        let outcome = planner().plan(&balance_for([50, 50, 1, 1]), &topology());
        let PlanOutcome::Move { transactions, decision: Some(decision) } = outcome else { panic!("{outcome:?}") };
        let target = transactions.iter().fold(map(), |map, work| map.apply(work).unwrap());
        assert_ne!(target, map());
        let figures = decision.figures;
        assert_eq!(figures.pages, 2);
        // 0.51 and 1 on this very window; the next will differ from one of a hundred tokens.
        let [before, after] = [figures.ratio_before, figures.ratio_after];
        assert!(before <= 0.51 && after > 0.8 && after < 1.0, "{figures:?}");
    }

    #[test]
    fn an_even_load_is_kept_with_the_reason() {
        let outcome = planner().plan(&balance_for([10, 10, 10, 10]), &topology());
        let PlanOutcome::Keep { decision } = outcome else { panic!("{outcome:?}") };
        assert_eq!((decision.reason, decision.replay()), (Reason::SamePlacement, Reason::SamePlacement));
    }

    #[test]
    fn a_move_that_takes_longer_than_the_plan_lasts_is_not_worth_it() {
        let slow = Planner { terms: Terms { bytes_per_second: Some(10.0), ..planner().terms }, ..planner() };
        let PlanOutcome::Keep { decision } = slow.plan(&balance_for([50, 50, 1, 1]), &topology()) else { panic!() };
        assert_eq!(decision.reason, Reason::MovesTooLong);
    }

    #[test]
    fn a_plan_that_is_not_worth_its_bytes_may_still_change_shares() {
        // Expert 0 is on both ranks; 1 and 2 cannot change places in time.
        let shape = MapShape { layers: 1, experts: 5, ranks: 2, slots_per_rank: 3 };
        let slots = [0, 1, 3, 0, 2, 4].map(plan::ids::ExpertId).to_vec();
        let map = ExpertMap::new(shape, slots).unwrap();
        let windows = vec![ExpertLoad::from_rows(&[vec![1000, 100, 900, 10, 10]]).unwrap()];
        let goal = Goal::Balance { windows, lifetime: Duration::from_secs(1), history: History::default() };
        let topology = Topology::single_node(2, 3);
        let terms = Terms { bytes_per_second: Some(10.0), ..planner().terms };
        let slow = Planner { terms, ..planner() };
        let outcome = slow.plan(&PlanRequest { number: 1, map: map.clone(), goal }, &topology);
        let PlanOutcome::Move { transactions, decision: Some(decision) } = outcome else { panic!("{outcome:?}") };
        assert_eq!((decision.reason, decision.figures.bytes), (Reason::SharesOnly, 0));
        let after = transactions.iter().fold(map.clone(), |map, work| map.apply(work).unwrap());
        assert_eq!((after.slots(), after == map), (map.slots(), false));
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
        let (requests, outcomes) = planner().start(&VitalThreads::new(drop)).unwrap();
        let topology = Arc::new(topology());
        requests.send((balance_for([50, 50, 1, 1]), Arc::clone(&topology))).unwrap();
        requests.send((PlanRequest { number: 2, map: map(), goal: Goal::Reach(map()) }, topology)).unwrap();
        drop(requests);
        let numbers: Vec<u64> = outcomes.iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [1, 2]);
    }

    #[test]
    fn a_plan_that_panics_is_one_plan_that_could_not_be_made() {
        let (requests, incoming) = unbounded();
        let (outgoing, outcomes) = unbounded();
        for number in [1, 2] {
            requests.send((PlanRequest { number, ..balance_for([50, 50, 1, 1]) }, Arc::new(topology()))).unwrap();
        }
        drop(requests);
        answer(&incoming, &outgoing, |request, topology| {
            assert!(request.number > 1, "a hole");
            planner().plan(request, topology)
        });
        let outcomes: Vec<Planned> = outcomes.try_iter().collect();
        assert_eq!(outcomes[0], (1, PlanOutcome::Failed { reason: "it panicked: a hole".to_owned() }));
        assert!(matches!(outcomes[1], (2, PlanOutcome::Move { .. })), "{outcomes:?}");
    }
}
