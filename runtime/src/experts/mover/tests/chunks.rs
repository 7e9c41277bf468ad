//! Pages of several chunks, some of which come wrong or not at all.

use std::net::SocketAddr;

use kernels::backend::PageShape;
use kernels::fingerprint::CHUNK_BYTES;
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Arena, Page};
use plan::map::{ExpertMap, MapShape};

use super::*;
use crate::experts::pages::HeldPages;
use crate::experts::pages::tests::bytes;
use crate::fabric::greeter::{Greeter, Stopper};

/// Eight chunks and a part of one.
const SHAPE: PageShape = PageShape { hidden: 96, intermediate: 480, kind: WeightKind::F32 };

pub(super) fn large() -> Page<Cpu> {
    let mut page = large_arena().take().unwrap();
    let values: Vec<f32> = (0..SHAPE.hidden * SHAPE.intermediate).map(|value| value as f32 + 0.5).collect();
    let view = |rows| MatrixView::new(rows, values.len() / rows, Values::F32(&values));
    page.pack(view(SHAPE.intermediate), view(SHAPE.intermediate), view(SHAPE.hidden)).unwrap();
    page
}

pub(super) fn large_arena() -> Arc<Arena<Cpu>> {
    Arena::new(Arc::new(Cpu::new(1)), SHAPE).unwrap()
}

/// One layer of which rank 0 holds expert 0, and ranks 1 and 2 expert 1.
pub(super) fn map() -> ExpertMap {
    let shape = MapShape { layers: 1, experts: 2, ranks: 3, slots_per_rank: 1 };
    ExpertMap::new(shape, [0, 1, 1].map(ExpertId).to_vec()).unwrap()
}

/// A rank that gives the large page and tells what it is asked for. A byte of the chunk `wrong` is.
struct Source {
    address: SocketAddr,
    asked: Receiver<PageRequest>,
    _stop: Stopper,
}

impl Source {
    fn start(secret: &Secret, wrong: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (greeter, stop) = Greeter::new(listener, "chunks").unwrap();
        let (tell, asked) = unbounded();
        let secret = secret.clone();
        std::thread::spawn(move || {
            let welcome = |_, connection| {
                let tell = tell.clone();
                // Ends with the connection.
                std::thread::spawn(move || give(connection, wrong, &tell));
            };
            greeter.run(|_| Some(secret.clone()), welcome);
        });
        Self { address, asked, _stop: stop }
    }

    /// The first chunk that was wanted, each time that it was asked.
    fn asked(&self) -> Vec<u32> {
        self.asked.try_iter().map(|request| request.from).collect()
    }
}

fn give(mut connection: Connection, wrong: Option<usize>, tell: &Sender<PageRequest>) -> Result<(), ConnectionError> {
    let page = large();
    loop {
        let request: PageRequest = connection.receive()?;
        tell.send(request).unwrap();
        connection.send(&PageHead { chunks: page.fingerprints().chunks().to_vec() })?;
        let data = bytes(&page);
        for (number, chunk) in data.chunks(CHUNK_BYTES).enumerate().skip(request.from as usize) {
            let mut chunk = chunk.to_vec();
            chunk[7] ^= u8::from(Some(number) == wrong);
            connection.send_bytes(&chunk)?;
        }
    }
}

