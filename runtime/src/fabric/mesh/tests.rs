use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::meet::try_call;
use super::*;
use crate::fabric::loopback_pair;

/// The meshes of `ranks` ranks in this process.
fn meshes(ranks: usize) -> Vec<Mesh> {
    let mut streams: Vec<Vec<Option<TcpStream>>> = (0..ranks).map(|_| (0..ranks).map(|_| None).collect()).collect();
    for (left, right) in (0..ranks).flat_map(|left| (left + 1..ranks).map(move |right| (left, right))) {
        let (one, other) = loopback_pair();
        (streams[left][right], streams[right][left]) = (Some(one), Some(other));
    }
    streams.into_iter().enumerate().map(|(rank, streams)| Mesh::new(rank.into(), streams).unwrap()).collect()
}

/// What rank `from` sends to rank `to` in one exchange; both know it from the seed.
fn frame(seed: u64, exchange: u64, from: usize, to: usize) -> Frame {
    let mut random = StdRng::seed_from_u64(seed ^ (exchange << 16) ^ ((from as u64) << 8) ^ to as u64);
    let mut length = || {
        let longest = [0, 1, 100, 20_000, 1 << 20][random.random_range(0..5)];
        random.random_range(0..=longest)
    };
    let (indices, values) = (length(), length());
    Frame {
        indices: (0..indices).map(|_| random.random()).collect(),
        values: (0..values).map(|_| random.random()).collect(),
    }
}

fn full(length: usize, value: f32) -> Frame {
    Frame { indices: vec![7; length], values: vec![value; length] }
}

fn empty(ranks: usize) -> Vec<Frame> {
    vec![Frame::default(); ranks]
}

#[test]
fn every_frame_arrives_whole_whatever_the_sizes_and_the_number_of_ranks() {
    let seed = RandomState::new().hash_one(0);
    println!("seed {seed}");
    for ranks in 1..=6 {
        std::thread::scope(|scope| {
            for mut mesh in meshes(ranks) {
                scope.spawn(move || {
                    let own = mesh.rank().index();
                    let mut incoming = empty(ranks);
                    for exchange in 0..6 {
                        let outgoing: Vec<_> = (0..ranks).map(|to| frame(seed, exchange, own, to)).collect();
                        mesh.all_to_all(&outgoing, &mut incoming).unwrap();
                        for from in (0..ranks).filter(|&from| from != own) {
                            assert!(incoming[from] == frame(seed, exchange, from, own), "from {from}, seed {seed}");
                        }
                        assert_eq!(incoming[own], Frame::default());
                    }
                });
            }
        });
    }
}

#[test]
fn large_frames_both_ways_do_not_deadlock() {
    std::thread::scope(|scope| {
        for mut mesh in meshes(2) {
            scope.spawn(move || {
                let own = mesh.rank().index();
                let mut incoming = empty(2);
                mesh.all_to_all(&vec![full(1 << 20, own as f32); 2], &mut incoming).unwrap();
                assert!(incoming[1 - own] == full(1 << 20, (1 - own) as f32));
            });
        }
    });
}

