mod chunks;
mod near;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};

use kernels::cpu::Cpu;
use plan::moves::SlotChange;

use super::*;
use crate::experts::pages::tests::{arena, bytes, page, pages, write};
use crate::fabric::framing::{Connection, ConnectionError};
use crate::fabric::handshake::call;
use crate::fabric::purpose::Purpose;
use crate::protocol::{PageHead, PageRequest};
use crate::waiting::wait_until;

const PATIENCE: Duration = Duration::from_secs(20);
const GROUP: GroupId = GroupId { generation: 3, nonce: 9 };

/// Rank 0 with a mover on whose links there are faults, and rank 1 that serves its pages.
struct Bench {
    secret: Secret,
    mover: Mover<Cpu>,
    pages: Arc<RankPages<Cpu>>,
    staged: Receiver<HandOver<Cpu>>,
    reports: Receiver<FromRank>,
    routes: Receiver<PageRoute>,
    from_checkpoint: Arc<AtomicU64>,
    server: PageServer<Cpu>,
}

struct Options {
    /// The node of rank 1; rank 0 is on none.
    node: &'static str,
    faults: Faults,
    staging_pages: u32,
    bytes_per_second: u64,
    checkpoint: Checkpoint,
}

/// What comes of reading a page from the checkpoint.
#[derive(Clone, Copy, PartialEq)]
enum Checkpoint {
    Readable,
    Unreadable,
    /// The first time; after that it is readable.
    Panics,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node: "",
            faults: Faults::default(),
            staging_pages: 2,
            bytes_per_second: 0,
            checkpoint: Checkpoint::Unreadable,
        }
    }
}

fn bench(options: &Options) -> Bench {
    let server = PageServer::start(TcpListener::bind("127.0.0.1:0").unwrap(), &VitalThreads::new(drop)).unwrap();
    let secret = Secret::draw().unwrap();
    server.set(Some(serving(GROUP, &secret)));
    let pages = pages(0, options.staging_pages);
    let from_checkpoint = Arc::new(AtomicU64::new(0));
    let (loaded, readable) = (Arc::clone(&from_checkpoint), options.checkpoint);
    let load_page: LoadPage<Cpu> = Arc::new(move |layer, expert, page| {
        let before = loaded.fetch_add(1, Ordering::Relaxed);
        assert!(readable != Checkpoint::Panics || before > 0, "a hole");
        let hole = NotRead::Unreadable { reason: "no checkpoint".to_owned(), is_permanent: true };
        write(page, layer, expert);
        if readable == Checkpoint::Unreadable { Err(hole) } else { Ok(()) }
    });
    let (reports, received) = unbounded();
    let (arrived, routes) = unbounded();
    let setup = MoverSetup {
        group: GROUP,
        secret: secret.clone(),
        rank: RankId(0),
        ranks: vec![
            address(0, String::new()),
            RankAddress { node: options.node.to_owned(), ..address(1, server.address().to_string()) },
        ],
        pages: Arc::clone(&pages),
        near: Near::default(),
        load_page,
        count_page: Arc::new(move |route| arrived.send(route).unwrap()),
        bytes_per_second: options.bytes_per_second,
        reports,
        threads: VitalThreads::new(drop),
        faults: options.faults,
    };
    let (mover, staged) = Mover::start(setup).unwrap();
    Bench { secret, mover, pages, staged, reports: received, routes, from_checkpoint, server }
}

/// A rank whose pages are there.
fn address(rank: u32, moves: String) -> RankAddress {
    RankAddress { rank: RankId(rank), step: String::new(), moves, node: String::new(), unit: String::new() }
}

fn serving(group: GroupId, secret: &Secret) -> Serving<Cpu> {
    Serving { group, secret: secret.clone(), rank: RankId(1), ranks: 2, pages: pages(1, 1) }
}

/// What the page of each change must be.
fn right(work: Transaction) -> (Transaction, Vec<u128>) {
    let arena = arena();
    let of = |change: &SlotChange| page(&arena, work.layer, change.to).fingerprints().page();
    let fingerprints = work.changes.iter().map(of).collect();
    (work, fingerprints)
}

fn change(rank: u32, slot: u32, from: u32, to: u32, source: u32) -> SlotChange {
    let (from, to) = (ExpertId(from), ExpertId(to));
    SlotChange { rank: RankId(rank), slot: SlotIndex(slot), from, to, source: RankId(source) }
}