/// A mover of rank 0, which has these sources for expert 1, with `faults` on the way to them; what it reports, and the page.
fn stage(secret: &Secret, sources: [SocketAddr; 2], faults: Faults) -> (Result<u64, NotStaged>, Option<Vec<u8>>) {
    let expected = large().fingerprints().page();
    let pages = RankPages::new(large_arena(), map(), HeldPages::<Cpu>::new(), 1).unwrap();
    let (reports, received) = unbounded();
    let setup = MoverSetup {
        group: GROUP,
        secret: secret.clone(),
        rank: RankId(0),
        ranks: vec![address(0, String::new()), address(1, sources[0].to_string()), address(2, sources[1].to_string())],
        pages: Arc::clone(&pages),
        near: Near::default(),
        load_page: Arc::new(|_, _, _| {
            Err(NotRead::Unreadable { reason: "no checkpoint".to_owned(), is_permanent: true })
        }),
        count_page: Arc::new(|_| {}),
        bytes_per_second: 0,
        reports,
        threads: VitalThreads::new(drop),
        faults,
    };
    let (mover, staged) = Mover::start(setup).unwrap();
    let work = Transaction { layer: LayerId(0), changes: vec![change(0, 0, 0, 1, 1)], shares: Vec::new() };
    mover.stage(TransactionId(1), (work, vec![expected]), PATIENCE);
    let FromRank::Moved(MoveReport { staged: report, .. }) = received.recv_timeout(PATIENCE).unwrap() else { panic!() };
    let page = staged.try_recv().ok().and_then(|handed| match handed {
        HandOver::Staged(_, mut new) => new.pop(),
        HandOver::Aborted(_) => None,
    });
    (report, page.map(|(_, new)| bytes(&new.commit())))
}

#[test]
fn what_one_source_has_given_right_is_not_asked_of_the_next() {
    let (secret, right) = (Secret::draw().unwrap(), bytes(&large()));
    for (wrong, faults, from) in [
        (Some(0), Faults::default(), 0),
        (Some(3), Faults::default(), 3),
        (Some(8), Faults::default(), 8),
        (None, Faults { corrupt: Some(1), ..Faults::default() }, 0),
        (None, Faults { cut: Some(1), ..Faults::default() }, 0),
    ] {
        let sources = [Source::start(&secret, wrong), Source::start(&secret, None)];
        let (report, page) = stage(&secret, [sources[0].address, sources[1].address], faults);
        assert_eq!(report, Ok(right.len() as u64), "{wrong:?}, {faults:?}");
        assert_eq!(sources.map(|source| source.asked()), [vec![0], vec![from]]);
        assert!(page.is_some_and(|page| page == right));
    }
}

#[test]
fn where_every_source_has_a_wrong_chunk_the_page_is_corrupt() {
    let secret = Secret::draw().unwrap();
    let sources = [2, 5].map(|wrong| Source::start(&secret, Some(wrong)));
    let (report, page) = stage(&secret, [sources[0].address, sources[1].address], Faults::default());
    assert_eq!(report.unwrap_err().reason, MoveFailure::Corrupt);
    assert_eq!((sources.map(|source| source.asked()), page), ([vec![0], vec![2]], None));
}

#[test]
fn a_page_is_served_from_the_chunk_that_is_asked_for() {
    let (secret, page) = (Secret::draw().unwrap(), Arc::new(large()));
    let (right, all) = (bytes(&page), page.fingerprints().chunks().to_vec());
    let arena = Arc::clone(page.arena());
    let held = HeldPages::<Cpu>::from([((LayerId(0), ExpertId(1)), page)]);
    let server = PageServer::start(TcpListener::bind("127.0.0.1:0").unwrap(), &VitalThreads::new(drop)).unwrap();
    let pages = RankPages::new(arena, map(), held, 0).unwrap();
    server.set(Some(Serving { group: GROUP, secret: secret.clone(), rank: RankId(1), ranks: 3, pages }));
    let purpose = Purpose::Moves { group: GROUP, from: RankId(0), to: RankId(1) };
    let mut connection = call(&server.address().to_string(), "rank 1", (purpose, &secret), PATIENCE).unwrap();
    for from in [0, 8, 3, 9] {
        connection.send(&PageRequest { expert: ExpertId(1), from, ..REQUEST }).unwrap();
        assert_eq!(connection.receive::<PageHead>().unwrap().chunks, all);
        let wanted = right.get(from as usize * CHUNK_BYTES..).unwrap_or_default();
        let mut found = vec![0; wanted.len()];
        connection.receive_bytes(&mut found).unwrap();
        assert_eq!(found, wanted, "from chunk {from}");
    }
}
