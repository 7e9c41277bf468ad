use kernels::backend::PageShape;
use kernels::cpu::Cpu;
use kernels::tensor::{MatrixView, Values, WeightKind};
use plan::ids::SlotIndex;
use plan::map::MapShape;
use plan::moves::{SlotChange, Transaction};

use super::*;
use crate::protocol::TransactionId;

pub(crate) const SHAPE: PageShape = PageShape { hidden: 16, intermediate: 24, kind: WeightKind::F32 };

/// Makes a page one that no other (layer, expert) has.
pub(crate) fn write(page: &mut Page<Cpu>, layer: LayerId, expert: ExpertId) {
    let values = vec![(layer.0 * 100 + expert.0) as f32 + 0.5; SHAPE.hidden * SHAPE.intermediate];
    let view = |rows| MatrixView::new(rows, values.len() / rows, Values::F32(&values));
    page.pack(view(SHAPE.intermediate), view(SHAPE.intermediate), view(SHAPE.hidden)).unwrap();
}

pub(crate) fn arena() -> Arc<Arena<Cpu>> {
    Arena::new(Arc::new(Cpu::new(1)), SHAPE).unwrap()
}

/// The page of an expert.
pub(crate) fn page(arena: &Arc<Arena<Cpu>>, layer: LayerId, expert: ExpertId) -> Page<Cpu> {
    let mut page = arena.take().unwrap();
    write(&mut page, layer, expert);
    page
}

pub(crate) fn bytes(page: &Page<Cpu>) -> Vec<u8> {
    let mut bytes = vec![0; Cpu::page_bytes(page.arena().shape())];
    page.read(0, &mut bytes).unwrap();
    bytes
}

/// Two layers of 4 experts on 2 ranks: `[0 1 | 2 3]`.
pub(crate) fn map() -> ExpertMap {
    ExpertMap::contiguous(MapShape::with_redundancy(2, 4, 2, 0).unwrap()).unwrap()
}

/// The pages that a rank holds under [`map`].
pub(crate) fn held(arena: &Arc<Arena<Cpu>>, rank: u32) -> HeldPages<Cpu> {
    let map = map();
    let slots = map.layers().flat_map(|layer| map.rank(layer, RankId(rank)).iter().map(move |&expert| (layer, expert)));
    slots.map(|(layer, expert)| ((layer, expert), Arc::new(page(arena, layer, expert)))).collect()
}

pub(crate) fn pages(rank: u32, staging_pages: u32) -> Arc<RankPages<Cpu>> {
    let arena = arena();
    let held = held(&arena, rank);
    RankPages::new(arena, map(), held, staging_pages).unwrap()
}

fn reserve(pages: &Arc<RankPages<Cpu>>, count: usize) -> Result<Vec<Reserved<Cpu>>, NotReserved> {
    pages.reserve(count, Instant::now(), &Cancel::default())
}

fn receive(pages: &Arc<RankPages<Cpu>>, layer: u32, expert: u32) -> StagedPage<Cpu> {
    let sent = page(&arena(), LayerId(layer), ExpertId(expert));
    let mut reserved = reserve(pages, 1).unwrap().remove(0);
    reserved.fill(0, &bytes(&sent)).unwrap();
    reserved.seal(sent.fingerprints().clone())
}

/// A slot of one of two ranks that gets an expert from the other.
pub fn change(rank: u32, slot: u32, from: u32, to: u32) -> SlotChange {
    SlotChange {
        rank: RankId(rank),
        slot: SlotIndex(slot),
        from: ExpertId(from),
        to: ExpertId(to),
        source: RankId(1 - rank),
    }
}

/// Expert 2 comes to slot 1 of rank 0 and expert 1 to slot 0 of rank 1.
fn exchange() -> Commit {
    let changes = vec![change(0, 1, 1, 2), change(1, 0, 2, 1)];
    let work = Transaction { layer: LayerId(0), changes, shares: Vec::new() };
    Commit { transaction: TransactionId(1), epoch: 1, work }
}

#[test]
fn a_reservation_is_given_back_on_every_way_out() {
    let pages = pages(0, 2);
    drop(reserve(&pages, 2).unwrap());
    assert_eq!(pages.free(), 2, "dropped before anything arrived");
    drop(receive(&pages, 0, 2));
    assert_eq!(pages.free(), 2, "dropped after it was staged");
    let mut from_disk = reserve(&pages, 1).unwrap().remove(0);
    write(from_disk.page(), LayerId(0), ExpertId(3));
    let from_disk = from_disk.packed();
    assert_eq!(pages.free(), 1);
    drop(from_disk);
    assert_eq!(pages.free(), 2, "dropped after it came from the checkpoint");
}

