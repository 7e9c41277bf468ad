//! What becomes of sequences whose group is lost.

use super::*;

#[test]
fn a_group_formed_with_smaller_caches_names_what_it_cannot_serve_any_more() {
    let mut group = Group::new(1, SIZE, LIMITS);
    let ids = group.scheduler.submit(vec![asks(&[1; 20], 12), asks(&[1; 5], 2)]).unwrap();
    group.step();
    assert_eq!(group.scheduler.form(&[RankCache { blocks: 4, block_tokens: 4 }]), [ids[0]]);
    group.ranks[0] = FakeRank::default();
    group.run_to_the_end(10);
    assert_eq!(group.finished.keys().collect::<Vec<_>>(), [&ids[1]]);
}

#[test]
fn every_token_of_a_prompt_but_the_first_is_scored_once_though_its_rank_is_lost() {
    let mut group = Group::new(2, SIZE, LIMITS);
    let prompt: Vec<u32> = (1..=19).collect();
    let request = NewSequence { score_prompt: true, ..asks(&prompt, 0) };
    let id = group.scheduler.submit(vec![request]).unwrap()[0];
    group.step();
    group.lose_a_rank();
    group.run_to_the_end(10);
    assert_eq!(group.scored[&id], prompt[1..]);
    assert!(group.given[&id].is_empty());
    assert_eq!(group.finished[&id], Finish::Length);
}

/// Loses the group in the middle of a step; gives who ends with it.
fn lose_in_a_step(group: &mut Group) -> Vec<SequenceId> {
    assert!(group.scheduler.next_batches().is_some());
    let ended = group.lose();
    group.form();
    ended
}

#[test]
fn a_loss_counts_for_those_in_the_step_and_is_forgotten_when_something_is_given() {
    let mut group = Group::new(1, SIZE, LIMITS);
    let ids = group.scheduler.submit(vec![asks(&[1], 8)]).unwrap();
    for _ in 0..5 {
        group.step();
        // Between steps nobody is to blame.
        group.lose_a_rank();
        assert_eq!(lose_in_a_step(&mut group), []);
        assert_eq!(lose_in_a_step(&mut group), []);
    }
    group.run_to_the_end(20);
    assert_eq!(group.given[&ids[0]], alone(&asks(&[1], 8)).0);
    let ids = group.scheduler.submit(vec![asks(&[1], 8)]).unwrap();
    assert_eq!(lose_in_a_step(&mut group), []);
    assert_eq!(lose_in_a_step(&mut group), []);
    assert_eq!(lose_in_a_step(&mut group), ids);
    assert!(group.scheduler.is_idle());
}

#[test]
fn a_sequence_that_loses_its_group_every_few_tokens_ends_too() {
    let mut group = Group::new(1, RankCache { blocks: 32, block_tokens: 4 }, Limits { step_tokens: 64, ..LIMITS });
    let endless = NewSequence { stop_tokens: Arc::default(), ..asks(&[1], 100) };
    let ids = group.scheduler.submit(vec![endless]).unwrap();
    for _ in 1..LOSSES_IN_ALL {
        group.step();
        assert_eq!(lose_in_a_step(&mut group), []);
    }
    group.step();
    assert_eq!(lose_in_a_step(&mut group), ids);
}

#[test]
fn those_who_were_in_two_lost_steps_are_computed_alone_first_until_they_give_something() {
    let mut group = Group::new(2, SIZE, LIMITS);
    let requests = vec![asks(&[1; 20], 4), asks(&[2; 3], 4), asks(&[3; 3], 4)];
    let ids = group.scheduler.submit(requests.clone()).unwrap();
    assert_eq!(lose_in_a_step(&mut group), []);
    assert_eq!(lose_in_a_step(&mut group), []);
    let late = group.scheduler.submit(vec![asks(&[4; 3], 4)]).unwrap()[0];
    let mut order = Vec::new();
    while !group.started.contains(&late) {
        let before: BTreeMap<_, _> = group.given.iter().map(|(&id, given)| (id, given.len())).collect();
        group.step();
        let gave = group.given.iter().filter(|(id, given)| given.len() > before.get(id).copied().unwrap_or(0));
        order.push(gave.map(|(&id, _)| id).collect::<Vec<_>>());
    }
    // The first takes three steps for its prompt; then everybody is computed again.
    assert_eq!(order[..5], [vec![], vec![], vec![ids[0]], vec![ids[1]], vec![ids[2]]]);
    assert!(order[5].len() > 1, "{order:?}");
    group.run_to_the_end(20);
    for (id, request) in ids.iter().zip(&requests) {
        assert_eq!(group.given[id], alone(request).0);
    }
}
