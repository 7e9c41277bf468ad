use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::protocol::{Sampling, SequenceStep, Sequences, TokenScore, Tokens};

const STOP: u32 = 7;

fn sampling() -> Sampling {
    Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, logprob: false }
}

fn asks(prompt: &[u32], max_tokens: u32) -> NewSequence {
    NewSequence {
        prompt: prompt.into(),
        length: Length::Asked(max_tokens),
        stop_tokens: Arc::from([STOP]),
        sampling: sampling(),
        score_prompt: false,
        top_logprobs: 0,
    }
}

/// The token that follows `token` at `position`, as a stand-in for a model.
fn follows(token: u32, position: u32) -> u32 {
    token.wrapping_mul(31).wrapping_add(position * 17) % 97
}

/// Computes a batch like a rank with a KV cache: remembers what is written where, and fails if a sequence reads a
/// position that it did not write.
#[derive(Default)]
struct FakeRank {
    known: Sequences,
    written: BTreeMap<(u32, u32), (SequenceId, u32)>,
}

impl FakeRank {
    fn run(&mut self, batch: Batch, block_tokens: u32) -> Vec<SequenceOutput> {
        let steps = self.known.next(batch).unwrap();
        let outputs = self.compute(&steps, block_tokens);
        self.known.computed(steps, &outputs);
        outputs
    }

    fn compute(&mut self, steps: &[SequenceStep], block_tokens: u32) -> Vec<SequenceOutput> {
        let held: Vec<u32> = steps.iter().flat_map(|step| step.blocks.clone()).collect();
        assert_eq!(held.len(), held.iter().collect::<BTreeSet<_>>().len(), "a block is used by one sequence: {held:?}");
        steps.iter().map(|step| self.sequence(step, block_tokens)).collect()
    }

    fn sequence(&mut self, step: &SequenceStep, block_tokens: u32) -> SequenceOutput {
        let end = step.position + step.tokens.len() as u32;
        assert_eq!(step.blocks.len() as u32, end.div_ceil(block_tokens));
        let place = |position: u32| (step.blocks[(position / block_tokens) as usize], position % block_tokens);
        for (position, &token) in (step.position..).zip(&step.tokens) {
            self.written.insert(place(position), (step.sequence, token));
        }
        for position in 0..end {
            let found = self.written.get(&place(position)).map(|&(sequence, _)| sequence);
            assert_eq!(found, Some(step.sequence), "position {position} was overwritten or never computed");
        }
        let score = |token: u32| TokenScore { token, logprob: -1.0, top: Vec::new() };
        let last = *step.tokens.last().expect("a step has tokens");
        SequenceOutput {
            sequence: step.sequence,
            token: step.sample.map(|_| score(follows(last, end))),
            scores: step.score.iter().map(|wanted| wanted.map(score)).collect(),
            no_numbers: false,
        }
    }
}

/// What a sequence must give, computed alone.
fn alone(request: &NewSequence) -> (Vec<u32>, Finish) {
    let Length::Asked(max_tokens) = request.length else { panic!("its length is not known") };
    let mut tokens = request.prompt.to_vec();
    for _ in 0..max_tokens {
        tokens.push(follows(*tokens.last().expect("not empty"), tokens.len() as u32));
        if tokens.last() == Some(&STOP) {
            return (tokens[request.prompt.len()..].to_vec(), Finish::Stop);
        }
    }
    (tokens[request.prompt.len()..].to_vec(), Finish::Length)
}

struct Group {
    scheduler: Scheduler,
    ranks: Vec<FakeRank>,
    size: CacheSize,
    limits: Limits,
    /// Steps that may be under way at a time.
    depth: usize,
    /// What ranks gave and the scheduler has not heard yet, the oldest first.
    under_way: VecDeque<Vec<Vec<SequenceOutput>>>,
    given: BTreeMap<SequenceId, Vec<u32>>,
    scored: BTreeMap<SequenceId, Vec<u32>>,
    finished: BTreeMap<SequenceId, Finish>,
    started: Vec<SequenceId>,
}

