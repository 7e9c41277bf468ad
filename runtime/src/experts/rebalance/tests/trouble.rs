//! What becomes of moves that go wrong.

use super::*;
use crate::experts::pages::tests::change;
use crate::experts::rebalance::failure::{BACK_OFF_STEPS, MOST_FAILURES};

#[test]
fn a_failed_transaction_is_aborted_everywhere_and_tried_again_after_a_growing_number_of_steps() {
    let (mut driven, started) = Driven::moving(settings());
    driven.staged(started[0], 0);
    driven.failed(started[0], 1);
    assert_eq!(driven.aborts(), [(RankId(0), started[0])], "the rank that failed has freed its pages itself");
    driven.orders.clear();
    driven.steps(BACK_OFF_STEPS - 1);
    assert!(driven.started().is_empty());
    driven.steps(1);
    let [second] = driven.started()[..] else { panic!("{:?}", driven.orders) };
    assert!(second > started[1], "numbers are never used again");
    driven.staged(started[0], 0);
    driven.staged(started[0], 1);
    assert_eq!(driven.step(), [], "a report of the first attempt means nothing now");
    driven.failed(second, 0);
    driven.orders.clear();
    driven.steps(2 * BACK_OFF_STEPS - 1);
    assert!(driven.started().is_empty());
    driven.steps(1);
    let third = driven.started();
    driven.stage_all(&third);
    driven.stage_all(&started[1..]);
    assert_eq!(driven.step().len(), 2);
    assert_eq!((driven.totals().aborted, driven.totals().committed), (2, 2));
    assert_eq!(driven.rebalancer.degraded, None);
}

#[test]
fn a_transaction_that_keeps_failing_ends_its_plan_and_the_map_in_force_serves_on() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started[1..]);
    driven.step();
    for failures in 1..=MOST_FAILURES {
        let last = *driven.started().last().unwrap();
        let transaction = last.max(started[0]);
        let transaction = if driven.totals().aborted == 0 { started[0] } else { transaction };
        driven.failed(transaction, 1);
        driven.steps(if failures < MOST_FAILURES { BACK_OFF_STEPS << (failures - 1) } else { 20 });
    }
    assert_eq!(driven.dropped(), Some("a transaction of layer 0 failed 5 times, last on rank 1: page is corrupt"));
    assert_eq!(driven.rebalancer.degraded.as_deref(), driven.dropped());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Collecting);
    assert_eq!(driven.rebalancer.map().layer(LayerId(0)), start().layer(LayerId(0)));
    assert_eq!(driven.rebalancer.map().layer(LayerId(1)), exchanged().layer(LayerId(1)));
    assert!(driven.recorded.is_empty());
    driven.steps(40);
    assert_eq!(driven.plans.len(), 2, "the next window is planned for again");
}

#[test]
fn a_transaction_that_a_lost_device_fails_is_not_tried_again_and_its_plan_frees_the_staging_pages_of_the_others() {
    let (mut driven, started) = Driven::moving(settings());
    driven.staged(started[1], 0);
    driven.failed_for(MoveFailure::DeviceLost, started[0], 1);
    let expected = [(RankId(0), started[0]), (RankId(0), started[1]), (RankId(1), started[1])];
    assert_eq!(driven.aborts(), expected);
    assert_eq!(driven.totals().aborted, 2);
    assert_eq!(driven.rebalancer.pending_transactions(), 0);
    driven.step();
    let why = "a transaction of layer 0 failed and is not tried again: rank 1: page is corrupt";
    assert_eq!(driven.dropped(), Some(why));
}

#[test]
fn a_rank_that_never_reports_fails_its_transaction_after_the_deadline() {
    let (mut driven, started) = Driven::moving(settings());
    driven.now += Duration::from_secs(14);
    driven.step();
    assert!(driven.aborts().is_empty());
    driven.now += Duration::from_secs(2);
    driven.step();
    assert_eq!(driven.aborts().len(), 4);
    assert_eq!(driven.totals().aborted, started.len() as u64);
}

#[test]
fn a_transaction_that_no_rank_could_stage_is_refused_at_once() {
    let mut driven = Driven::new(Settings { staging_pages: 1, ..settings() });
    driven.steps(40);
    let changes = vec![change(0, 0, 0, 2), change(0, 1, 1, 3), change(1, 0, 2, 0), change(1, 1, 3, 1)];
    let transactions = vec![Transaction { layer: LayerId(0), changes, shares: Vec::new() }];
    let outcome = PlanOutcome::Move { transactions, decision: None };
    driven.on(Event::Planned { request: 1, outcome });
    driven.steps(30);
    assert_eq!(driven.dropped(), Some("a transaction of layer 0 needs more than 1 staging page"));
    assert!(driven.orders.is_empty());
}

#[test]
fn a_lost_group_keeps_the_map_of_the_last_finished_step() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started[..1]);
    driven.step();
    driven.stage_all(&started[1..]);
    driven.step += 1;
    assert_eq!(driven.rebalancer.commits_for(driven.step).len(), 1);
    driven.on(Event::GroupLost);
    assert_eq!((driven.rebalancer.epoch(), driven.rebalancer.phase()), (1, wire::Phase::Collecting));
    assert_eq!(driven.rebalancer.map().layer(LayerId(1)), start().layer(LayerId(1)));
    assert_eq!(driven.totals().aborted, 1);
    driven.on(Event::GroupFormed { generation: 2 });
    driven.staged(started[1], 0);
    assert_eq!(driven.step(), [], "reports of the lost generation mean nothing");
}

#[test]
fn a_plan_that_arrives_after_its_group_was_lost_is_ignored() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    driven.on(Event::GroupLost);
    driven.on(Event::GroupFormed { generation: 2 });
    driven.plan_to(&exchanged());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Collecting);
}
