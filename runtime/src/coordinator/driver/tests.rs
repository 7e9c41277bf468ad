use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};

use super::*;
use crate::coordinator::fake::{Fake, Remote};
use crate::coordinator::handle::{AdminCommand, AdminError, HandleError, UNREAD_BYTES};
use crate::coordinator::unread::Updates;
use crate::experts::rebalance::{Refusal, Settings};
use crate::protocol::Sampling;
use crate::scheduler::{Finish, LOSSES_IN_A_ROW, Length, NewSequence, RankCache, SubmitError};

const PATIENCE: Duration = Duration::from_secs(20);

fn start(fake: Fake) -> (DriverHandle, Remote) {
    let (handle, remote) = fake.start(&prometheus::Registry::new());
    remote.complete();
    (handle, remote)
}

fn asks(prompt: &[u32], max_tokens: u32) -> NewSequence {
    NewSequence {
        prompt: prompt.into(),
        length: Length::Asked(max_tokens),
        stop_tokens: Arc::default(),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, logprob: false },
        score_prompt: false,
        top_logprobs: 0,
    }
}

async fn one(handle: &DriverHandle, request: NewSequence) -> Updates {
    handle.submit(vec![request]).await.unwrap().remove(0)
}

/// Every token until the end, and how it ended.
async fn read(updates: &mut Updates) -> (Vec<u32>, Option<Finish>) {
    let (mut tokens, mut finish) = (Vec::new(), None);
    while let Some(update) = tokio::time::timeout(PATIENCE, updates.next()).await.unwrap() {
        let Update::Output { token, finish: end, .. } = update else { panic!("{update:?}") };
        tokens.extend(token.map(|token| token.token));
        finish = finish.or(end);
    }
    (tokens, finish)
}

fn sequences_in_the_next_step(remote: &Remote) -> usize {
    remote.begun.recv_timeout(PATIENCE).unwrap()
}

#[tokio::test]
async fn a_sequence_whose_group_is_lost_goes_on_with_the_tokens_it_gives_undisturbed() {
    let (handle, _remote) = start(Fake::default());
    let undisturbed = read(&mut one(&handle, asks(&[3, 4, 5], 40)).await).await;

    let (handle, remote) = start(Fake { gated: true, ..Fake::default() });
    let mut updates = one(&handle, asks(&[3, 4, 5], 40)).await;
    let permits = remote.permits.as_ref().unwrap();
    (0..10).for_each(|_| permits.send(()).unwrap());
    for _ in 0..5 {
        assert!(updates.next().await.is_some());
    }
    remote.lose.store(true, Ordering::SeqCst);
    let mut first = Vec::new();
    while let Some(Some(Update::Output { token, .. })) = updates.next().now_or_never() {
        first.extend(token.map(|token| token.token));
    }
    (0..60).for_each(|_| permits.send(()).unwrap());
    let (rest, finish) = read(&mut updates).await;
    let seen: Vec<u32> = first.into_iter().chain(rest).collect();
    assert!(!remote.lose.load(Ordering::SeqCst), "the rank was lost");
    assert_eq!(undisturbed.0[5..], seen);
    assert_eq!(finish, undisturbed.1);
    assert_eq!(handle.health(), Health::Serving);
}

/// Poison among others: a rank is lost in each step that computes it.
#[tokio::test]
async fn a_sequence_that_kills_its_ranks_ends_after_some_lost_groups_and_those_beside_it_go_on() {
    const POISON: u32 = 1000;
    let registry = prometheus::Registry::new();
    let (handle, remote) = Fake { poison: Some(POISON), gated: true, ..Fake::default() }.start(&registry);
    let requests = vec![asks(&[1], 9), asks(&[2, POISON], 9), asks(&[3; 20], 9), asks(&[4], 0)];
    let mut updates = handle.submit(requests.clone()).await.unwrap();
    remote.complete();
    let permits = remote.permits.as_ref().unwrap();
    (0..200).for_each(|_| permits.send(()).unwrap());
    let failed = updates[1].next().await;
    assert_eq!(failed, Some(Update::Failed(SequenceError::LostGroups)));
    let (healthy, _other) = start(Fake::default());
    for index in [0, 2, 3] {
        let undisturbed = read(&mut one(&healthy, requests[index].clone()).await).await;
        assert_eq!(read(&mut updates[index]).await, undisturbed, "sequence {index}");
    }
    assert_eq!(remote.generation(), u64::from(LOSSES_IN_A_ROW) + 1);
    assert_eq!(handle.health(), Health::Serving);
    let counted = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let line = "swiftbalancer_sequences_failed_total{reason=\"lost_groups\"} 1";
    assert!(counted.lines().any(|counted| counted == line), "{counted}");
}