impl Group {
    fn new(ranks: usize, size: CacheSize, limits: Limits) -> Self {
        let mut scheduler = Scheduler::new(limits);
        assert_eq!(scheduler.form(&vec![size; ranks]), []);
        let ranks = (0..ranks).map(|_| FakeRank::default()).collect();
        Self {
            scheduler,
            ranks,
            size,
            limits,
            depth: 1,
            under_way: VecDeque::new(),
            given: BTreeMap::new(),
            scored: BTreeMap::new(),
            finished: BTreeMap::new(),
            started: Vec::new(),
        }
    }

    /// Sends a step, if one may be and there is work, and hears of the oldest one when nothing more can be sent.
    fn step(&mut self) -> bool {
        let batches = self.scheduler.next_batches();
        let is_sent = batches.is_some();
        if let Some(batches) = batches {
            self.send(batches);
        }
        if !is_sent || self.under_way.len() == self.depth {
            let Some(outputs) = self.under_way.pop_front() else { return false };
            self.take(outputs);
        }
        true
    }

    fn send(&mut self, batches: Vec<Batch>) {
        for batch in &batches {
            assert!(batch.tokens() <= self.limits.step_tokens, "{batch:?}");
        }
        let sequences = batches.iter().flat_map(|batch| &batch.work).map(|work| work.sequence);
        let new: BTreeSet<SequenceId> = sequences.filter(|id| !self.started.contains(id)).collect();
        self.started.extend(new);
        let block_tokens = self.size.block_tokens;
        let outputs = self.ranks.iter_mut().zip(batches).map(|(rank, batch)| rank.run(batch, block_tokens)).collect();
        self.under_way.push_back(outputs);
    }

    fn take(&mut self, outputs: Vec<Vec<SequenceOutput>>) {
        for output in self.scheduler.take(outputs) {
            let id = output.sequence;
            assert!(!self.finished.contains_key(&id), "{id:?} gave something after its end");
            self.given.entry(id).or_default().extend(output.token.iter().map(|token| token.token));
            self.scored.entry(id).or_default().extend(output.prompt_scores.iter().map(|score| score.token));
            self.finished.extend(output.finish.map(|finish| (id, finish)));
        }
    }

    fn lose_a_rank(&mut self) {
        assert_eq!(self.lose(), []);
        assert!(self.scheduler.next_batches().is_none());
        self.form();
    }

    /// Whatever is under way is lost; gives who ends with it.
    fn lose(&mut self) -> Vec<SequenceId> {
        self.under_way.clear();
        self.scheduler.lose()
    }

    fn form(&mut self) {
        self.scheduler.form(&vec![self.size; self.ranks.len()]);
        self.ranks.iter_mut().for_each(|rank| *rank = FakeRank::default());
    }

    fn run_to_the_end(&mut self, steps_at_most: usize) {
        for _ in 0..=steps_at_most {
            if !self.step() {
                assert!(self.scheduler.is_idle(), "sequences are left without work");
                return;
            }
        }
        panic!("not done after {steps_at_most} steps");
    }
}

