//! Steps, and groups that are lost in them.

use super::*;
use crate::protocol::SlotPairs;

#[test]
fn a_lost_rank_ends_its_group_and_the_next_has_a_higher_generation() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (mut group, steps) = formed(&fleet, &events, &mut ranks);
    drop(ranks.pop());
    assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(1), .. }));
    let error = run_step(&mut group, 1, vec![Batch::default(); 2], &[]).unwrap_err();
    assert_eq!(error.number, 1);
    let is_let_go = (0..2).any(|_| ranks[0].control.receive::<ToRank>().is_err());
    assert!(is_let_go, "the survivor hears what was agreed, and then that it has to register again");
    drop((group, steps));
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (group, _steps) = formed(&fleet, &events, &mut ranks);
    assert_eq!(group.generation(), 2);
}

#[test]
fn a_rank_that_dies_in_a_step_is_named_and_its_group_is_lost() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (mut group, mut steps) = formed(&fleet, &events, &mut ranks);
    drop(steps.pop());
    let survivor = std::thread::spawn(move || {
        let step: Step = steps[0].receive().unwrap();
        steps[0].send(&answer(&step, 2)).unwrap();
        steps
    });
    let error = run_step(&mut group, 7, vec![Batch::default(); 2], &[]).unwrap_err();
    assert_eq!((error.rank, error.number), (RankId(1), 7));
    assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(1), .. }));
    survivor.join().unwrap();
}

#[test]
fn a_rank_that_is_there_and_never_answers_a_step_is_lost_and_the_next_group_forms() {
    let (fleet, events) = fleet_of_steps(2, PATIENCE, Duration::from_millis(400));
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (mut group, mut steps) = formed(&fleet, &events, &mut ranks);
    // Rank 1 has taken the step, says that it lives, and begins an answer that it does not end.
    let hangs = std::thread::spawn(move || {
        let step: Step = steps[0].receive().unwrap();
        steps[0].send(&answer(&step, 2)).unwrap();
        steps[1].receive::<Step>().unwrap();
        steps[1].send_bytes(&[9, 0]).unwrap();
        steps
    });
    ranks[1].control.send(&FromRank::Alive).unwrap();
    let started = Instant::now();
    let error = run_step(&mut group, 1, vec![Batch::default(); 2], &[]).unwrap_err();
    assert_eq!((error.rank, error.number), (RankId(1), 1));
    assert!(error.reason.starts_with("no answer within 0.4 s (step-deadline-seconds)"), "{}", error.reason);
    assert!(started.elapsed() < PATIENCE / 2, "{:?}", started.elapsed());
    assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(1), .. }));
    drop((group, hangs.join().unwrap()));
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    assert_eq!(formed(&fleet, &events, &mut ranks).0.generation(), 2);
}

#[test]
fn a_rank_that_answers_wrongly_is_lost_with_the_reason() {
    type Wrong = (fn(&mut StepDone), &'static str);
    let wrong: [Wrong; 3] = [
        (|done| done.slot_pairs = SlotPairs::from(&[0; 5][..]), "pairs of 5 slots instead of 4"),
        (|done| done.slot_pairs = SlotPairs::from(&[7, 0, 0, 0][..]), "7 pairs in a slot of a step of 0 tokens"),
        (|done| done.number += 1, "it answered step 2 of generation 1 instead"),
    ];
    for (change, expected) in wrong {
        let (fleet, events) = fleet(1, PATIENCE);
        let mut ranks = vec![Rank::join(&fleet, 0)];
        let (mut group, mut steps) = formed(&fleet, &events, &mut ranks);
        let worker = std::thread::spawn(move || {
            let step: Step = steps[0].receive().unwrap();
            let mut done = answer(&step, 4);
            change(&mut done);
            steps[0].send(&done).unwrap();
            steps
        });
        let error = run_step(&mut group, 1, vec![Batch::default()], &[]).unwrap_err();
        assert!(error.reason.contains(expected), "{error}");
        assert!(matches!(next(&events), FleetEvent::Lost { generation: 1, rank: RankId(0), .. }));
        worker.join().unwrap();
    }
}

#[test]
fn steps_that_are_sent_ahead_are_answered_in_their_order() {
    let (fleet, events) = fleet(2, PATIENCE);
    let mut ranks = vec![Rank::join(&fleet, 0), Rank::join(&fleet, 1)];
    let (mut group, steps) = formed(&fleet, &events, &mut ranks);
    for number in 1..=3 {
        group.send(number, vec![Batch::default(); 2], &[]).unwrap();
    }
    let workers = steps.into_iter().enumerate().map(|(rank, mut steps)| {
        std::thread::spawn(move || {
            // The first rank is ahead of the second by as much as it can be.
            for _ in 0..3 - rank {
                let step: Step = steps.receive().unwrap();
                steps.send(&answer(&step, 2)).unwrap();
            }
            steps
        })
    });
    let mut steps: Vec<_> = workers.map(|worker| worker.join().unwrap()).collect();
    for number in 1..=2 {
        let done = group.receive().unwrap();
        assert_eq!(done.iter().map(|done| done.number).collect::<Vec<_>>(), [number; 2]);
    }
    drop(steps.pop());
    let error = group.receive().unwrap_err();
    assert_eq!((error.rank, error.number), (RankId(1), 3));
}