#[tokio::test]
async fn a_sequence_without_numbers_fails_alone() {
    const POISON: u32 = 1000;
    let (handle, _remote) = start(Fake { no_numbers_after: Some(POISON), ..Fake::default() });
    let mut updates = handle.submit(vec![asks(&[1], 9), asks(&[POISON], 9)]).await.unwrap();
    assert_eq!(updates[1].next().await, Some(Update::Failed(SequenceError::NoNumbers)));
    assert_eq!(updates[1].next().await, None);
    assert_eq!(read(&mut updates[0]).await.1, Some(Finish::Length));
}

#[tokio::test]
async fn a_sequence_of_open_length_fills_the_caches_that_turn_out_to_be_there() {
    let cache = RankCache { blocks: 4, block_tokens: 16 };
    let (handle, remote) = Fake { cache, ..Fake::default() }.start(&prometheus::Registry::new());
    let open = NewSequence { length: Length::Open(1000), ..asks(&[1; 10], 0) };
    let mut updates = handle.submit(vec![open.clone(), asks(&[1; 10], 55)]).await.unwrap();
    assert_eq!(handle.capacity(), None);
    remote.complete();
    assert_eq!(updates[1].next().await, Some(Update::Failed(SequenceError::OutgrowsCache { capacity: 64 })));
    let (tokens, finish) = read(&mut updates[0]).await;
    assert_eq!((tokens.len(), finish), (54, Some(Finish::Length)));
    assert_eq!(handle.capacity(), Some(64));
    let short = NewSequence { length: Length::Open(7), ..open };
    assert_eq!(read(&mut one(&handle, short).await).await.0.len(), 7);
}

#[tokio::test]
async fn requests_wait_until_the_group_is_formed() {
    let (handle, remote) = Fake::default().start(&prometheus::Registry::new());
    let mut updates = one(&handle, asks(&[1], 3)).await;
    assert!(matches!(handle.health(), Health::NotFormed { .. }));
    assert!(matches!(updates.next().now_or_never(), None | Some(None)));
    remote.complete();
    assert_eq!(read(&mut updates).await.1, Some(Finish::Length));
}

#[tokio::test]
async fn a_rank_that_has_failed_for_good_ends_every_wait_until_one_that_can_serve_is_in_its_place() {
    let (handle, remote) = Fake::default().start(&prometheus::Registry::new());
    let mut waiting = one(&handle, asks(&[1], 3)).await;
    let reason = "rank 1 cannot serve: there is a hole in the file".to_owned();
    remote.fail(Some(&reason));
    let failed = SequenceError::Failing { reason: reason.clone() };
    assert_eq!(waiting.next().await, Some(Update::Failed(failed)));
    assert_eq!(handle.failure().await, reason);
    let refused = handle.submit(vec![asks(&[1], 3)]).await.unwrap_err();
    assert_eq!(refused, HandleError::Failing { reason: reason.clone() });
    assert_eq!(handle.ask(AdminCommand::Look).await.unwrap().state().failure, Some(reason));

    remote.fail(None);
    remote.complete();
    assert_eq!(read(&mut one(&handle, asks(&[1], 3)).await).await.1, Some(Finish::Length));
    assert_eq!(handle.health(), Health::Serving);
}

#[tokio::test]
async fn no_step_runs_while_there_is_nothing_to_do() {
    let (handle, remote) = start(Fake::default());
    read(&mut one(&handle, asks(&[1], 5)).await).await;
    let steps = remote.steps.load(Ordering::SeqCst);
    assert_eq!(steps, 5);
    // An answer to a question shows that the driver has been round its loop once more.
    let error = handle.submit(vec![asks(&[1], 1); 257]).await.unwrap_err();
    assert_eq!(error, HandleError::Submit(SubmitError::TooMany { count: 257, limit: 256 }));
    assert_eq!(remote.steps.load(Ordering::SeqCst), steps);
}

#[tokio::test]
async fn a_reader_that_goes_away_frees_its_place() {
    let fake = Fake {
        gated: true,
        limits: Limits { queued: 1, running_per_rank: 1, step_tokens: 8 },
        ranks: 1,
        ..Fake::default()
    };
    let (handle, remote) = start(fake);
    let permits = remote.permits.as_ref().unwrap();
    let running = one(&handle, asks(&[1], 1000)).await;
    assert_eq!(sequences_in_the_next_step(&remote), 1);
    let (waits, refused, ()) = tokio::join!(
        biased;
        handle.submit(vec![asks(&[2], 2)]),
        handle.submit(vec![asks(&[3], 2)]),
        async { permits.send(()).unwrap() },
    );
    assert_eq!(refused.unwrap_err(), HandleError::Submit(SubmitError::QueueFull { waiting: 1, limit: 1 }));
    drop(running);
    (0..10).for_each(|_| permits.send(()).unwrap());
    assert_eq!(read(&mut waits.unwrap()[0]).await.1, Some(Finish::Length));
}

