//! How transactions come into force.

use super::*;

#[test]
fn a_transaction_is_committed_when_every_receiver_has_staged_it_and_in_force_when_the_step_is_done() {
    let (mut driven, started) = Driven::moving(settings());
    driven.staged(started[0], 0);
    assert_eq!(driven.step(), []);
    driven.staged(started[0], 1);
    driven.step += 1;
    let commits = driven.rebalancer.commits_for(driven.step);
    let [Commit { transaction, epoch: 1, work }] = &commits[..] else { panic!("{commits:?}") };
    assert_eq!((*transaction, work.layer, work.changes.len()), (started[0], LayerId(0), 2));
    assert_eq!((driven.rebalancer.map(), driven.rebalancer.epoch()), (&start(), 0));
    driven.finish_step();
    assert_eq!(driven.rebalancer.epoch(), 1);
    assert_eq!(driven.rebalancer.map().layer(LayerId(0)), exchanged().layer(LayerId(0)));
    assert_eq!(driven.step(), [], "it is committed once");
}

#[test]
fn a_rank_that_reports_twice_does_not_stand_in_for_another() {
    let (mut driven, started) = Driven::moving(settings());
    driven.staged(started[0], 0);
    driven.staged(started[0], 0);
    assert_eq!(driven.step(), []);
}

#[test]
fn a_completed_rebalance_is_counted_and_recorded_with_where_it_comes_from() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started);
    assert_eq!(driven.step().len(), 2);
    assert_eq!(driven.rebalancer.map(), &exchanged());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Collecting);
    let totals = MoveTotals { rebalances: 1, committed: 2, experts_moved: 4, bytes_moved: 400, ..Default::default() };
    assert_eq!(driven.totals(), &totals);
    let [RecordedMap { map, provenance }] = &driven.recorded[..] else { panic!("{:?}", driven.recorded) };
    assert_eq!(map, &MapDocument::new(model(), &exchanged()));
    // Load 30 10 10 10: the map [0 2 | 1 3] gives 40 and 20.
    let expected = Provenance { window: 1, window_steps: 40, window_pairs: 4800, epoch: 2, ratio: 0.75 };
    assert_eq!(provenance, &expected);
}

#[test]
fn no_rank_gets_more_pages_than_it_can_stage() {
    let (mut driven, started) = Driven::moving(Settings { staging_pages: 1, ..settings() });
    assert_eq!(started.len(), 1, "both transactions bring each rank a page");
    driven.stage_all(&started);
    driven.step();
    assert_eq!(driven.started().len(), 2);
}

#[test]
fn shares_alone_are_committed_with_the_next_step_and_no_rank_is_told_to_receive() {
    let shape = MapShape::with_redundancy(1, 3, 2, 1).unwrap();
    let map = ExpertMap::contiguous(shape).unwrap();
    let whole = plan::map::WHOLE;
    let shared = map.clone().with_shares(&[whole / 4, whole, whole, whole / 4 * 3]).unwrap();
    let model = ModelIdentity { layers: 1, experts: 3, ..model() };
    let mut driven = Driven::new(settings());
    driven.rebalancer = Rebalancer::new(settings(), model, map, 0).unwrap();
    driven.pairs = [vec![30, 10], vec![10, 10]];
    driven.on(Event::GroupFormed { generation: 1 });
    driven.steps(40);
    driven.plan_to(&shared);
    driven.steps(30);
    assert!(driven.orders.is_empty());
    let [Commit { work, epoch: 1, .. }] = &driven.step()[..] else { panic!() };
    assert_eq!((work.changes.len(), work.shares.len()), (0, 2));
    assert_eq!((driven.rebalancer.map(), driven.totals().bytes_moved), (&shared, 0));
    assert_eq!(driven.rebalancer.moved_after, None, "nothing that would have to last has moved");
}

#[test]
fn a_step_never_commits_more_slots_than_can_pass_unnoticed() {
    let layers = 40;
    let map = ExpertMap::contiguous(MapShape::with_redundancy(layers, 4, 2, 0).unwrap()).unwrap();
    let target: Vec<ExpertId> = (0..layers).flat_map(|_| [0, 2, 1, 3].map(ExpertId)).collect();
    let work = transactions(&map, &ExpertMap::new(map.shape(), target).unwrap(), &one_node(), 1).unwrap();
    let mut moves = Moves::new(work);
    let (settings, mut number) = (Settings { staging_pages: 64, ..settings() }, 0);
    let moment = Moment { steps: 0, now: Duration::ZERO };
    let started = moves.start(&settings, moment, || {
        number += 1;
        TransactionId(number)
    });
    assert_eq!(started.len(), layers);
    for id in started {
        moves.staged(id, RankId(0), 1);
        moves.staged(id, RankId(1), 1);
    }
    let per_step: Vec<usize> = (1..=4).map(|step| moves.commit(step).len()).collect();
    assert_eq!(per_step, [16, 16, 8, 0], "2 slots each");
}

#[test]
fn a_step_that_is_sent_while_another_commits_goes_on_from_its_epoch() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started[..1]);
    let first = driven.rebalancer.commits_for(driven.step + 1);
    driven.stage_all(&started[1..]);
    let second = driven.rebalancer.commits_for(driven.step + 2);
    let committed = |commits: &[Commit]| match commits {
        [commit] => (commit.transaction, commit.epoch),
        _ => panic!("{commits:?}"),
    };
    assert_eq!((committed(&first), committed(&second)), ((started[0], 1), (started[1], 2)));
    assert_eq!(driven.rebalancer.commits_for(driven.step + 3), []);
    for (epoch, layers) in [(1, [&exchanged(), &start()]), (2, [&exchanged(), &exchanged()])] {
        driven.step += 1;
        driven.finish_step();
        assert_eq!(driven.rebalancer.epoch(), epoch);
        for (layer, map) in layers.into_iter().enumerate() {
            assert_eq!(driven.rebalancer.map().layer(layer.into()), map.layer(layer.into()), "layer {layer}");
        }
    }
}

#[test]
fn who_looks_at_a_map_sees_it_as_it_was_and_the_next_has_a_hash_of_its_own() {
    let service = Service { ready: true, generation: 1, static_map: false, failure: None, trouble: None };
    let (mut driven, started) = Driven::moving(settings());
    let hash = |map: &ExpertMap| MapDocument::new(model(), map).content_hash();
    let before = driven.rebalancer.seen();
    driven.stage_all(&started);
    driven.step();
    let after = driven.rebalancer.seen();
    assert_eq!(before.map_document(), MapDocument::new(model(), &start()));
    let states = [before, after].map(|seen| seen.state(service.clone(), Vec::new()));
    assert_eq!(states.map(|state| (state.epoch, state.map_hash)), [(0, hash(&start())), (2, hash(&exchanged()))]);
    // A map that nobody else holds is changed where it is, and its hash with it.
    driven.apply_map(start());
    driven.plan_to(&start());
    let back = driven.started();
    driven.stage_all(&back[started.len()..]);
    driven.step();
    assert_eq!(driven.rebalancer.seen().state(service, Vec::new()).map_hash, hash(&start()));
}
