//! Who has not the secret, or not that of the group.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plan::ids::RankId;
use runtime::fabric::framing::ConnectionError;
use runtime::fabric::handshake::call;
use runtime::fabric::purpose::{GroupId, Hello, Purpose};
use runtime::fabric::secret::Secret;
use runtime::protocol::{FromRank, ProcessId};

use crate::group::{Deployment, Sequence, advance, secret};
use crate::process::{Over, PATIENCE, has_logged, ports_of, raise_the_limit_of_descriptors, threads};
use crate::{alone, moving, sequences, serve, two_ranks, undisturbed};

#[test]
fn strangers_that_wait_for_a_rank_to_restart_never_are_the_rank() {
    let _alone = alone();
    let expected = undisturbed();
    let setup = two_ranks();
    let mut deployment = Deployment::start(setup);
    let (address, over) = (deployment.fleet.address().to_string(), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let _over = Over(&over);
        for rank in 0..2 {
            let (address, over) = (&address, &over);
            scope.spawn(move || {
                let other = Secret::draw().unwrap();
                while !over.load(Ordering::Relaxed) {
                    let error = call(address, "it", (Purpose::Control, &other), PATIENCE).unwrap_err();
                    let is_known = matches!(error, ConnectionError::SecretDiffers { .. });
                    assert!(is_known || !over.load(Ordering::Relaxed), "rank {rank}: {error}");
                }
            });
        }
        let mut sequences = sequences(&setup);
        for step in 0..crate::STEPS {
            if step == crate::STEPS / 2 {
                deployment.restart(1);
            }
            if !advance(&mut deployment, &mut sequences) {
                deployment.wait_for_group();
                sequences.iter_mut().for_each(Sequence::forget);
            }
        }
        while sequences[0].output().len() < crate::STEPS {
            if !advance(&mut deployment, &mut sequences) {
                deployment.wait_for_group();
                sequences.iter_mut().for_each(Sequence::forget);
            }
        }
        let tokens: Vec<_> = sequences.iter().map(|sequence| sequence.output().to_vec()).collect();
        assert_eq!(tokens, expected);
    });
    assert_eq!((deployment.fleet.generation(), &deployment.refusals), (2, &Vec::new()));
    assert!(has_logged(&["a caller was turned away", "the secret differs: both must read the same --secret-file"]));
}

#[test]
fn a_failure_that_a_stranger_tells_is_nobody_s() {
    let _alone = alone();
    let setup = two_ranks();
    let mut deployment = Deployment::start(setup);
    let reason = "words of a stranger".to_owned();
    let failed = FromRank::Failed { process: ProcessId(1), rank: RankId(0), reason };
    let message = postcard::to_allocvec(&failed).unwrap();
    let hello = Hello { purpose: Purpose::Control, challenge: [7; 32] }.to_bytes();
    // At once, after a greeting, and after a proof that is none.
    for before in [&[][..], &hello, &[&hello[..], &[1; 32]].concat()] {
        let mut stream = TcpStream::connect(deployment.fleet.address()).unwrap();
        let _ = stream.write_all(before);
        let _ = stream.write_all(&(message.len() as u32).to_le_bytes());
        let _ = stream.write_all(&message);
    }
    // A failure ends the test, see `Deployment`.
    serve(&mut deployment, sequences(&setup));
    assert_eq!(deployment.fleet.generation(), 1);
    assert!(!has_logged(&["words of a stranger"]));
}

#[test]
fn no_page_is_given_to_who_knows_the_deployment_s_secret_but_not_the_group_s() {
    let _alone = alone();
    let deployment = Deployment::start(two_ranks());
    let ranks = deployment.fleet.ranks();
    for (number, rank) in ranks.iter().enumerate() {
        let (from, to) = (RankId(1 - number as u32), RankId(number as u32));
        for generation in 0..3 {
            let group = GroupId { generation, nonce: 0 };
            let error =
                call(&rank.address, "it", (Purpose::Moves { group, from, to }, &secret()), PATIENCE).unwrap_err();
            assert!(matches!(error, ConnectionError::NotExpected { .. }), "{error}");
        }
    }
}

/// Connections to every port of this process, each of which has said as much as `said` says of its number.
fn crowd(ports: impl IntoIterator<Item = SocketAddr>, count: usize, said: impl Fn(usize) -> usize) -> Vec<TcpStream> {
    let hello = Hello { purpose: Purpose::Control, challenge: [1; 32] }.to_bytes();
    let mut crowd = Vec::new();
    for port in ports {
        for number in 0..count {
            let mut stream = TcpStream::connect(port).unwrap();
            // One that is turned away already is as good.
            let _ = stream.write_all(&hello[..said(number)]);
            crowd.push(stream);
        }
    }
    crowd
}

/// How long a group that has lost a rank is gone.
fn time_of_a_restart(deployment: &mut Deployment) -> Duration {
    let started = Instant::now();
    deployment.restart(1);
    deployment.group = None;
    deployment.wait_for_group();
    started.elapsed()
}

#[test]
fn a_thousand_idle_or_dripping_connections_on_each_port_keep_no_rank_from_coming_back() {
    let _alone = alone();
    raise_the_limit_of_descriptors();
    let setup = moving();
    let expected = undisturbed();
    let mut deployment = Deployment::start(setup);
    let quiet = time_of_a_restart(&mut deployment);
    // Health and metrics are HTTP, and not this test's.
    let fabric = || ports_of(2).into_iter().filter(|port| !is_http(port));
    assert_eq!(fabric().count(), 5, "control, and steps and pages of both ranks");
    for (name, said) in [("idle", (|_| 0) as fn(usize) -> usize), ("dripping", |number| 1 + number % 63)] {
        let mut crowd = crowd(fabric(), 1000, said);
        let over = AtomicBool::new(false);
        let crowded = std::thread::scope(|scope| {
            let _over = Over(&over);
            let dripping = (name == "dripping").then(|| {
                let (crowd, over) = (&mut crowd, &over);
                scope.spawn(move || {
                    while !over.load(Ordering::Relaxed) {
                        for stream in &mut *crowd {
                            let _ = stream.write_all(&[0]);
                        }
                        std::thread::park_timeout(Duration::from_millis(100));
                    }
                })
            });
            assert!(threads("fleet-rank") + threads("fleet-orders") <= 8, "a stranger costs no thread");
            assert!(threads("page-serve") <= 8, "a stranger costs no thread");
            drop(dripping);
            time_of_a_restart(&mut deployment)
        });
        println!("{name}: back after {crowded:?}, {quiet:?} without");
        assert!(crowded < quiet * 4 + Duration::from_secs(3), "{name}: {crowded:?} instead of {quiet:?}");
        assert!(serve(&mut deployment, sequences(&setup)) == expected, "{name}");
    }
    assert!(has_logged(&["a caller was turned away", "it did not prove in time"]) || has_logged(&["made room"]));
}

fn is_http(port: &SocketAddr) -> bool {
    use std::io::Read as _;
    let mut stream = TcpStream::connect(port).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request =
        format!("GET /livez HTTP/1.1\r\nHost: {port}\r\nConnection: close\r\nX-Fill: {}\r\n\r\n", "x".repeat(64));
    let _ = stream.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer.starts_with(b"HTTP/1.1")
}