#[tokio::test]
async fn a_reader_that_never_reads_is_cancelled_and_the_others_get_all_their_tokens() {
    let cache = RankCache { blocks: 1024, block_tokens: 16 };
    let (handle, _remote) = start(Fake { cache, ..Fake::default() });
    let mut slow = one(&handle, asks(&[1], 12_000)).await;
    let mut reader = one(&handle, asks(&[1], 1)).await;
    assert_eq!(read(&mut reader).await.1, Some(Finish::Length));
    // Nobody reads `slow` until its sequence is gone, which the queue's end tells.
    while !slow.is_closed() {
        read(&mut one(&handle, asks(&[1], 20)).await).await;
    }
    let (tokens, finish) = read(&mut slow).await;
    assert_eq!((tokens.len(), finish), (UNREAD_BYTES / 96, None));
}

#[tokio::test]
async fn a_stop_ends_every_sequence_with_the_reason() {
    let (handle, remote) = start(Fake { gated: true, ..Fake::default() });
    let mut updates = one(&handle, asks(&[1], 1000)).await;
    assert_eq!(sequences_in_the_next_step(&remote), 1);
    handle.stop();
    (0..5).for_each(|_| remote.permits.as_ref().unwrap().send(()).unwrap());
    let mut last = None;
    while let Some(update) = updates.next().await {
        last = Some(update);
    }
    assert_eq!(last, Some(Update::Failed(SequenceError::ShuttingDown)));
    assert_eq!(handle.submit(vec![asks(&[1], 1)]).await.unwrap_err(), HandleError::Stopped);
}

#[tokio::test]
async fn one_thousand_sequences_at_once_end_one_by_one_with_their_own_tokens() {
    let limits = Limits { queued: 1000, running_per_rank: 16, step_tokens: 32 };
    let (handle, _remote) = start(Fake { limits, ranks: 4, ..Fake::default() });
    let requests: Vec<NewSequence> = (0..1000).map(|seed| asks(&[seed % 50, 1], 1 + seed % 7)).collect();
    let all = handle.submit(requests.clone()).await.unwrap();
    for (request, mut updates) in requests.iter().zip(all) {
        let (tokens, finish) = read(&mut updates).await;
        assert_eq!((Length::Asked(tokens.len() as u32), finish), (request.length, Some(Finish::Length)));
        assert_eq!(tokens[0], 31 + 2);
    }
}

#[tokio::test]
async fn a_rebalance_that_is_asked_for_ends_though_no_request_runs() {
    let rebalance = Settings { wait_steps: 30, ..Fake::default().rebalance };
    let (handle, remote) = Fake { rebalance, ranks: 2, ..Fake::default() }.start(&prometheus::Registry::new());
    let refused = handle.ask(AdminCommand::Rebalance).await.unwrap().unwrap_err();
    assert_eq!(refused, AdminError::Refused(Refusal::NotReady));
    remote.complete();
    while handle.health() != Health::Serving {
        tokio::task::yield_now().await;
    }
    let refused = handle.ask(AdminCommand::Rebalance).await.unwrap().unwrap_err();
    assert_eq!(refused, AdminError::Refused(Refusal::NoLoad));
    // One rank computes everything: its two experts are worth being apart.
    read(&mut one(&handle, asks(&[1; 50], 10)).await).await;
    handle.ask(AdminCommand::Rebalance).await.unwrap().unwrap();
    let state = loop {
        let state = handle.ask(AdminCommand::Look).await.unwrap().state();
        if state.moves.rebalances + state.moves.skipped > 0 {
            break state;
        }
    };
    let steps = remote.steps.load(Ordering::SeqCst);
    assert!(state.first_window.is_some());
    assert_eq!((state.pending_transactions, state.ready), (0, true));
    // A step is run only for what is pending.
    read(&mut one(&handle, asks(&[1], 1)).await).await;
    assert_eq!(remote.steps.load(Ordering::SeqCst), steps + 1);
}

#[tokio::test]
async fn a_map_that_is_given_is_moved_to_though_no_request_runs_and_serves_under_a_new_epoch() {
    let (handle, _remote) = start(Fake::default());
    let map = async || handle.ask(AdminCommand::Look).await.unwrap().seen.map_document();
    let before = map().await;
    let mut wanted = before.clone();
    wanted.placement = vec![vec![vec![2, 1], vec![0, 3]]];
    handle.ask(|reply| AdminCommand::ApplyMap(Box::new(wanted.clone()), reply)).await.unwrap().unwrap();
    while map().await != wanted {}
    let state = handle.ask(AdminCommand::Look).await.unwrap().state();
    assert_eq!((state.epoch, state.moves.experts_moved), (1, 2));
    assert!(state.steps >= 30, "the wait is counted in steps");

    wanted.model.digest = "other".to_owned();
    let refused = handle.ask(|reply| AdminCommand::ApplyMap(Box::new(wanted), reply)).await.unwrap();
    assert!(matches!(refused, Err(AdminError::Map(_))), "{refused:?}");
}
