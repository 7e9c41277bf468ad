//! Messages that are not what they should be: `SWIFTBALANCER_FUZZ_INPUTS` says how many, `SWIFTBALANCER_FUZZ_SEED` which.

use std::collections::hash_map::RandomState;
use std::fmt::Debug;
use std::hash::BuildHasher;

use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::map::{ExpertMap, MapShape};
use plan::moves::{SlotChange, Transaction};
use plan::wire::{MapDocument, ModelIdentity};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde::de::DeserializeOwned;

use super::*;
use crate::fabric::exchange::means::Means;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What a randomized test draws from; printed, so that the same can be drawn again.
pub(crate) fn seed() -> u64 {
    let seed = variable("SWIFTBALANCER_FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    println!("SWIFTBALANCER_FUZZ_SEED={seed}");
    seed
}

/// How many inputs a randomized test tries, unless it is told otherwise.
pub(crate) fn inputs(usually: u64) -> u64 {
    variable("SWIFTBALANCER_FUZZ_INPUTS").unwrap_or(usually)
}

/// Reads changed bytes of a message as one, many times. What they say is a message or none; it never panics, and holds no
/// more of anything than it has bytes.
fn fuzz<T: Serialize + DeserializeOwned + Debug>(message: &T, random: &mut StdRng) {
    let valid = postcard::to_allocvec(message).unwrap();
    assert!(postcard::from_bytes::<T>(&valid).is_ok(), "{message:?}");
    for _ in 0..inputs(2000) {
        let mut bytes = valid.clone();
        match random.random_range(0..4) {
            0 => bytes.truncate(random.random_range(0..=bytes.len())),
            1 => {
                let place = random.random_range(0..=bytes.len());
                // The longest number that there is, where a length may be.
                bytes.splice(place..place, [0xff; 9].into_iter().chain([1]));
            }
            _ => {
                for _ in 0..random.random_range(1..6) {
                    let place = random.random_range(0..bytes.len());
                    bytes[place] = random.random();
                }
            }
        }
        if let Ok(read) = postcard::from_bytes::<T>(&bytes) {
            let said = postcard::to_allocvec(&read).unwrap();
            assert!(said.len() <= bytes.len() * 2, "{} bytes read as {}", bytes.len(), said.len());
        }
    }
}

/// The same of every rank of a test.
pub(crate) fn device() -> RankDevice {
    RankDevice {
        kind: "cpu".to_owned(),
        name: "AVX2".to_owned(),
        unit: "cpu".to_owned(),
        page_layout: "lines".to_owned(),
        page_bytes: 4096,
        memory: 1 << 30,
    }
}

fn transaction() -> Transaction {
    let change =
        SlotChange { rank: RankId(1), slot: SlotIndex(2), from: ExpertId(3), to: ExpertId(4), source: RankId(0) };
    Transaction { layer: LayerId(1), changes: vec![change; 3], shares: Vec::new() }
}

#[test]
fn messages_that_are_changed_on_their_way_are_read_as_some_message_or_as_none() {
    let mut random = StdRng::seed_from_u64(seed());
    let model = ModelIdentity { name: "tiny".to_owned(), digest: "abc".to_owned(), layers: 2, experts: 8 };
    let map = ExpertMap::contiguous(MapShape::with_redundancy(2, 8, 2, 0).unwrap()).unwrap();
    let address = |rank| RankAddress {
        rank: RankId(rank),
        step: "host:8003".to_owned(),
        moves: "host:8004".to_owned(),
        node: "node".to_owned(),
        unit: "cpu".to_owned(),
    };
    for message in [
        ToRank::Form {
            generation: 3,
            nonce: 7,
            drawn: [7; 32],
            ranks: vec![address(0), address(1)],
            map: Box::new(MapDocument::new(model.clone(), &map)),
            epoch: 5,
            staging_pages: 16,
            kv_tokens: 1 << 40,
            move_bytes_per_second: Some(1 << 30),
            step_tokens: 512,
        },
        ToRank::Connect { generation: 3, fingerprints: vec![Some(u128::MAX), None] },
        ToRank::Stage { generation: 3, transaction: TransactionId(9), work: transaction(), deadline_ms: 1000 },
        ToRank::Refused { reason: "a reason".to_owned() },
    ] {
        fuzz(&message, &mut random);
    }
    let process = ProcessId(u128::MAX);
    let moved = |staged| FromRank::Moved(MoveReport { generation: 3, transaction: TransactionId(9), staged });
    for message in [
        FromRank::Register {
            process,
            rank: RankId(1),
            model,
            step_address: "host:8003".to_owned(),
            move_address: "host:8004".to_owned(),
            block_tokens: 16,
            node: "node".to_owned(),
            device: device().into(),
        },
        FromRank::Failed { process, rank: RankId(1), reason: "a reason".to_owned() },
        FromRank::Loading { read: 1 << 40, of: u64::MAX },
        FromRank::Loaded { generation: 3, kv_blocks: 2048, fingerprints: vec![u128::MAX; 8] },
        FromRank::Ready { generation: 3, exchange: Some(Means::Peer) },
        FromRank::Leaves { reason: "a reason".to_owned() },
        moved(Ok(1 << 30)),
        moved(Err(NotStaged { reason: MoveFailure::Corrupt, message: "a message".to_owned() })),
    ] {
        fuzz(&message, &mut random);
    }
    let sampling = Sampling { temperature: 0.5, top_p: 0.9, top_k: 5, seed: 1 << 60, logprob: true };
    let begins = SequenceWork {
        sequence: SequenceId(4),
        begins: Some(sampling),
        position: 0,
        tokens: Tokens::Given(vec![1, 2, 300]),
        blocks: vec![7, 8],
        sample: true,
        score: vec![Some(2), None, Some(9)],
        top_logprobs: 2,
    };
    let commit = Commit { transaction: TransactionId(9), epoch: 6, work: transaction() };
    let goes_on = SequenceWork { begins: None, position: 3, tokens: Tokens::Chosen, ..begins.clone() };
    let batch = Batch { ended: vec![SequenceId(3)], work: vec![begins, goes_on] };
    let extent = StepExtent::of_ranks([&batch, &Batch::default()]);
    assert_eq!(extent, StepExtent { tokens: 4, tokens_of_sequence: 3 });
    fuzz(&Step { generation: 3, number: 70, commits: vec![commit].into(), extent, batch }, &mut random);
    let score = TokenScore { token: 300, logprob: -0.5, top: vec![(300, -0.5), (2, -1.5)] };
    let output = SequenceOutput {
        sequence: SequenceId(4),
        token: Some(score.clone()),
        scores: vec![Some(score), None],
        no_numbers: false,
    };
    let timing = StepTiming { total: 900, commit: 10, exchange: 300, experts: 400 };
    let done = StepDone {
        generation: 3,
        number: 70,
        outputs: vec![output; 2],
        slot_pairs: SlotPairs::from(&[9; 16][..]),
        timing,
    };
    fuzz(&done, &mut random);
    fuzz(&PageRequest { generation: 3, layer: LayerId(1), expert: ExpertId(4), from: 7 }, &mut random);
    fuzz(&PageHead { chunks: vec![1, u128::MAX] }, &mut random);
}