/// Ranks 0 and 1 exchange experts 1 and 2 of layer 0.
fn exchange() -> Transaction {
    Transaction { layer: LayerId(0), changes: vec![change(0, 1, 1, 2, 1), change(1, 0, 2, 1, 0)], shares: Vec::new() }
}

impl Bench {
    fn stage(&self, transaction: u64, deadline: Duration) {
        self.mover.stage(TransactionId(transaction), right(exchange()), deadline);
    }

    fn report(&self) -> (TransactionId, Result<u64, NotStaged>) {
        match self.reports.recv_timeout(PATIENCE).unwrap() {
            FromRank::Moved(MoveReport { generation: 3, transaction, staged }) => (transaction, staged),
            other => panic!("a report was expected, not {other:?}"),
        }
    }

    fn failure(&self) -> MoveFailure {
        self.report().1.unwrap_err().reason
    }

    /// Waits until every staging page is free.
    fn all_free(&self, staging_pages: usize) {
        wait_until("every staging page is free", || self.pages.free() == staging_pages);
    }
}

#[test]
fn a_page_is_with_the_engine_before_it_is_reported() {
    let bench = bench(&Options::default());
    bench.stage(5, PATIENCE);
    assert_eq!(bench.report(), (TransactionId(5), Ok(bench.pages.page_bytes() as u64)));
    let Ok(HandOver::Staged(TransactionId(5), mut staged)) = bench.staged.try_recv() else { panic!() };
    let (slot, new) = staged.remove(0);
    let received = new.commit();
    let expected = page(&arena(), LayerId(0), ExpertId(2));
    assert_eq!(slot, SlotIndex(1));
    assert_eq!(bytes(&received), bytes(&expected));
    assert_eq!((bench.pages.free(), bench.from_checkpoint.load(Ordering::Relaxed)), (1, 0));
    assert_eq!(bench.routes.try_iter().collect::<Vec<_>>(), [PageRoute::Node]);
}

#[test]
fn a_corrupt_page_is_never_handed_over_and_its_staging_page_is_free_again() {
    let faults = Faults { corrupt: Some(u64::MAX), ..Faults::default() };
    let bench = bench(&Options { faults, ..Options::default() });
    bench.stage(1, PATIENCE);
    assert_eq!(bench.failure(), MoveFailure::Corrupt);
    assert!(bench.staged.try_recv().is_err());
    bench.all_free(2);
}

#[test]
fn a_corrupt_page_is_read_from_the_checkpoint_instead() {
    let faults = Faults { corrupt: Some(1), ..Faults::default() };
    let bench = bench(&Options { faults, checkpoint: Checkpoint::Readable, node: "another", ..Options::default() });
    bench.stage(1, PATIENCE);
    assert_eq!(bench.report(), (TransactionId(1), Ok(0)));
    assert_eq!(bench.from_checkpoint.load(Ordering::Relaxed), 1);
    bench.stage(2, PATIENCE);
    assert!(matches!(bench.report(), (_, Ok(1..))), "the next one arrives");
    let routes: Vec<_> = bench.routes.try_iter().collect();
    assert_eq!(routes, [PageRoute::Checkpoint, PageRoute::Network]);
}

#[test]
fn a_source_that_hangs_up_in_the_middle_is_asked_anew_by_the_next_transaction() {
    let faults = Faults { cut: Some(1), ..Faults::default() };
    let bench = bench(&Options { faults, ..Options::default() });
    bench.stage(1, PATIENCE);
    assert_eq!(bench.failure(), MoveFailure::SourceUnreachable);
    bench.all_free(2);
    bench.stage(2, PATIENCE);
    assert!(matches!(bench.report(), (TransactionId(2), Ok(_))));
}

#[test]
fn a_source_that_does_not_hold_the_expert_is_no_source() {
    let bench = bench(&Options::default());
    let work = Transaction { layer: LayerId(0), changes: vec![change(0, 1, 1, 0, 1)], shares: Vec::new() };
    bench.mover.stage(TransactionId(1), right(work), PATIENCE);
    assert_eq!(bench.failure(), MoveFailure::SourceUnreachable);
}

