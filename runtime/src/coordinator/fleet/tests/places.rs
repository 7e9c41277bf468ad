//! Who has the place of a rank.

use super::*;

#[test]
fn a_rank_that_is_silent_is_lost() {
    let (fleet, events) = fleet(1, Duration::from_millis(300));
    let mut ranks = vec![Rank::join(&fleet, 0)];
    let (_group, _steps) = formed(&fleet, &events, &mut ranks);
    let FleetEvent::Lost { reason, .. } = next(&events) else { panic!("a loss was expected") };
    assert!(reason.contains("silent"), "{reason}");
}

#[test]
fn a_second_process_as_a_rank_that_lives_is_refused_and_the_first_serves_on() {
    let (fleet, events) = fleet(1, Duration::from_millis(800));
    let mut first = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let second = Rank::register(&fleet, 0, 99, |_| {});
    let refused = std::thread::spawn(move || second.refusal());
    let deadline = Instant::now() + PATIENCE;
    while !refused.is_finished() {
        assert!(Instant::now() < deadline);
        first.control.send(&FromRank::Alive).unwrap();
        std::thread::park_timeout(Duration::from_millis(100));
    }
    let reason = refused.join().unwrap();
    assert!(reason.contains("alive at moves:0"), "{reason}");
    assert!(matches!(next(&events), FleetEvent::Refused(told) if told.take() == Some(reason)));
    fleet.form(&map(1), 0).unwrap();
    first.form();
    assert!(matches!(next(&events), FleetEvent::Formed(_)));
}

#[test]
fn a_process_takes_over_a_rank_whose_old_process_is_dead() {
    let (fleet, events) = fleet(1, Duration::from_millis(300));
    let _silent = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let mut second = Rank::register(&fleet, 0, 99, |_| {});
    assert!(matches!(next(&events), FleetEvent::Complete));
    fleet.members.lose_silent(Instant::now());
    assert_eq!(fleet.roll().states()[0].address, "moves:0", "its silence begins when it is taken in");
    fleet.form(&map(1), 0).unwrap();
    second.form();
    assert!(matches!(next(&events), FleetEvent::Formed(_)));
}

#[test]
fn a_process_that_registers_again_replaces_itself_at_once() {
    let (fleet, events) = fleet(1, PATIENCE);
    let mut first = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    let _again = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    assert!(first.control.receive::<ToRank>().is_err());
}

#[test]
fn a_caller_with_another_secret_is_told_and_does_not_count() {
    let (fleet, events) = fleet(1, PATIENCE);
    let other = Secret::draw().unwrap();
    let address = fleet.address().to_string();
    let error = call(&address, "coordinator", (Purpose::Control, &other), PATIENCE).unwrap_err();
    assert!(
        error.to_string().contains("the secret differs: both") || error.to_string().contains("the secret differs;")
    );
    let group = GroupId { generation: 1, nonce: 0 };
    let steps = Purpose::Steps { group, rank: RankId(0) };
    let error = call(&address, "coordinator", (steps, &secret()), PATIENCE).unwrap_err();
    assert!(error.to_string().ends_with("does not expect this call now"), "{error}");
    let _rank = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    assert!(events.try_recv().is_err());
}

#[test]
fn a_place_is_kept_for_the_rank_that_had_it_when_its_group_was_lost() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (_group, _steps) = formed(&fleet, &events, &mut ranks);
    // Members too, as far as their secret goes, that wait for both places.
    let _waiting: Vec<Rank> = (0..2).map(|rank| Rank::register(&fleet, rank, 90 + u128::from(rank), |_| {})).collect();
    drop(ranks.pop());
    assert!(matches!(next(&events), FleetEvent::Lost { rank: RankId(1), .. }));
    // The one that waits for it takes the place of the rank that is gone; nobody takes that of the one that is not.
    wait_until("it has the place", || fleet.members.process_of(RankId(1)) == Some(ProcessId(91)));
    assert_eq!(fleet.members.process_of(RankId(0)), None);
    let _first = Rank::join(&fleet, 0);
    assert!(matches!(next(&events), FleetEvent::Complete));
    assert_eq!(fleet.members.process_of(RankId(0)), Some(ProcessId(0)));
}
