//! Who has not the secret, or not that of the group.

use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use plan::ids::RankId;
use runtime::coordinator::ranks::Ranks as _;
use runtime::fabric::framing::ConnectionError;
use runtime::fabric::handshake::call;
use runtime::fabric::purpose::{Hello, Purpose};
use runtime::fabric::secret::Secret;
use runtime::protocol::{FromRank, ProcessId};

use crate::group::{Deployment, Sequence, advance_ahead};
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
            if !advance_ahead(&mut deployment, &mut sequences) {
                deployment.wait_for_group();
                sequences.iter_mut().for_each(Sequence::forget);
            }
        }
        while sequences[0].output().len() < crate::STEPS {
            if !advance_ahead(&mut deployment, &mut sequences) {
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

/// Connections to a port after which its crowd is there: more than are greeted at a time.
const THERE: usize = 400;

/// How long a crowd waits between two of its connections to a port: a thousand come each second.
const BETWEEN: Duration = Duration::from_millis(1);

/// Keeps a thousand connections to a port, each of which has said as much as `said` says of its number, until it is over: the oldest
/// makes place for another, as those do that are turned away. With `drips` each says a byte more now and then.
fn crowd(port: SocketAddr, said: impl Fn(usize) -> usize, drips: bool, (come, over): (&AtomicUsize, &AtomicBool)) {
    let hello = Hello { purpose: Purpose::Control, challenge: [1; 32] }.to_bytes();
    let mut crowd = VecDeque::new();
    for number in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        // The port of a rank that restarts is gone for a while, or for good.
        if let Ok(mut stream) = TcpStream::connect(port) {
            // One that is turned away already is as good.
            let _ = stream.write_all(&hello[..said(number)]);
            crowd.push_back(stream);
            come.fetch_add(1, Ordering::Relaxed);
        }
        if crowd.len() > 1000 {
            crowd.pop_front();
        }
        if drips && let Some(stream) = crowd.get_mut(number * 7 % 1000) {
            let _ = stream.write_all(&[0]);
        }
        std::thread::park_timeout(BETWEEN);
    }
}

/// How long a group that has lost a rank is gone.
fn time_of_a_restart(deployment: &mut Deployment) -> Duration {
    let started = Instant::now();
    deployment.restart(1);
    deployment.group = None;
    deployment.wait_for_group();
    started.elapsed()
}

/// A crowd's name, how much of a hello each connection says, and whether it drips.
type Kind = (&'static str, fn(usize) -> usize, bool);

#[test]
fn a_thousand_connections_a_second_to_each_port_keep_no_rank_from_coming_back() {
    let _alone = alone();
    raise_the_limit_of_descriptors();
    let setup = moving();
    let expected = undisturbed();
    let mut deployment = Deployment::start(setup);
    let quiet = time_of_a_restart(&mut deployment);
    // Health and metrics are HTTP, and not this test's.
    let fabric = || ports_of(2).into_iter().filter(|port| !is_http(port));
    assert_eq!(fabric().count(), 5, "control, and steps and pages of both ranks");
    let kinds: [Kind; 3] =
        [("idle", |_| 0, false), ("dripping", |number| 1 + number % 63, true), ("full hellos", |_| 64, false)];
    for (name, said, drips) in kinds {
        let (come, over) = (AtomicUsize::new(0), AtomicBool::new(false));
        let crowded = std::thread::scope(|scope| {
            let _over = Over(&over);
            for port in fabric() {
                let told = (&come, &over);
                scope.spawn(move || crowd(port, said, drips, told));
            }
            let started = Instant::now();
            while come.load(Ordering::Relaxed) < 5 * THERE {
                assert!(started.elapsed() < PATIENCE, "the crowd does not come");
                std::thread::yield_now();
            }
            let crowded = time_of_a_restart(&mut deployment);
            assert!(threads("fleet-rank") + threads("fleet-orders") <= 8, "a stranger costs no thread");
            assert!(threads("page-serve") <= 8, "a stranger costs no thread");
            crowded
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
