//! Seeded inputs on every port of a group that serves and moves experts. `SWIFTBALANCER_FUZZ_INPUTS` says how many on each
//! port, `SWIFTBALANCER_FUZZ_SEED` which.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plan::ids::RankId;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use runtime::coordinator::ranks::Ranks as _;
use runtime::fabric::purpose::{GroupId, Hello, Purpose};

use crate::group::Deployment;
use crate::process::{Over, memory, ports_of};
use crate::{alone, moving, sequences, serve, undisturbed};

/// By how much memory may grow, bytes.
const GROWTH: usize = 64 << 20;

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// Something that no member would say, or would say otherwise.
fn input(random: &mut StdRng) -> Vec<u8> {
    let group = GroupId { generation: random.random_range(0..4), nonce: random.random() };
    let (from, to) = (RankId(random.random_range(0..3)), RankId(random.random_range(0..3)));
    let purpose = match random.random_range(0..4) {
        0 => Purpose::Control,
        1 => Purpose::Steps { group, rank: from },
        2 => Purpose::Mesh { group, from, to },
        _ => Purpose::Moves { group, from, to },
    };
    let mut bytes = Hello { purpose, challenge: random.random() }.to_bytes().to_vec();
    match random.random_range(0..6) {
        // Nonsense.
        0 => bytes = (0..random.random_range(0..2000)).map(|_| random.random()).collect(),
        // A greeting of which something is changed.
        1 => {
            for _ in 0..random.random_range(1..8) {
                let place = random.random_range(0..bytes.len());
                bytes[place] = random.random();
            }
        }
        // One that ends too soon.
        2 => bytes.truncate(random.random_range(0..bytes.len())),
        // One that goes on with a proof that is none, and with a length that is not true.
        3 => {
            bytes.extend(random.random::<[u8; 32]>());
            bytes.extend(random.random::<u32>().to_le_bytes());
        }
        // A message as it was before there were greetings, of any length.
        4 => bytes.splice(0..0, random.random::<u32>().to_le_bytes()).for_each(drop),
        // A greeting as it should be, and then nothing.
        _ => {}
    }
    bytes
}

#[test]
fn no_input_on_any_port_ends_anything_or_changes_a_token() {
    let _alone = alone();
    let seed = variable("SWIFTBALANCER_FUZZ_SEED").unwrap_or_else(|| RandomState::new().hash_one(0));
    let inputs = variable("SWIFTBALANCER_FUZZ_INPUTS").unwrap_or(400);
    println!("SWIFTBALANCER_FUZZ_SEED={seed} SWIFTBALANCER_FUZZ_INPUTS={inputs}");
    let (expected, setup) = (undisturbed(), moving());
    let mut deployment = Deployment::start(setup);
    deployment.run_in();
    assert!(serve(&mut deployment, sequences(&setup)) == expected);
    let (ports, before): (Vec<SocketAddr>, usize) = (ports_of(2).into_iter().collect(), memory());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let guard = Over(&over);
        let attackers: Vec<_> = ports
            .iter()
            .enumerate()
            .map(|(number, port)| scope.spawn(move || attack(*port, seed ^ number as u64, inputs)))
            .collect();
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !over.load(Ordering::Relaxed) {
                most = most.max(memory());
                std::thread::park_timeout(Duration::from_millis(20));
            }
            most
        });
        while attackers.iter().any(|attacker| !attacker.is_finished()) {
            assert!(serve(&mut deployment, sequences(&setup)) == expected, "seed {seed}");
        }
        for attacker in attackers {
            attacker.join().unwrap();
        }
        drop(guard);
        let most = watching.join().unwrap();
        assert!(most < before + GROWTH, "{} MiB more, seed {seed}", (most - before) >> 20);
    });
    assert_eq!(deployment.fleet.generation(), 1, "no rank was lost, seed {seed}");
    assert!(deployment.rebalancer.epoch() > 0, "experts moved meanwhile");
}

fn attack(port: SocketAddr, seed: u64, inputs: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mut held = std::collections::VecDeque::new();
    for _ in 0..inputs {
        let mut stream = TcpStream::connect(port).unwrap();
        let bytes = input(&mut random);
        // In two parts, as a network might; it may be turned away after the first.
        let half = random.random_range(0..=bytes.len());
        let _ = stream.write_all(&bytes[..half]);
        let _ = stream.write_all(&bytes[half..]);
        if random.random_bool(0.2) {
            stream.set_nonblocking(true).unwrap();
            let _ = stream.read(&mut [0; 256]);
        }
        held.push_back(stream);
        if held.len() > 100 {
            held.pop_front();
        }
    }
}