#[test]
fn a_rank_that_leaves_is_named_by_the_ranks_that_wait_for_it() {
    let mut meshes = meshes(3);
    drop(meshes.pop());
    // Whoever fails leaves too, so all fail before any of them is dropped.
    let failed: Vec<_> = std::thread::scope(|scope| {
        let exchange = |mesh: Mesh| {
            let mut mesh = mesh;
            let result = mesh.all_to_all(&vec![full(10, 1.0); 3], &mut empty(3));
            (mesh, result)
        };
        let threads: Vec<_> = meshes.into_iter().map(|mesh| scope.spawn(move || exchange(mesh))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for (_, result) in failed {
        let error = result.unwrap_err();
        assert!(matches!(error, FabricError::Lost { rank: RankId(2), .. }), "{error}");
    }
}

#[test]
fn a_rank_that_is_in_another_exchange_is_named() {
    let mut meshes = meshes(2);
    meshes[0].exchange = 5;
    std::thread::scope(|scope| {
        for mut mesh in meshes {
            scope.spawn(move || {
                let error = mesh.all_to_all(&empty(2), &mut empty(2)).unwrap_err();
                let other = RankId(1 - mesh.rank().0);
                assert!(matches!(&error, FabricError::Protocol { rank, .. } if *rank == other), "{error}");
                mesh
            });
        }
    });
}

#[test]
fn a_rank_that_waits_in_an_exchange_can_be_stopped() {
    let mut meshes = meshes(2);
    let mut waiting = meshes.remove(0);
    let dissolver = waiting.dissolver().unwrap();
    let waiter = std::thread::spawn(move || waiting.all_to_all(&empty(2), &mut empty(2)));
    dissolver.dissolve();
    assert!(matches!(waiter.join().unwrap(), Err(FabricError::Dissolved)));
}

#[test]
fn a_steady_exchange_keeps_its_buffers() {
    let mut meshes = meshes(2);
    let (mut right, mut left) = (meshes.pop().unwrap(), meshes.pop().unwrap());
    let other = std::thread::spawn(move || {
        let mut incoming = empty(2);
        for _ in 0..10 {
            right.all_to_all(&vec![full(1000, 1.0); 2], &mut incoming).unwrap();
        }
    });
    let (outgoing, mut incoming) = (vec![full(1000, 2.0); 2], empty(2));
    left.all_to_all(&outgoing, &mut incoming).unwrap();
    let before = (incoming[1].indices.as_ptr(), incoming[1].values.as_ptr());
    for _ in 1..10 {
        left.all_to_all(&outgoing, &mut incoming).unwrap();
    }
    assert_eq!(before, (incoming[1].indices.as_ptr(), incoming[1].values.as_ptr()));
    other.join().unwrap();
}

fn listening(ranks: usize) -> (Vec<TcpListener>, Vec<RankAddress>) {
    let listeners: Vec<_> = (0..ranks).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let addresses = listeners.iter().enumerate().map(|(rank, listener)| RankAddress {
        rank: rank.into(),
        step: listener.local_addr().unwrap().to_string(),
        moves: String::new(),
        node: String::new(),
    });
    let addresses = addresses.collect();
    (listeners, addresses)
}

#[test]
fn ranks_find_each_other_and_a_stale_rank_gets_no_further() {
    let (listeners, addresses) = listening(3);
    let group = GroupId { generation: 2, nonce: 5 };
    let go_on = Cancel::default();
    std::thread::scope(|scope| {
        // A rank of the generation before calls first, and a stray client sends nonsense.
        let stale = Members { group: GroupId { generation: 1, nonce: 5 }, rank: RankId(2), ranks: &addresses };
        let stray = TcpStream::connect(&addresses[0].step).unwrap();
        drop(stray);
        let turned_away = scope.spawn(move || try_call(stale, &stale.ranks[0]).is_err());
        let joined: Vec<_> = listeners
            .iter()
            .enumerate()
            .map(|(rank, listener)| {
                let members = Members { group, rank: rank.into(), ranks: &addresses };
                let go_on = &go_on;
                scope.spawn(move || Mesh::connect(members, listener, Duration::from_secs(20), go_on))
            })
            .collect();
        let mut meshes: Vec<Mesh> = joined.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
        assert!(turned_away.join().unwrap());
        for mesh in &mut meshes {
            assert_eq!(mesh.peers.iter().flatten().count(), 2);
        }
    });
}

#[test]
fn forming_a_group_that_never_completes_ends_by_deadline_or_cancellation() {
    let (listeners, addresses) = listening(2);
    let members = Members { group: GroupId { generation: 1, nonce: 1 }, rank: RankId(0), ranks: &addresses };
    let never = Cancel::default();
    let error = Mesh::connect(members, &listeners[0], Duration::from_millis(60), &never).unwrap_err();
    assert!(matches!(&error, MeshError::Incomplete { missing, .. } if missing == &[RankId(1)]), "{error}");
    let cancelled = Cancel::default();
    cancelled.cancel();
    let error = Mesh::connect(members, &listeners[0], Duration::from_mins(10), &cancelled).unwrap_err();
    assert!(matches!(error, MeshError::Cancelled), "{error}");
}