#[test]
fn a_page_that_comes_too_late_fails_by_its_deadline() {
    let faults = Faults { delay: Duration::from_secs(2), ..Faults::default() };
    let bench = bench(&Options { faults, ..Options::default() });
    bench.stage(1, Duration::from_millis(50));
    assert_eq!(bench.failure(), MoveFailure::Deadline);
    bench.all_free(2);
}

#[test]
fn no_free_staging_page_fails_by_the_deadline() {
    let bench = bench(&Options { staging_pages: 0, ..Options::default() });
    bench.stage(1, Duration::from_millis(50));
    assert_eq!(bench.failure(), MoveFailure::NoStagingPage);
}

#[test]
fn an_abort_frees_what_is_being_received_and_no_report_follows() {
    let bench = bench(&Options { bytes_per_second: 1, ..Options::default() });
    bench.stage(1, Duration::from_mins(10));
    wait_until("a page is being received", || bench.pages.free() < 2);
    bench.mover.abort(TransactionId(1));
    bench.all_free(2);
    assert!(bench.reports.try_recv().is_err() && bench.staged.try_recv().is_err());
}

#[test]
fn an_abort_of_what_is_staged_is_passed_to_the_engine() {
    let bench = bench(&Options::default());
    bench.stage(1, PATIENCE);
    assert!(bench.report().1.is_ok());
    bench.mover.abort(TransactionId(1));
    let handed: Vec<_> = bench.staged.try_iter().collect();
    assert!(matches!(handed[..], [HandOver::Staged(..), HandOver::Aborted(TransactionId(1))]));
    drop(handed);
    bench.all_free(2);
}

#[test]
fn a_mover_that_is_dropped_frees_everything() {
    let Bench { mover, pages, staged, reports, server, .. } =
        bench(&Options { bytes_per_second: 1, ..Options::default() });
    mover.stage(TransactionId(1), right(exchange()), Duration::from_mins(10));
    mover.stage(TransactionId(2), right(exchange()), Duration::from_mins(10));
    wait_until("both are being received", || pages.free() == 0);
    drop((mover, staged, reports, server));
    wait_until("every staging page is free", || pages.free() == 2);
}

#[test]
fn an_expert_that_changes_its_slot_needs_no_network_and_no_staging_page() {
    let bench = bench(&Options { staging_pages: 0, ..Options::default() });
    let changes = vec![change(0, 0, 0, 1, 0), change(0, 1, 1, 0, 0)];
    let work = Transaction { layer: LayerId(0), changes, shares: Vec::new() };
    bench.mover.stage(TransactionId(1), right(work), PATIENCE);
    assert!(matches!(bench.report(), (_, Ok(0))));
    let Ok(HandOver::Staged(_, staged)) = bench.staged.try_recv() else { panic!() };
    assert!(staged.iter().all(|(_, page)| matches!(page, NewPage::Held(_))));
}

#[test]
fn a_rank_of_another_group_gets_no_page() {
    let bench = bench(&Options::default());
    let other = GroupId { generation: 4, nonce: 9 };
    bench.server.set(Some(serving(other, &bench.secret)));
    bench.stage(1, PATIENCE);
    assert_eq!(bench.failure(), MoveFailure::SourceUnreachable);
}

#[test]
fn pages_arrive_within_the_budget() {
    let bytes = pages(0, 0).page_bytes() as u64;
    let bench = bench(&Options { bytes_per_second: bytes * 10, ..Options::default() });
    let started = Instant::now();
    for transaction in 0..6 {
        bench.stage(transaction, PATIENCE);
        assert!(bench.report().1.is_ok());
        bench.mover.abort(TransactionId(transaction));
        bench.staged.try_iter().for_each(drop);
    }
    // 6 pages at 10 pages a second, less one burst of 50 ms.
    assert!(started.elapsed() >= Duration::from_millis(540), "{:?}", started.elapsed());
}

#[test]
fn a_thread_that_panics_over_one_transaction_receives_the_next() {
    let bench = bench(&Options { checkpoint: Checkpoint::Panics, ..Options::default() });
    // Rank 1 has nothing to give, so the page is to come from the checkpoint.
    bench.server.set(None);
    bench.stage(1, PATIENCE);
    let NotStaged { reason, message } = bench.report().1.unwrap_err();
    assert_eq!((reason, message.as_str()), (MoveFailure::Internal, "it panicked: a hole"));
    bench.all_free(2);
    for transaction in 2..6 {
        bench.stage(transaction, PATIENCE);
        assert!(bench.report().1.is_ok());
        bench.mover.abort(TransactionId(transaction));
        while let Ok(handed) = bench.staged.try_recv() {
            drop(handed);
        }
        bench.all_free(2);
    }
}

