//! What was recorded between a member and the coordinator is of no use to anybody.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plan::ids::RankId;
use runtime::coordinator::ranks::Ranks as _;
use runtime::fabric::framing::ConnectionError;
use runtime::fabric::handshake::{ANSWER_BYTES, call};
use runtime::fabric::purpose::{GroupId, Hello, Purpose};
use runtime::fabric::secret::{Drawn, Secret};
use runtime::protocol::ToRank;

use crate::group::{Deployment, Setup, Worker, secret};
use crate::process::{PATIENCE, has_logged};
use crate::{alone, sequences, serve, two_ranks, undisturbed};

type Recordings = Arc<Mutex<Vec<Vec<u8>>>>;

/// Passes everything on to a target, and keeps what is said.
struct Recorder {
    address: SocketAddr,
    /// What callers said, one for each connection.
    recordings: Recordings,
    /// What they heard.
    heard: Recordings,
    over: Arc<AtomicBool>,
}

impl Recorder {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (recordings, heard, over) =
            (Recordings::default(), Recordings::default(), Arc::new(AtomicBool::new(false)));
        let (kept, kept_back, stopped) = (Arc::clone(&recordings), Arc::clone(&heard), Arc::clone(&over));
        std::thread::spawn(move || {
            for (number, caller) in listener.incoming().map_while(Result::ok).enumerate() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(callee) = TcpStream::connect(target) else { return };
                kept.lock().unwrap().push(Vec::new());
                kept_back.lock().unwrap().push(Vec::new());
                let (back_from, back_to) = (callee.try_clone().unwrap(), caller.try_clone().unwrap());
                let kept_back = Arc::clone(&kept_back);
                std::thread::spawn(move || {
                    pass(back_from, back_to, |bytes| kept_back.lock().unwrap()[number].extend_from_slice(bytes));
                });
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || {
                    pass(caller, callee, |bytes| kept.lock().unwrap()[number].extend_from_slice(bytes));
                });
            }
        });
        Self { address, recordings, heard, over }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, mut keep: impl FnMut(&[u8])) {
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        keep(&bytes[..count]);
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

/// A deployment whose rank 1 came through a recorder.
fn recorded(setup: &Setup) -> (Deployment, Recorder) {
    let mut deployment = Deployment::start(*setup);
    let recorder = Recorder::start(deployment.fleet.address());
    deployment.workers[1].take().unwrap().stop().unwrap();
    deployment.group = None;
    deployment.workers[1] = Some(Worker::start(1, recorder.address, setup));
    deployment.wait_for_group();
    (deployment, recorder)
}

/// The group in whose name a recorded caller connected its steps.
fn group_of(said: &[u8]) -> Option<GroupId> {
    match Hello::from_bytes(said.first_chunk()?).ok()?.purpose {
        Purpose::Steps { group, .. } => Some(group),
        _ => None,
    }
}

/// What was drawn for the group that a recorded caller was told to form.
fn drawn_for(heard: &[u8]) -> Option<Drawn> {
    let (length, message) = heard.get(ANSWER_BYTES..)?.split_first_chunk()?;
    match postcard::from_bytes(message.get(..u32::from_le_bytes(*length) as usize)?).ok()? {
        ToRank::Form { drawn, .. } => Some(drawn),
        _ => None,
    }
}

#[test]
fn no_page_is_given_to_who_has_recorded_how_a_group_came_together_or_knows_the_deployment_s_secret_alone() {
    let _alone = alone();
    let (deployment, recorder) = recorded(&two_ranks());
    let group = recorder.recordings.lock().unwrap().iter().find_map(|said| group_of(said)).unwrap();
    let drawn = recorder.heard.lock().unwrap().iter().find_map(|heard| drawn_for(heard)).unwrap();
    for (number, rank) in deployment.fleet.roll().states().iter().enumerate() {
        let (from, to) = (RankId(1 - number as u32), RankId(number as u32));
        let ask =
            |group, secret: &Secret| call(&rank.address, "it", (Purpose::Moves { group, from, to }, secret), PATIENCE);
        let of_a_stranger = Secret::draw().unwrap();
        for wrong in [secret(), of_a_stranger.of_group(&drawn), secret().of_group(&[0; 32]), of_a_stranger] {
            let error = ask(group, &wrong).unwrap_err();
            assert!(matches!(error, ConnectionError::SecretDiffers { .. }), "{error}");
        }
        let other = GroupId { nonce: group.nonce ^ 1, ..group };
        let right = secret().of_group(&drawn);
        assert!(matches!(ask(other, &right).unwrap_err(), ConnectionError::NotExpected { .. }));
        ask(group, &right).unwrap();
    }
}

#[test]
fn a_recorded_handshake_and_registration_are_turned_away() {
    let _alone = alone();
    let expected = undisturbed();
    let setup = two_ranks();
    let (mut deployment, recorder) = recorded(&setup);
    let generation = deployment.fleet.generation();
    // The control connection and that of steps; a registration is longer than a proof.
    let said_before = recorder.recordings.lock().unwrap().clone();
    assert!(said_before.len() >= 2 && said_before.iter().any(|said| said.len() > 64 + 32 + 40));
    for said in &said_before {
        let mut stream = TcpStream::connect(deployment.fleet.address()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let _ = stream.write_all(said);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert!(heard.len() <= ANSWER_BYTES, "an answer to its hello and nothing else: {} bytes", heard.len());
    }
    assert!(serve(&mut deployment, sequences(&setup)) == expected);
    assert_eq!(deployment.fleet.generation(), generation, "nobody was taken for the rank that came again");
    assert!(has_logged(&["a caller was turned away", "the secret differs"]));
}
