//! Pages of ranks of the same process.

use kernels::fingerprint::CHUNK_BYTES;

use super::chunks::{large, large_arena, map};
use super::*;
use crate::experts::mover::links::{NotReceived, PageLink as _, PeerLink};
use crate::experts::pages::{HeldPages, Swap};
use crate::fabric::neighbours::Neighbours;
use crate::protocol::Commit;

const BOTH: [u32; 2] = [1, 2];

/// The pages of a rank that holds the large page, as expert 1 of layer 0.
fn holder() -> Arc<RankPages<Cpu>> {
    let page = Arc::new(large());
    let arena = Arc::clone(page.arena());
    let held = HeldPages::<Cpu>::from([((LayerId(0), ExpertId(1)), page)]);
    RankPages::new(arena, map(), held, 0).unwrap()
}

/// What comes of a move of expert 1 to rank 0, for which there are sources 1 and 2, of which these are of its process: what is
/// reported, the routes of pages, and the page. Who is not near cannot be reached.
fn move_from(
    near: &[(u32, &Arc<RankPages<Cpu>>)],
    (faults, bytes_per_second): (Faults, u64),
) -> (Result<u64, NotStaged>, Vec<PageRoute>, Option<Vec<u8>>) {
    let neighbours = Neighbours::default();
    let pages = RankPages::new(large_arena(), map(), HeldPages::<Cpu>::new(), 1).unwrap();
    for (rank, pages) in near {
        Near::share(&neighbours, (GROUP, RankId(*rank)), pages);
    }
    let near = Near::find(&neighbours, (GROUP, RankId(0)), 3, &pages);
    let (reports, received) = unbounded();
    let (arrived, routes) = unbounded();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let setup = MoverSetup {
        group: GROUP,
        secret: Secret::draw().unwrap(),
        rank: RankId(0),
        ranks: (0..3).map(|rank| address(rank, nobody.clone())).collect(),
        pages,
        near,
        load_page: Arc::new(|_, _, page| {
            page.fill(0, &bytes(&large()))?;
            page.seal(large().fingerprints().clone());
            Ok(())
        }),
        count_page: Arc::new(move |route| arrived.send(route).unwrap()),
        bytes_per_second,
        reports,
        threads: VitalThreads::new(drop),
        faults,
    };
    let (mover, staged) = Mover::start(setup).unwrap();
    let work = Transaction { layer: LayerId(0), changes: vec![change(0, 0, 0, 1, 1)], shares: Vec::new() };
    mover.stage(TransactionId(1), (work, vec![large().fingerprints().page()]), PATIENCE);
    let FromRank::Moved(MoveReport { staged: report, .. }) = received.recv_timeout(PATIENCE).unwrap() else { panic!() };
    let page = staged.try_recv().ok().and_then(|handed| match handed {
        HandOver::Staged(_, mut new) => new.pop(),
        HandOver::Aborted(_) => None,
    });
    (report, routes.try_iter().collect(), page.map(|(_, new)| bytes(&new.commit())))
}

#[test]
fn a_page_of_a_rank_of_the_process_is_copied_whole_and_over_no_connection() {
    let right = bytes(&large());
    let [one, two] = BOTH.map(|_| holder());
    // As fast as it comes, and a chunk at a time.
    for each in [0, 64 * CHUNK_BYTES as u64] {
        for near in [&[(1, &one)][..], &[(2, &two)], &[(1, &one), (2, &two)]] {
            let (report, routes, page) = move_from(near, (Faults::default(), each));
            assert_eq!((report, routes), (Ok(right.len() as u64), vec![PageRoute::Peer]));
            assert!(page.is_some_and(|page| page == right));
        }
    }
}

#[test]
fn a_copy_that_comes_wrong_or_ends_in_the_middle_goes_on_from_the_next_source_and_at_last_from_the_checkpoint() {
    let right = bytes(&large());
    let [one, two] = BOTH.map(|_| holder());
    let named = |faults: [Option<u64>; 2]| Faults { corrupt: faults[0], cut: faults[1], ..Faults::default() };
    for (faults, route) in [
        (named([Some(1), None]), PageRoute::Peer),
        (named([None, Some(1)]), PageRoute::Peer),
        (named([Some(u64::MAX), None]), PageRoute::Checkpoint),
        (named([None, Some(u64::MAX)]), PageRoute::Checkpoint),
    ] {
        let (report, routes, page) = move_from(&[(1, &one), (2, &two)], (faults, 0));
        assert!(report.is_ok(), "{faults:?}: {report:?}");
        assert_eq!(routes, [route], "{faults:?}");
        assert!(page.is_some_and(|page| page == right));
    }
}

