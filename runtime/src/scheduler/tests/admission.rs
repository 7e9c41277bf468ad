//! Who is let in, and who is computed first.

use super::*;

#[test]
fn a_prompt_longer_than_a_step_is_computed_in_chunks_and_gives_one_token() {
    let mut group = Group::new(1, SIZE, LIMITS);
    let prompt: Vec<u32> = (10..29).collect();
    let id = group.scheduler.submit(vec![asks(&prompt, 1)]).unwrap()[0];
    group.run_to_the_end(3);
    assert_eq!(group.given[&id], alone(&asks(&prompt, 1)).0);
    assert_eq!(group.finished[&id], Finish::Length);
}

#[test]
fn sequences_that_generate_get_their_token_before_prompts_get_the_rest() {
    let mut group = Group::new(1, SIZE, LIMITS);
    group.scheduler.submit(vec![asks(&[1], 8)]).unwrap();
    group.step();
    group.scheduler.submit(vec![asks(&[2; 20], 1)]).unwrap();
    let batches = group.scheduler.next_batches().unwrap();
    let lengths: Vec<usize> = batches[0].work.iter().map(|work| work.tokens.count()).collect();
    assert_eq!(lengths, [1, 7]);
}

#[test]
fn work_is_spread_over_the_ranks() {
    let mut group = Group::new(4, SIZE, LIMITS);
    group.scheduler.submit((0..8).map(|token| asks(&[token, 1], 1)).collect()).unwrap();
    let batches = group.scheduler.next_batches().unwrap();
    assert_eq!(batches.iter().map(|batch| batch.work.len()).collect::<Vec<_>>(), [2, 2, 2, 2]);
}

#[test]
fn the_latest_sequence_is_put_back_when_blocks_run_out() {
    let mut group = Group::new(1, RankCache { blocks: 6, block_tokens: 4 }, LIMITS);
    let requests = vec![asks(&[1; 7], 17), asks(&[2; 7], 17)];
    let ids = group.scheduler.submit(requests.clone()).unwrap();
    let mut seen_waiting = false;
    while group.step() {
        seen_waiting |= group.scheduler.waiting() == 1;
    }
    assert!(seen_waiting, "12 blocks were wanted of 6");
    for (id, request) in ids.iter().zip(&requests) {
        assert_eq!(group.given[id], alone(request).0, "no token is missing or given twice");
    }
}

#[test]
fn an_aborted_sequence_frees_its_blocks_at_once() {
    let mut group = Group::new(1, SIZE, LIMITS);
    let ids = group.scheduler.submit(vec![asks(&[1; 7], 9), asks(&[2; 7], 9)]).unwrap();
    group.step();
    assert!(group.scheduler.abort(ids[0]));
    assert!(group.scheduler.abort(ids[1]));
    assert_eq!(group.scheduler.blocks_used().collect::<Vec<_>>(), [0]);
    assert!(!group.scheduler.abort(ids[0]), "it has ended already");
}

#[test]
fn a_full_queue_refuses_the_whole_request_and_keeps_what_waits() {
    let mut scheduler = Scheduler::new(Limits { queued: 3, ..LIMITS });
    scheduler.submit(vec![asks(&[1], 1), asks(&[1], 1)]).unwrap();
    let error = scheduler.submit(vec![asks(&[1], 1), asks(&[1], 1)]).unwrap_err();
    assert_eq!(error, SubmitError::QueueFull { waiting: 2, limit: 3 });
    assert_eq!(scheduler.submit(vec![asks(&[1], 1); 4]).unwrap_err(), SubmitError::TooMany { count: 4, limit: 3 });
    assert_eq!(scheduler.waiting(), 2);
}

#[test]
fn a_sequence_that_could_outgrow_the_cache_is_refused_before_it_holds_anything() {
    let mut group = Group::new(1, SIZE, LIMITS);
    let error = group.scheduler.submit(vec![asks(&[1; 20], 13)]).unwrap_err();
    assert_eq!(error, SubmitError::OutgrowsCache { tokens: 33, capacity: 32 });
    assert!(group.scheduler.submit(vec![asks(&[1; 20], 12)]).is_ok());
}

#[test]
fn an_open_length_follows_the_caches() {
    let open = |prompt: &[u32], most| NewSequence { length: Length::Open(most), ..asks(prompt, 0) };
    let mut group = Group::new(1, SIZE, LIMITS);
    let error = group.scheduler.submit(vec![open(&[1; 32], 100)]).unwrap_err();
    assert_eq!(error, SubmitError::OutgrowsCache { tokens: 33, capacity: 32 });
    let ids = group.scheduler.submit(vec![open(&[1; 4], 100), open(&[2; 28], 100), open(&[3; 4], 5)]).unwrap();
    group.run_to_the_end(100);
    assert_eq!(ids.iter().map(|id| group.given[id].len()).collect::<Vec<_>>(), [28, 4, 5]);
    // A group with other caches: what has room for one token more goes on.
    let ids = group.scheduler.submit(vec![open(&[1; 4], 100), open(&[2; 28], 100)]).unwrap();
    group.step();
    group.scheduler.lose();
    group.size = RankCache { blocks: 4, block_tokens: 4 };
    assert_eq!(group.scheduler.form(&[group.size]), [ids[1]]);
    group.ranks[0] = FakeRank::default();
    group.run_to_the_end(100);
    assert_eq!(group.given[&ids[0]].len(), 12);
}
