//! What somebody asks for, and when that is refused.

use super::*;

#[test]
fn without_dynamic_eplb_load_is_counted_and_only_what_is_asked_for_moves() {
    let mut driven = Driven::new(Settings { dynamic: false, ..settings() });
    driven.steps(80);
    assert_eq!(driven.rebalancer.windows.closed(), 2);
    assert!(driven.plans.is_empty() && driven.recorded.is_empty());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Off);
    driven.steps(1);
    driven.trigger().unwrap();
    assert!(matches!(driven.plans[..], [PlanRequest { goal: Goal::Balance { .. }, .. }]));
    driven.on(Event::Planned { request: 1, outcome: keep() });
    driven.apply_map(exchanged());
    driven.plan_to(&exchanged());
    driven.step();
    let started = driven.started();
    driven.stage_all(&started);
    driven.step();
    assert_eq!(driven.rebalancer.map(), &exchanged());
}

#[test]
fn a_trigger_closes_the_window_early_and_is_refused_when_it_cannot_be_granted() {
    let mut driven = Driven::new(settings());
    assert_eq!(driven.trigger(), Err(Refusal::NoLoad));
    driven.steps(3);
    driven.trigger().unwrap();
    assert_eq!(driven.rebalancer.seen().last_load().unwrap().steps, 3);
    assert_eq!(driven.trigger(), Err(Refusal::UnderWay));
    driven.on(Event::GroupLost);
    assert_eq!(driven.trigger(), Err(Refusal::NotReady));
}

#[test]
fn a_map_that_is_asked_for_replaces_the_plan_under_way_from_the_map_then_in_force() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started[..1]);
    driven.step += 1;
    assert_eq!(driven.rebalancer.commits_for(driven.step).len(), 1);
    driven.apply_map(start());
    assert_eq!(driven.aborts(), [(RankId(0), started[1]), (RankId(1), started[1])]);
    assert_eq!(driven.plans.len(), 1, "the commit of the step that runs cannot be taken back");
    driven.finish_step();
    let PlanRequest { map, goal, .. } = driven.plans.last().unwrap();
    assert_eq!((map.layer(LayerId(0)), goal), (exchanged().layer(LayerId(0)), &Goal::Reach(start())));
    assert_eq!(driven.rebalancer.degraded, None);
    driven.orders.clear();
    driven.plan_to(&start());
    let back = driven.started();
    driven.stage_all(&back);
    driven.step();
    assert_eq!(driven.rebalancer.map(), &start());
}

#[test]
fn a_map_that_is_asked_for_survives_a_lost_group() {
    let mut driven = Driven::new(settings());
    driven.apply_map(exchanged());
    driven.plan_to(&exchanged());
    driven.on(Event::GroupLost);
    driven.on(Event::GroupFormed { generation: 2 });
    assert_eq!(driven.plans.last().unwrap().goal, Goal::Reach(exchanged()));
}

#[test]
fn a_map_of_another_shape_is_refused() {
    let mut driven = Driven::new(settings());
    let other = ExpertMap::contiguous(MapShape::with_redundancy(2, 4, 2, 2).unwrap()).unwrap();
    let (found, ranks) = (other.shape(), start().shape());
    let refusal = driven.rebalancer.apply_map(other).unwrap_err();
    assert_eq!(refusal, Refusal::OtherShape { found, ranks });
    assert_eq!(
        refusal.to_string(),
        "the map has 2 layers of 4 experts on 2 ranks of 3 slots, the ranks have 2 of 4 on 2 of 2"
    );
    driven.steps(1);
    assert!(driven.plans.is_empty());
}