#[test]
fn staging_pages_are_taken_all_or_none() {
    let pages = pages(0, 2);
    let _one = reserve(&pages, 1).unwrap();
    assert_eq!(reserve(&pages, 2).err(), Some(NotReserved::Deadline));
    assert_eq!(pages.free(), 1);
}

#[test]
fn a_wait_for_a_staging_page_ends_when_one_is_given_back_or_it_is_cancelled() {
    let pages = pages(0, 1);
    let held = reserve(&pages, 1).unwrap();
    let cancel = Arc::new(Cancel::default());
    let wait = || {
        let (pages, cancel) = (Arc::clone(&pages), Arc::clone(&cancel));
        std::thread::spawn(move || pages.reserve(1, Instant::now() + Duration::from_mins(1), &cancel).map(drop))
    };
    let waiter = wait();
    drop(held);
    assert_eq!(waiter.join().unwrap(), Ok(()));
    let _held = reserve(&pages, 1).unwrap();
    let waiter = wait();
    cancel.cancel();
    assert_eq!(waiter.join().unwrap(), Err(NotReserved::Cancelled));
}

#[test]
fn the_page_that_a_commit_replaces_becomes_staging_memory_once_nobody_reads_it() {
    let pages = pages(0, 1);
    let before = pages.page(LayerId(0), ExpertId(1)).unwrap();
    let after = receive(&pages, 0, 2).commit();
    assert_eq!(pages.free(), 0);
    let swap = Swap { from: ExpertId(1), to: ExpertId(2), page: Arc::clone(&after) };
    pages.swapped(exchange(), vec![swap], None);
    assert!(pages.page(LayerId(0), ExpertId(1)).is_none());
    assert!(Arc::ptr_eq(&pages.page(LayerId(0), ExpertId(2)).unwrap(), &after));
    assert_eq!(pages.free(), 0, "a rank is still being sent the old page");
    drop(before);
    assert_eq!(pages.free(), 1);
}

#[test]
fn a_page_that_only_changes_its_slot_stays() {
    let pages = pages(0, 1);
    let page = |expert| pages.page(LayerId(0), ExpertId(expert)).unwrap();
    let swap = |from, to| Swap { from: ExpertId(from), to: ExpertId(to), page: page(to) };
    let swaps = vec![swap(0, 1), swap(1, 0)];
    let change = |slot, from, to| SlotChange {
        rank: RankId(0),
        slot: SlotIndex(slot),
        from: ExpertId(from),
        to: ExpertId(to),
        source: RankId(0),
    };
    let mut commit = exchange();
    commit.work.changes = vec![change(0, 0, 1), change(1, 1, 0)];
    pages.swapped(commit, swaps, Some(()));
    assert_eq!((pages.free(), pages.held().len()), (1, 4));
}

#[test]
fn a_page_that_comes_in_the_place_of_an_equal_one_makes_that_staging_memory() {
    let pages = pages(0, 2);
    let before = pages.page(LayerId(0), ExpertId(0)).unwrap().id();
    let page = |expert| pages.page(LayerId(0), ExpertId(expert)).unwrap();
    // Expert 0 goes to the slot of expert 1 as another rank has it, and expert 1 to its slot as this one has it.
    let received = receive(&pages, 0, 0).commit();
    let change = |slot, from, to| SlotChange { source: RankId(0), ..self::change(0, slot, from, to) };
    let mut commit = exchange();
    commit.work.changes = vec![change(0, 0, 1), change(1, 1, 0)];
    let swaps = vec![
        Swap { from: ExpertId(0), to: ExpertId(1), page: page(1) },
        Swap { from: ExpertId(1), to: ExpertId(0), page: Arc::clone(&received) },
    ];
    pages.swapped(commit, swaps, Some(()));
    assert!(Arc::ptr_eq(&page(0), &received));
    assert_eq!((pages.free(), pages.held().len()), (2, 4));
    assert!(reserve(&pages, 2).unwrap().iter_mut().any(|reserved| reserved.page().id() == before));
}

#[test]
fn holders_follow_the_commits() {
    let pages = pages(0, 1);
    assert_eq!(pages.holders(LayerId(0), ExpertId(2)), [RankId(1)]);
    let page = receive(&pages, 0, 2).commit();
    pages.swapped(exchange(), vec![Swap { from: ExpertId(1), to: ExpertId(2), page }], Some(()));
    assert_eq!(pages.holders(LayerId(0), ExpertId(2)), [RankId(0)]);
    assert_eq!(pages.holders(LayerId(1), ExpertId(2)), [RankId(1)]);
}
