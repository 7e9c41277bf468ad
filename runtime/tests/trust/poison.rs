//! A member that gives other bytes than those of the page that it was asked for.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use kernels::cpu::Cpu;
use kernels::{Arena, Backend as _};
use plan::ids::RankId;
use runtime::coordinator::ranks::Ranks as _;
use runtime::experts::rebalance::{AbortReason, Notice};
use runtime::fabric::framing::Connection;
use runtime::fabric::greeter::{Greeter, Stopper};
use runtime::fabric::handshake::ANSWER_BYTES;
use runtime::fabric::purpose::{GroupId, HELLO_BYTES, Hello, Purpose};
use runtime::fabric::secret::Secret;
use runtime::model::checkpoint::Checkpoint;
use runtime::model::forward::{expert_shape, load_expert};
use runtime::protocol::{MoveFailure, PageHead, PageRequest, ToRank};

use crate::group::{Deployment, Worker, checkpoint, secret};
use crate::process::has_logged;
use crate::{alone, moving, sequences, serve, undisturbed};

/// The secrets of the groups that it has heard of.
type Groups = Arc<Mutex<Vec<(GroupId, Secret)>>>;

/// A member of the deployment on the way of rank 0 to the coordinator, which has rank 0 ask it for the pages of rank 1.
struct Poisoner {
    /// Where rank 0 finds its coordinator.
    address: SocketAddr,
    /// Pages that it was asked for.
    asked: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    _stop: Stopper,
}

impl Poisoner {
    fn start(coordinator: SocketAddr) -> Self {
        let any = || TcpListener::bind("127.0.0.1:0").unwrap();
        let (ways, pages) = (any(), any());
        let (address, moves) = (ways.local_addr().unwrap(), pages.local_addr().unwrap());
        let (groups, asked, over) = (Groups::default(), Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (greeter, stop) = Greeter::new(pages, "poison").unwrap();
        let (known, counted) = (Arc::clone(&groups), Arc::clone(&asked));
        std::thread::spawn(move || {
            let admit = |purpose: &Purpose| {
                let Purpose::Moves { group, .. } = *purpose else { return None };
                known.lock().unwrap().iter().find(|(id, _)| *id == group).map(|(_, secret)| secret.clone())
            };
            greeter.run(admit, |_, connection| {
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || poison(connection, &counted));
            });
        });
        let stopped = Arc::clone(&over);
        std::thread::spawn(move || {
            for caller in ways.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(callee) = TcpStream::connect(coordinator) else { return };
                let groups = Arc::clone(&groups);
                std::thread::spawn(move || pass(caller, callee, moves, &groups));
            }
        });
        Self { address, asked, over, _stop: stop }
    }
}

