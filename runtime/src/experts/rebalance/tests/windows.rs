//! When windows close, and what is planned from them.

use super::*;

#[test]
fn a_window_closes_after_its_steps_with_the_ratio_that_ranks_measured() {
    let mut driven = Driven::new(settings());
    driven.steps(39);
    assert!(driven.plans.is_empty());
    driven.steps(1);
    let [Notice::WindowClosed(closed)] = &driven.notices[..] else { panic!("{:?}", driven.notices) };
    let report = &closed.report;
    // Each layer: 40 pairs on rank 0, 20 on rank 1: mean 30 of max 40.
    assert_eq!((report.number, report.steps, report.pairs, report.ratio), (1, 40, 40 * 120, 0.75));
    assert_eq!(report.ratio_per_layer, [0.75, 0.75]);
    assert_eq!(closed.pairs_of_ranks, [40 * 80, 40 * 40]);
    let [PlanRequest { goal: Goal::Balance { windows, lifetime, .. }, .. }] = &driven.plans[..] else { panic!() };
    assert_eq!(windows[0].layer(LayerId(1)), [1200, 400, 400, 400]);
    assert_eq!(*lifetime, Duration::from_millis(400));
}

#[test]
fn windows_that_are_kept_are_shared_and_not_copied() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    let [PlanRequest { goal: Goal::Balance { windows, .. }, .. }] = &driven.plans[..] else { panic!() };
    assert!(windows[0].shares_counts_with(&driven.rebalancer.windows.loads()[0]));
}

#[test]
fn a_plan_is_applied_no_earlier_than_the_wait_after_its_window_has_closed() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    driven.plan_to(&exchanged());
    driven.steps(29);
    assert!(driven.orders.is_empty());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Planning);
    driven.steps(1);
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Moving);
    assert_eq!(driven.orders.len(), 4, "one transaction for each layer, each with two receivers");
}

#[test]
fn a_plan_is_applied_no_earlier_than_the_wait_after_the_group_was_formed() {
    let mut driven = Driven::new(Settings { window_steps: 5, ..settings() });
    driven.steps(3);
    driven.on(Event::GroupLost);
    driven.on(Event::GroupFormed { generation: 2 });
    driven.apply_map(exchanged());
    driven.plan_to(&exchanged());
    driven.steps(29);
    assert!(driven.orders.is_empty());
    driven.steps(1);
    assert!(!driven.orders.is_empty());
}

#[test]
fn a_window_is_counted_under_one_map() {
    let (mut driven, started) = Driven::moving(settings());
    assert_eq!(driven.rebalancer.windows.steps(), 30);
    driven.stage_all(&started);
    driven.step();
    assert_eq!(driven.rebalancer.windows.steps(), 0);
    driven.steps(40);
    let Some(Notice::WindowClosed(closed)) = driven.notices.last() else { panic!() };
    assert_eq!((closed.report.number, closed.report.steps), (2, 40));
}

#[test]
fn no_window_closes_and_nothing_is_planned_while_experts_move() {
    let (mut driven, _) = Driven::moving(settings());
    driven.steps(100);
    assert_eq!(driven.plans.len(), 1);
}

#[test]
fn nothing_moves_when_it_is_not_worth_it_and_the_first_window_records_the_map() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    driven.on(Event::Planned { request: 1, outcome: keep() });
    assert_eq!((driven.totals().skipped, driven.recorded.len()), (1, 1));
    assert_eq!(driven.recorded[0].map, MapDocument::new(model(), &start()));
    driven.steps(40);
    driven.on(Event::Planned { request: 2, outcome: keep() });
    assert_eq!((driven.totals().skipped, driven.recorded.len()), (2, 1));
    assert!(driven.orders.is_empty());
}

#[test]
fn a_plan_is_made_from_the_last_windows_and_knows_how_long_ago_pages_moved() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started);
    driven.step();
    let planned = |driven: &Driven| match &driven.plans.last().unwrap().goal {
        Goal::Balance { windows, history, .. } => (windows.len(), history.windows_since_move),
        Goal::Reach(_) => panic!("{:?}", driven.plans),
    };
    assert_eq!(planned(&driven), (1, None));
    for since in 1..10 {
        driven.steps(40);
        assert_eq!(planned(&driven), (WINDOWS_KEPT.min(1 + since), Some(since as u64)));
        driven.on(Event::Planned { request: since as u64 + 1, outcome: keep() });
    }
    let decided = driven.notices.iter().filter(|notice| matches!(notice, Notice::Decided(_))).count();
    assert_eq!((decided, driven.rebalancer.last_decision), (10, Some(decision(Reason::GainTooSmall))));
}

#[test]
fn a_planner_that_fails_is_told_and_the_next_window_tries_again() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    driven.on(Event::Planned { request: 1, outcome: PlanOutcome::Failed { reason: "no topology".to_owned() } });
    assert_eq!(driven.rebalancer.degraded.as_deref(), Some("no plan could be made: no topology"));
    driven.steps(40);
    assert_eq!(driven.plans.len(), 2);
    driven.on(Event::Planned { request: 2, outcome: keep() });
    assert_eq!(driven.rebalancer.degraded, None);
}
