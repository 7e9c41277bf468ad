//! What a step says to its rank, and what is made of what it gives.

use super::*;

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
    let blocks = RankCache { blocks: (SEQUENCES * (CONTEXT / 16 + 1)) as u32, block_tokens: 16 };
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
