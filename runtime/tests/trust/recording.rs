//! What was recorded between a member and the coordinator is of no use to anybody.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::group::{Deployment, Worker};
use crate::process::has_logged;
use crate::{alone, sequences, serve, two_ranks, undisturbed};

type Recordings = Arc<Mutex<Vec<Vec<u8>>>>;

/// Passes everything on to a target, and keeps what callers say.
struct Recorder {
    address: SocketAddr,
    /// One for each connection.
    recordings: Recordings,
    over: Arc<AtomicBool>,
}

impl Recorder {
    fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (recordings, over) = (Recordings::default(), Arc::new(AtomicBool::new(false)));
        let (kept, stopped) = (Arc::clone(&recordings), Arc::clone(&over));
        std::thread::spawn(move || {
            for (number, caller) in listener.incoming().map_while(Result::ok).enumerate() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(callee) = TcpStream::connect(target) else { return };
                kept.lock().unwrap().push(Vec::new());
                let (back_from, back_to) = (callee.try_clone().unwrap(), caller.try_clone().unwrap());
                std::thread::spawn(move || pass(back_from, back_to, |_| {}));
                let kept = Arc::clone(&kept);
                std::thread::spawn(move || {
                    pass(caller, callee, |bytes| kept.lock().unwrap()[number].extend_from_slice(bytes));
                });
            }
        });
        Self { address, recordings, over }
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

#[test]
fn a_recorded_handshake_and_registration_are_turned_away() {
    let _alone = alone();
    let expected = undisturbed();
    let setup = two_ranks();
    let mut deployment = Deployment::start(setup);
    let recorder = Recorder::start(deployment.fleet.address());
    deployment.workers[1].take().unwrap().stop().unwrap();
    deployment.group = None;
    deployment.workers[1] = Some(Worker::start(1, recorder.address, &setup));
    deployment.wait_for_group();
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
        assert!(heard.len() <= 72, "an answer to its hello and nothing else: {} bytes", heard.len());
    }
    assert!(serve(&mut deployment, sequences(&setup)) == expected);
    assert_eq!(deployment.fleet.generation(), generation, "nobody was taken for the rank that came again");
    assert!(has_logged(&["a caller was turned away", "the secret differs"]));
}