impl Drop for Poisoner {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

/// Answers every request with as many bytes as a page has, none of which is right; every other time with the fingerprints of the
/// right ones, which a member knows.
fn poison(mut connection: Connection, asked: &AtomicU64) {
    let checkpoint = Checkpoint::open(&checkpoint()).unwrap();
    let page = vec![0; Cpu::page_bytes(expert_shape(&checkpoint))];
    let device = Arc::new(Cpu::new(1).with_fingerprint_seed(secret().fingerprint_seed()));
    let mut right = Arena::new(Arc::clone(&device), expert_shape(&checkpoint)).unwrap().take().unwrap();
    while let Ok(PageRequest { layer, expert, .. }) = connection.receive_up_to(64) {
        load_expert(&checkpoint, layer, expert, &mut right).unwrap();
        let fingerprints = match asked.fetch_add(1, Ordering::Relaxed) % 2 {
            0 => right.fingerprints().clone(),
            _ => device.fingerprinter().of(&page),
        };
        let head = PageHead { chunks: fingerprints.chunks().to_vec() };
        if connection.send(&head).and_then(|()| connection.send_bytes(&page)).is_err() {
            return;
        }
    }
}

/// Passes on what a rank and its coordinator say, but for where rank 1 serves its pages.
fn pass(mut rank: TcpStream, mut coordinator: TcpStream, moves: SocketAddr, groups: &Groups) {
    let mut hello = [0; HELLO_BYTES];
    if rank.read_exact(&mut hello).is_err() {
        return;
    }
    coordinator.write_all(&hello).unwrap();
    let (mut back_from, mut back_to) = (coordinator.try_clone().unwrap(), rank.try_clone().unwrap());
    let there = std::thread::spawn(move || {
        let _ = std::io::copy(&mut rank, &mut coordinator);
        let _ = coordinator.shutdown(Shutdown::Both);
    });
    if Hello::from_bytes(&hello).is_ok_and(|hello| hello.purpose == Purpose::Control) {
        // Ends with the connection.
        let _ = orders(&mut back_from, &mut back_to, moves, groups);
    } else {
        let _ = std::io::copy(&mut back_from, &mut back_to);
    }
    let _ = back_to.shutdown(Shutdown::Both);
    there.join().unwrap();
}

fn orders(from: &mut TcpStream, to: &mut TcpStream, moves: SocketAddr, groups: &Groups) -> std::io::Result<()> {
    let mut answer = [0; ANSWER_BYTES];
    from.read_exact(&mut answer)?;
    to.write_all(&answer)?;
    loop {
        let mut length = [0; 4];
        from.read_exact(&mut length)?;
        let mut message = vec![0; u32::from_le_bytes(length) as usize];
        from.read_exact(&mut message)?;
        let mut order = postcard::from_bytes(&message).unwrap();
        if let ToRank::Form { generation, nonce, drawn, ranks, .. } = &mut order {
            let group = GroupId { generation: *generation, nonce: *nonce };
            groups.lock().unwrap().push((group, secret().of_group(drawn)));
            ranks[1].moves = moves.to_string();
        }
        let message = postcard::to_allocvec(&order).unwrap();
        to.write_all(&[&(message.len() as u32).to_le_bytes()[..], &message].concat())?;
    }
}

#[test]
fn a_member_that_poisons_pages_changes_no_token_and_no_map() {
    let _alone = alone();
    let (expected, setup) = (undisturbed(), moving());
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(checkpoint()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let mut deployment = Deployment::start(setup);
    let poisoner = Poisoner::start(deployment.fleet.address());
    deployment.workers[0].take().unwrap().stop().unwrap();
    deployment.group = None;
    deployment.workers[0] = Some(Worker::start_with(copy.path(), 0, poisoner.address, &setup));
    deployment.wait_for_group();
    let generation = deployment.fleet.generation();
    // What it would read instead of asking anybody is gone.
    std::fs::File::options().write(true).open(copy.path().join("model.safetensors")).unwrap().set_len(0).unwrap();
    let before = deployment.rebalancer.map().clone();
    assert!(serve(&mut deployment, sequences(&setup)) == expected);
    let is_corrupt = |notice: &Notice| {
        let Notice::Aborted { reason, message, .. } = notice else { return false };
        *reason == AbortReason::Move(MoveFailure::Corrupt) && message.contains("the page from rank 1 is corrupt")
    };
    deployment.settle(|deployment| deployment.notices.iter().any(is_corrupt));
    assert!(poisoner.asked.load(Ordering::Relaxed) > 0, "it was asked for pages");
    let commits = deployment.committed.values().flatten().flat_map(|commit| &commit.work.changes);
    let brought = commits.filter(|change| (change.rank, change.source) == (RankId(0), RankId(1))).count();
    assert_eq!(brought, 0, "nothing of it is in force");
    let after = deployment.rebalancer.map();
    for layer in before.layers() {
        let had = before.rank(layer, RankId(0));
        assert!(after.rank(layer, RankId(0)).iter().all(|expert| had.contains(expert)), "rank 0 has what it had");
    }
    assert_eq!(deployment.fleet.generation(), generation, "nobody was lost");
    assert!(has_logged(&["a page did not arrive", "the page from rank 1 is corrupt"]));
}