const LIMITS: Limits = Limits { queued: 64, running_per_rank: 4, step_tokens: 8 };
const SIZE: CacheSize = CacheSize { blocks: 8, block_tokens: 4 };

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
    let mut group = Group::new(1, CacheSize { blocks: 6, block_tokens: 4 }, LIMITS);
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
fn a_group_formed_with_smaller_caches_names_what_it_cannot_serve_any_more() {
    let mut group = Group::new(1, SIZE, LIMITS);
    let ids = group.scheduler.submit(vec![asks(&[1; 20], 12), asks(&[1; 5], 2)]).unwrap();
    group.step();
    assert_eq!(group.scheduler.form(&[CacheSize { blocks: 4, block_tokens: 4 }]), [ids[0]]);
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
    let mut group = Group::new(1, CacheSize { blocks: 32, block_tokens: 4 }, Limits { step_tokens: 64, ..LIMITS });
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

#[test]
fn a_sequence_without_numbers_ends_and_gives_nothing() {
    let mut scheduler = Scheduler::new(LIMITS);
    scheduler.form(&[SIZE]);
    for (no_numbers, logprob) in [(true, 0.0), (false, f32::NAN), (false, f32::NEG_INFINITY)] {
        let sequence = scheduler.submit(vec![asks(&[1], 8)]).unwrap()[0];
        scheduler.next_batches().unwrap();
        let token = Some(TokenScore { token: 3, logprob, top: Vec::new() });
        let given = scheduler.take(vec![vec![SequenceOutput { sequence, token, scores: Vec::new(), no_numbers }]]);
        let nothing = Output { sequence, prompt_scores: Vec::new(), token: None, finish: None, no_numbers: true };
        assert_eq!(given, [nothing]);
        assert!(scheduler.is_idle());
        assert_eq!(scheduler.blocks_used().collect::<Vec<_>>(), [0]);
    }
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
    group.size = CacheSize { blocks: 4, block_tokens: 4 };
    assert_eq!(group.scheduler.form(&[group.size]), [ids[1]]);
    group.ranks[0] = FakeRank::default();
    group.run_to_the_end(100);
    assert_eq!(group.given[&ids[0]].len(), 12);
}

#[test]
fn a_step_says_only_what_its_rank_does_not_know() {
    let mut group = Group::new(1, SIZE, LIMITS);
    let ids = group.scheduler.submit(vec![asks(&[1; 7], 3)]).unwrap();
    let first = group.scheduler.next_batches().unwrap().remove(0);
    let begins = SequenceWork {
        sequence: ids[0],
        begins: Some(sampling()),
        position: 0,
        tokens: Tokens::Given(vec![1; 7]),
        blocks: vec![0, 1],
        sample: true,
        score: Vec::new(),
        top_logprobs: 0,
    };
    assert_eq!((first.ended.len(), &first.work[..]), (0, &[begins.clone()][..]));
    group.send(vec![first]);
    let goes_on = |position, blocks: &[u32]| SequenceWork {
        begins: None,
        position,
        tokens: Tokens::Chosen,
        blocks: blocks.to_vec(),
        ..begins.clone()
    };
    // Before anybody knows what the first step gives.
    let second = group.scheduler.next_batches().unwrap().remove(0);
    assert_eq!(second.work, [goes_on(7, &[])]);
    let third = group.scheduler.next_batches().unwrap().remove(0);
    assert_eq!(third.work, [goes_on(8, &[2])]);
    assert_eq!(group.scheduler.next_batches(), None, "its last token may be under way");
    group.send(vec![second]);
    group.send(vec![third]);
    while group.step() {}
    assert_eq!(group.given[&ids[0]], alone(&asks(&[1; 7], 3)).0);
    group.scheduler.submit(vec![asks(&[2], 1)]).unwrap();
    assert_eq!(group.scheduler.next_batches().unwrap()[0].ended, ids);
}

#[test]
fn what_is_computed_beyond_a_stop_token_is_given_to_nobody() {
    let mut group = Group { depth: 3, ..Group::new(1, SIZE, LIMITS) };
    // The second token is the one that ends it, and two steps more are under way then.
    let prompt = (0..97).find(|&token| alone(&asks(&[token], 9)).0.len() == 2).unwrap();
    let ids = group.scheduler.submit(vec![asks(&[prompt], 9)]).unwrap();
    let mut steps = 0;
    while group.step() {
        steps += 1;
    }
    assert_eq!((group.finished[&ids[0]], &group.given[&ids[0]]), (Finish::Stop, &alone(&asks(&[prompt], 9)).0));
    assert!(steps > 2 && group.scheduler.is_idle());
    assert_eq!(group.scheduler.blocks_used().collect::<Vec<_>>(), [0]);
}

/// Bytes of a step of so many sequences of so many tokens each, and of the same with all that its rank knows.
#[test]
fn a_step_of_many_long_sequences_is_small() {
    const SEQUENCES: usize = 256;
    const CONTEXT: usize = 8192;
    let blocks = CacheSize { blocks: (SEQUENCES * (CONTEXT / 16 + 1)) as u32, block_tokens: 16 };
    let limits = Limits { queued: SEQUENCES, running_per_rank: SEQUENCES, step_tokens: SEQUENCES * CONTEXT };
    let mut scheduler = Scheduler::new(limits);
    scheduler.form(&[blocks]);
    scheduler.submit(vec![asks(&vec![1; CONTEXT], 9); SEQUENCES]).unwrap();
    let mut known = Sequences::default();
    let mut bytes = Vec::new();
    for _ in 0..2 {
        let batch = scheduler.next_batches().unwrap().remove(0);
        let steps = postcard::to_allocvec(&batch).unwrap();
        let whole = known.next(batch).unwrap();
        let told = whole.iter().map(|step| postcard::to_allocvec(&(&step.blocks, step.sample, &step.tokens)).unwrap());
        bytes.push((steps.len(), told.map(|told| told.len()).sum::<usize>()));
        let token = Some(TokenScore { token: 5, logprob: 0.0, top: Vec::new() });
        let output = |step: &SequenceStep| SequenceOutput {
            sequence: step.sequence,
            token: token.clone(),
            scores: Vec::new(),
            no_numbers: false,
        };
        let outputs: Vec<SequenceOutput> = whole.iter().map(output).collect();
        known.computed(whole, &outputs);
        scheduler.take(vec![outputs]);
    }
    let (now, whole) = bytes[1];
    assert!(now * 20 <= whole, "{now} bytes of {whole}");
    assert!(now <= SEQUENCES * 16, "{now}");
}

#[derive(Clone, Debug)]
enum Action {
    Submit { prompt: usize, max_tokens: u32, score: bool },
    Steps(usize),
    Abort(usize),
    LoseRank,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        5 => (1usize..20, 0u32..13, any::<bool>())
            .prop_map(|(prompt, max_tokens, score)| Action::Submit { prompt, max_tokens, score }),
        4 => (1usize..6).prop_map(Action::Steps),
        1 => (0usize..40).prop_map(Action::Abort),
        1 => Just(Action::LoseRank),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn every_sequence_gives_what_it_gives_alone_and_ends_and_leaves_no_block_behind(
        actions in proptest::collection::vec(action(), 1..60),
        ranks in 1usize..4,
        blocks in 8u32..14,
        depth in 1usize..4,
    ) {
        let size = CacheSize { blocks, block_tokens: 4 };
        let mut group = Group { depth, ..Group::new(ranks, size, LIMITS) };
        let mut requests = BTreeMap::new();
        let mut aborted = BTreeSet::new();
        for action in actions {
            match action {
                Action::Submit { prompt, max_tokens, score } => {
                    let seed = requests.len() as u32;
                    let prompt: Vec<u32> = (0..prompt as u32).map(|index| (seed * 13 + index * 5) % 97).collect();
                    let request = NewSequence { score_prompt: score, ..asks(&prompt, max_tokens) };
                    if let Ok(ids) = group.scheduler.submit(vec![request.clone()]) {
                        requests.insert(ids[0], request);
                    }
                }
                Action::Steps(count) => (0..count).for_each(|_| { group.step(); }),
                Action::Abort(index) => {
                    if let Some((&id, _)) = requests.iter().nth(index)
                        && group.scheduler.abort(id)
                    {
                        aborted.insert(id);
                    }
                }
                Action::LoseRank => {
                    // Who is in three lost steps in a row is given up.
                    aborted.extend(group.lose());
                    group.form();
                }
            }
        }
        group.run_to_the_end(5_000);
        for (id, request) in requests.iter().filter(|(id, _)| !aborted.contains(id)) {
            let (tokens, finish) = alone(request);
            prop_assert_eq!(&group.given[id], &tokens);
            prop_assert_eq!(group.finished.get(id), Some(&finish));
            let scored = if request.score_prompt { &request.prompt[1..] } else { &[] };
            prop_assert_eq!(&group.scored[id], scored);
        }
        prop_assert_eq!(group.scheduler.blocks_used().sum::<usize>(), 0);
        prop_assert!(group.started.is_sorted(), "the first step of each comes in the order of submission");
    }
}