#[test]
fn a_page_of_other_bytes_than_were_agreed_upon_is_corrupt_whatever_its_sender_says() {
    let bench = bench(&Options::default());
    let (work, fingerprints) = right(exchange());
    let others = fingerprints.iter().map(|fingerprint| fingerprint ^ 1).collect();
    bench.mover.stage(TransactionId(1), (work, others), PATIENCE);
    assert_eq!(bench.failure(), MoveFailure::Corrupt);
    bench.all_free(2);
}

#[test]
fn what_the_checkpoint_holds_is_checked_as_well() {
    let bench = bench(&Options { checkpoint: Checkpoint::Readable, ..Options::default() });
    let (work, fingerprints) = right(exchange());
    let others = fingerprints.iter().map(|fingerprint| fingerprint ^ 1).collect();
    bench.mover.stage(TransactionId(1), (work, others), PATIENCE);
    assert_eq!(bench.failure(), MoveFailure::Corrupt);
    assert_eq!(bench.from_checkpoint.load(Ordering::Relaxed), 1);
    bench.all_free(2);
}

/// A connection to the bench's pages, by whoever has this secret.
fn ask(bench: &Bench, group: GroupId, secret: &Secret) -> Result<Connection, ConnectionError> {
    let purpose = Purpose::Moves { group, from: RankId(0), to: RankId(1) };
    call(&bench.server.address().to_string(), "rank 1", (purpose, secret), PATIENCE)
}

const REQUEST: PageRequest =
    PageRequest { generation: GROUP.generation, layer: LayerId(0), expert: ExpertId(2), from: 0 };

#[test]
fn no_page_is_given_to_who_has_not_the_secret_of_the_group_or_asks_for_another_group_s() {
    let bench = bench(&Options::default());
    let error = ask(&bench, GROUP, &Secret::draw().unwrap()).unwrap_err();
    assert!(matches!(error, ConnectionError::SecretDiffers { .. }), "{error}");
    let error = ask(&bench, GroupId { generation: 2, ..GROUP }, &bench.secret).unwrap_err();
    assert!(matches!(error, ConnectionError::NotExpected { .. }), "{error}");
    let mut connection = ask(&bench, GROUP, &bench.secret).unwrap();
    connection.send(&REQUEST).unwrap();
    assert!(!connection.receive::<PageHead>().unwrap().chunks.is_empty());
    let mut connection = ask(&bench, GROUP, &bench.secret).unwrap();
    connection.send(&PageRequest { generation: 2, ..REQUEST }).unwrap();
    assert!(connection.receive::<PageHead>().is_err());
}

#[test]
fn connections_end_with_their_group() {
    let bench = bench(&Options::default());
    let mut connection = ask(&bench, GROUP, &bench.secret).unwrap();
    connection.send(&REQUEST).unwrap();
    assert_eq!(connection.receive::<PageHead>().unwrap().chunks.len(), 1);
    connection.receive_bytes(&mut vec![0; bench.pages.page_bytes()]).unwrap();
    bench.server.set(Some(serving(GroupId { generation: 4, ..GROUP }, &bench.secret)));
    assert!(connection.receive::<PageHead>().is_err());
}

#[test]
fn a_rank_has_so_many_connections_and_no_more_until_one_ends() {
    let bench = bench(&Options::default());
    let asks = |connection: &mut Connection| {
        connection.send(&REQUEST).is_ok() && connection.receive::<PageHead>().is_ok_and(|head| !head.chunks.is_empty())
    };
    let mut held: Vec<Connection> = (0..4).map(|_| ask(&bench, GROUP, &bench.secret).unwrap()).collect();
    assert!(held.iter_mut().all(asks));
    assert!(!ask(&bench, GROUP, &bench.secret).is_ok_and(|mut connection| asks(&mut connection)));
    held.pop();
    let deadline = Instant::now() + PATIENCE;
    while !ask(&bench, GROUP, &bench.secret).is_ok_and(|mut connection| asks(&mut connection)) {
        assert!(Instant::now() < deadline, "its place must be free again");
    }
}