#[test]
fn ranks_of_another_process_or_of_another_group_are_asked_over_a_connection() {
    let own = RankPages::new(large_arena(), map(), HeldPages::<Cpu>::new(), 1).unwrap();
    let (neighbours, theirs) = (Neighbours::default(), holder());
    let other = GroupId { generation: 2, ..GROUP };
    Near::share(&neighbours, (other, RankId(1)), &theirs);
    Near::share(&neighbours, (GROUP, RankId(0)), &own);
    let find = |neighbours: &Neighbours| {
        let near = Near::find(neighbours, (GROUP, RankId(0)), 3, &own);
        (0..3).filter(|rank| near.pages(RankId(*rank)).is_some()).collect::<Vec<_>>()
    };
    assert_eq!(find(&neighbours), [0; 0], "neither itself nor a rank of a group before");
    Near::share(&neighbours, (GROUP, RankId(1)), &theirs);
    assert_eq!((find(&neighbours), find(&Neighbours::default())), (vec![1], Vec::new()));
}

/// A rank leaves in the middle of a page: its memory is let go of, and what is left is asked of another.
#[test]
fn a_rank_that_leaves_gives_no_more_of_a_page_and_gets_its_memory_back() {
    let pages = RankPages::new(large_arena(), map(), HeldPages::<Cpu>::new(), 1).unwrap();
    let mut into = pages.reserve(1, Instant::now(), &Cancel::default()).unwrap_or_else(|_| panic!()).remove(0);
    let source = holder();
    let held = source.page(LayerId(0), ExpertId(1)).unwrap();
    let mut link = PeerLink::new(RankId(1), Arc::downgrade(&source));
    let request = PageRequest { expert: ExpertId(1), ..REQUEST };
    assert_eq!(link.ask(&request, PATIENCE).unwrap(), held.fingerprints().chunks());
    let first = link.receive(&mut into, 0..CHUNK_BYTES, PATIENCE).unwrap();
    assert_eq!(first, held.fingerprints().chunks()[..1]);
    drop(source);
    // The test's own, and the link's while it is in the middle of a page.
    assert_eq!(Arc::strong_count(&held), 2);
    let gone = link.receive(&mut into, CHUNK_BYTES..2 * CHUNK_BYTES, PATIENCE);
    assert!(matches!(gone, Err(NotReceived::Connection(ConnectionError::Closed { .. }))), "{gone:?}");
    drop(link);
    assert_eq!(Arc::strong_count(&held), 1);
}

#[test]
fn a_page_that_is_copied_is_no_staging_memory_until_the_copy_has_ended() {
    let source = pages(1, 0);
    let own = pages(0, 1);
    let mut link = PeerLink::new(RankId(1), Arc::downgrade(&source));
    assert_eq!(link.ask(&PageRequest { expert: ExpertId(0), ..REQUEST }, PATIENCE).unwrap(), [0; 0], "not its");
    link.ask(&REQUEST, PATIENCE).unwrap();
    // Expert 1 comes to rank 1 in the place of expert 2.
    let swap = Swap { from: ExpertId(2), to: ExpertId(1), page: Arc::new(page(&arena(), LayerId(0), ExpertId(1))) };
    let commit = Commit { transaction: TransactionId(1), epoch: 1, work: exchange() };
    source.swapped(commit, vec![swap], None);
    assert_eq!((source.free(), source.page(LayerId(0), ExpertId(2)).is_none()), (0, true));
    let mut into = own.reserve(1, Instant::now(), &Cancel::default()).unwrap_or_else(|_| panic!()).remove(0);
    let found = link.receive(&mut into, 0..own.page_bytes(), PATIENCE).unwrap();
    assert_eq!(found, page(&arena(), LayerId(0), ExpertId(2)).fingerprints().chunks());
    assert_eq!(source.free(), 1);
}
