use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use std::net::TcpListener;

use super::meet::call_once;
use super::*;
use crate::fabric::loopback_pair;
use crate::threads::VitalThreads;

/// More than any frame of these tests.
const LARGEST: Largest = Largest { indices: 1 << 21, values: 1 << 21 };

/// The meshes of `ranks` ranks in this process.
fn meshes(ranks: usize) -> Vec<Mesh> {
    let mut streams: Vec<Vec<Option<TcpStream>>> = (0..ranks).map(|_| (0..ranks).map(|_| None).collect()).collect();
    for (left, right) in (0..ranks).flat_map(|left| (left + 1..ranks).map(move |right| (left, right))) {
        let (one, other) = loopback_pair();
        (streams[left][right], streams[right][left]) = (Some(one), Some(other));
    }
    streams.into_iter().enumerate().map(|(rank, streams)| Mesh::new(rank.into(), streams, LARGEST).unwrap()).collect()
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

fn listening(ranks: usize) -> (Vec<StepPort>, Vec<RankAddress>) {
    let listen = |_| StepPort::start(TcpListener::bind("127.0.0.1:0").unwrap(), &VitalThreads::new(drop)).unwrap();
    let ports: Vec<_> = (0..ranks).map(listen).collect();
    let addresses = ports.iter().enumerate().map(|(rank, port)| RankAddress {
        rank: rank.into(),
        step: port.address().to_string(),
        moves: String::new(),
        node: String::new(),
        unit: String::new(),
    });
    let addresses = addresses.collect();
    (ports, addresses)
}

#[test]
fn ranks_find_each_other_and_strangers_get_no_further() {
    let (ports, addresses) = listening(3);
    let secret = Secret::draw().unwrap();
    let group = GroupId { generation: 2, nonce: 5 };
    let setup =
        |rank: usize| MeshSetup { group, secret: &secret, rank: rank.into(), ranks: &addresses, largest: LARGEST };
    let go_on = Cancel::default();
    std::thread::scope(|scope| {
        // A client that sends nothing, a rank of the generation before, and one that knows the group but not its secret.
        let stray = TcpStream::connect(&addresses[0].step).unwrap();
        let stale = MeshSetup { group: GroupId { generation: 1, nonce: 5 }, ..setup(2) };
        assert!(call_once(stale, &addresses[0]).is_err());
        let joining: Vec<_> = ports
            .iter()
            .enumerate()
            .map(|(rank, port)| {
                let (setup, go_on) = (setup(rank), &go_on);
                scope.spawn(move || Mesh::connect(setup, port, Duration::from_secs(20), go_on))
            })
            .collect();
        let other = Secret::draw().unwrap();
        let _ = call_once(MeshSetup { secret: &other, ..setup(2) }, &addresses[0]).unwrap_err();
        let meshes: Vec<Mesh> = joining.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
        for mesh in &meshes {
            assert_eq!(mesh.peers.iter().flatten().count(), 2);
        }
        // Nobody is let in once the group stands.
        let error = call_once(setup(2), &addresses[0]).unwrap_err();
        assert!(matches!(error, ConnectionError::NotExpected { .. }), "{error}");
        drop(stray);
    });
}

#[test]
fn forming_a_group_that_never_completes_ends_by_deadline_or_cancellation() {
    let (ports, addresses) = listening(2);
    let (group, secret) = (GroupId { generation: 1, nonce: 1 }, Secret::draw().unwrap());
    let setup = MeshSetup { group, secret: &secret, rank: RankId(0), ranks: &addresses, largest: LARGEST };
    let never = Cancel::default();
    let error = Mesh::connect(setup, &ports[0], Duration::from_millis(60), &never).unwrap_err();
    assert!(matches!(&error, MeshError::Incomplete { missing, .. } if missing == &[RankId(1)]), "{error}");
    let cancelled = Cancel::default();
    cancelled.cancel();
    let error = Mesh::connect(setup, &ports[0], Duration::from_mins(10), &cancelled).unwrap_err();
    assert!(matches!(error, MeshError::Cancelled), "{error}");
}

/// A mesh of two, and the other's end of the stream.
fn mesh_and_stream() -> (Mesh, TcpStream) {
    let (one, other) = loopback_pair();
    (Mesh::new(RankId(0), vec![None, Some(one)], LARGEST).unwrap(), other)
}

fn head(exchange: u64, indices: u32, values: u32) -> Vec<u8> {
    [&exchange.to_le_bytes()[..], &indices.to_le_bytes(), &values.to_le_bytes()].concat()
}

#[test]
fn a_frame_larger_than_any_step_is_a_broken_peer_and_costs_no_memory() {
    for (indices, values) in [(u32::MAX, 0), (0, u32::MAX), (LARGEST.indices as u32 + 1, 0)] {
        let (mut mesh, mut stream) = mesh_and_stream();
        std::io::Write::write_all(&mut stream, &head(1, indices, values)).unwrap();
        let mut incoming = empty(2);
        let error = mesh.all_to_all(&empty(2), &mut incoming).unwrap_err();
        assert!(matches!(&error, FabricError::Protocol { reason, .. } if reason.contains("at most")), "{error}");
        assert_eq!((incoming[1].indices.capacity(), incoming[1].values.capacity()), (0, 0));
    }
}

#[test]
fn a_frame_that_is_only_announced_costs_no_memory() {
    let (mut mesh, mut stream) = mesh_and_stream();
    std::io::Write::write_all(&mut stream, &head(1, 0, LARGEST.values as u32)).unwrap();
    std::io::Write::write_all(&mut stream, &[0; 4096]).unwrap();
    drop(stream);
    let mut incoming = empty(2);
    assert!(mesh.all_to_all(&empty(2), &mut incoming).is_err());
    assert!(incoming[1].values.capacity() <= 32 << 10, "{}", incoming[1].values.capacity());
}

#[test]
fn no_bytes_of_another_rank_end_this_one_or_cost_more_memory_than_they_are() {
    let seed = crate::protocol::tests::seed();
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..crate::protocol::tests::inputs(300) {
        let (mut mesh, mut stream) = mesh_and_stream();
        let (indices, values) = (random.random_range(0..100_u32), random.random_range(0..1000_u32));
        let mut bytes = head(1, indices, values);
        bytes.resize(bytes.len() + 4 * (indices + values) as usize, 7);
        for _ in 0..random.random_range(0..6) {
            // The head more often than the rest.
            let end = if random.random_bool(0.7) { 16 } else { bytes.len() };
            let place = random.random_range(0..end);
            bytes[place] = random.random();
        }
        bytes.truncate(random.random_range(0..=bytes.len()));
        std::io::Write::write_all(&mut stream, &bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut incoming = empty(2);
        // An exchange or an error; both are fine.
        let _ = mesh.all_to_all(&empty(2), &mut incoming);
        let held = incoming[1].indices.capacity() * 4 + incoming[1].values.capacity() * 4;
        assert!(held <= (128 << 10) + 4 * bytes.len(), "{held} bytes for {}, seed {seed}", bytes.len());
    }
}
