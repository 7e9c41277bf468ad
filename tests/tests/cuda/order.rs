//! What the host waits for before it frees, writes or reads what the device uses, however late that is; and what it says where the driver
//! refuses it something.

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use kernels::backend::{PageShape, RouterShape};
use kernels::cuda::{Cuda, CudaQueue};
use kernels::link::{Link, LinkShape, Lost};
use kernels::queue::Arrived;
use kernels::routing::{Copies, GroupShape, LayerRouting, Pair, Slot};
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Arena, Backend, DeviceError, PageId, Queue as _, StepArea};

use crate::cases::ToldCase;
use crate::steps::{Case, HIDDEN, INTERMEDIATE, Numbers, Steps, TOKENS, gpu, networks, pages, same_bits, tokens};

const PAGE: PageShape = PageShape { hidden: HIDDEN, intermediate: INTERMEDIATE, kind: WeightKind::F32 };

/// A step of every token, and the rows of a table that it looks up.
fn looked_up(steps: &mut Steps<Cuda>) -> Result<(<Cuda as Backend>::Lookup, <Cuda as Backend>::Buffer<f32>)> {
    let rows = Numbers(3).vec(TOKENS * HIDDEN);
    let (table, mut out) = (steps.table(&rows, HIDDEN)?, steps.room()?);
    steps.upload(&tokens(TOKENS));
    steps.queue.embed(&table, &steps.batch, &mut out);
    Ok((table, out))
}

fn memory_is_freed_when_nothing_uses_it() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(4));
    // What an operation writes.
    let mut steps = Steps::alone(&gpu)?;
    drop(looked_up(&mut steps)?.1);
    steps.collect()?;
    // The pages that it reads.
    let page = pages(&gpu, PAGE, &networks(&mut numbers, 1, 2))?.remove(0);
    let (_table, x) = looked_up(&mut steps)?;
    let mut out = steps.filled(&vec![0.0; TOKENS * HIDDEN])?;
    steps.queue.rms_norm(&x, &steps.filled(&[1.0; HIDDEN])?, 1e-5, &mut out);
    steps.queue.feed_forward(page.weights(), &x, &mut out);
    drop(page);
    steps.collect()
}

/// Two ranks, of which this one has no expert and one row has come.
fn what_a_queue_brings_is_freed_when_it_is_there() -> Result<()> {
    let gpu = gpu()?;
    let copies = Copies { starts: vec![0, 1], slots: vec![Slot { rank: 0, index: 0 }], bounds: vec![0] };
    let group = GroupShape { ranks: 2, rank: 0, layers: 1, slots: 1, top_k: 1, tokens: TOKENS };
    let mut x = gpu.buffer(group.rows() * HIDDEN)?;
    let table = gpu.lookup(MatrixView::new(1, HIDDEN, Values::F32(&[0.0; HIDDEN])))?;
    let mut steps = Steps::new(&gpu, group, vec![LayerRouting { layer: 0, copies, pages: vec![PageId(0)] }], PAGE)?;
    steps.upload(&StepArea::default());
    steps.queue.embed(&table, &steps.batch, &mut x);
    let Steps { queue, batch, slots, mut routing, .. } = steps;
    queue.choose(&batch, &slots, 0, &mut routing);
    ensure!(queue.leaving(&routing, &x).destinations.is_empty(), "no row leaves");
    let values = Numbers(5).vec(TOKENS * HIDDEN);
    let pairs: Vec<Pair> = (0..TOKENS as u32).map(|row| Pair { slot: 0, row }).collect();
    queue.arrive(&mut routing, Arrived { width: HIDDEN, values: &values, pairs: &pairs }, &mut x);
    drop(queue);
    same_bits("rows that came", &values, &gpu.queue()?.read(&x))
}

fn kernels_are_unloaded_when_none_runs() -> Result<()> {
    let gpu = gpu()?;
    let mut steps = Steps::alone(&gpu)?;
    let (table, out) = looked_up(&mut steps)?;
    let Steps { backend, queue, batch, slots, routing } = steps;
    drop((gpu, backend));
    // The last that knows of them.
    drop(queue);
    drop((table, out, batch, slots, routing));
    let mut again = Steps::alone(&crate::steps::gpu()?)?;
    again.upload(&tokens(1));
    again.collect()
}

fn a_step_is_brought_when_the_one_before_was_read() -> Result<()> {
    let gpu = gpu()?;
    let (mut steps, rows) = (Steps::alone(&gpu)?, Numbers(3).vec(TOKENS * HIDDEN));
    let mut other = StepArea::default();
    for token in 0..TOKENS as u32 {
        other.push(token, 0, &[TOKENS as u32 - 1 - token], &[token]);
    }
    for _ in 0..8 {
        let mut turned = steps.room()?;
        let (table, out) = looked_up(&mut steps)?;
        // Nobody asks how that one ended.
        steps.upload(&other);
        steps.queue.embed(&table, &steps.batch, &mut turned);
        let found = [steps.queue.read(&out).into_owned(), steps.queue.read(&turned).into_owned()];
        same_bits("the step before", &rows, &found[0])?;
        let backwards: Vec<f32> = rows.chunks(HIDDEN).rev().flatten().copied().collect();
        same_bits("the step after", &backwards, &found[1])?;
        steps.collect()?;
    }
    Ok(())
}

fn a_page_is_written_again_when_the_mark_of_its_last_reader_has_passed() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(6));
    let mut steps = Steps::alone(&gpu)?;
    let mut page = pages(&gpu, PAGE, &networks(&mut numbers, 1, 2))?.remove(0);
    let bytes = vec![0; Cuda::page_bytes(PAGE)];
    for _ in 0..4 {
        let (_table, x) = looked_up(&mut steps)?;
        let (table, mut out) = (steps.table(&vec![0.0; TOKENS * HIDDEN], HIDDEN)?, steps.room()?);
        steps.queue.embed(&table, &steps.batch, &mut out);
        steps.queue.feed_forward(page.weights(), &x, &mut out);
        let mark = steps.queue.mark();
        while !gpu.has_passed(&mark) {
            std::thread::yield_now();
        }
        page.fill(0, &bytes)?;
        steps.collect()?;
    }
    Ok(())
}

/// More chunks than the kernel's blocks have at a time, and more parts than a lane has stages.
fn a_page_larger_than_all_that_is_done_at_once_is_whole() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(8));
    let shape = PageShape { hidden: 1024, intermediate: 1384, kind: WeightKind::F32 };
    let bytes: Vec<u8> = (0..Cuda::page_bytes(shape) / 4).flat_map(|_| numbers.next().to_le_bytes()).collect();
    ensure!(bytes.len() > 256 * kernels::fingerprint::CHUNK_BYTES, "a page of {} bytes", bytes.len());
    let arena = Arena::new(Arc::clone(&gpu), shape)?;
    let mut page = arena.take()?;
    page.fill(0, &bytes)?;
    let (pages, number) = page.weights();
    let found = gpu.fingerprints(pages, number)?;
    ensure!(found == gpu.fingerprinter().of(&bytes), "the device's fingerprints are the host's");
    let mut again = vec![0; bytes.len()];
    page.read(0, &mut again)?;
    ensure!(again == bytes, "what was filled is what was read");
    Ok(())
}

/// What a kernel met that the host did not refuse: the step's collection says it in words, and the next one goes on.
fn what_a_kernel_meets_is_said_in_words() -> Result<()> {
    let gpu = gpu()?;
    let mut steps = Steps::alone(&gpu)?;
    let rows = vec![1.0; 3 * HIDDEN];
    let table = gpu.lookup(MatrixView::new(3, HIDDEN, Values::F32(&rows)))?;
    for (count, said) in [(5, Some("the device failed: a token is not in the vocabulary")), (3, None)] {
        steps.upload(&tokens(count));
        let mut out = steps.room()?;
        steps.queue.embed(&table, &steps.batch, &mut out);
        let found = steps.collect().err().map(|error| error.to_string());
        ensure!(found.as_deref() == said, "{count} tokens of a vocabulary of 3: {found:?}");
    }
    Ok(())
}

/// Nobody waits long for the second of two ranks, which never comes.
fn a_rank_that_does_not_come_is_said_in_words() -> Result<()> {
    let gpu = gpu()?;
    let linking = gpu.linking().context("GPUs have links")?;
    let shape = |rank| LinkShape {
        group: GroupShape { ranks: 2, rank, layers: 1, slots: 1, top_k: 1, tokens: TOKENS },
        page: PAGE,
    };
    let windows = [linking.window(shape(0))?, linking.window(shape(1))?];
    let (copies, group) =
        (Copies { starts: vec![0, 1], slots: vec![Slot { rank: 0, index: 0 }], bounds: vec![0] }, shape(0).group);
    let mut x = gpu.buffer(group.rows() * HIDDEN)?;
    let table = gpu.lookup(MatrixView::new(1, HIDDEN, Values::F32(&[0.0; HIDDEN])))?;
    let mut steps = Steps::new(&gpu, group, vec![LayerRouting { layer: 0, copies, pages: vec![PageId(0)] }], PAGE)?;
    // The last that is made: its kernels meet what was made zero for them.
    let link = linking.link(&windows, shape(0), Duration::ZERO)?;
    steps.upload(&StepArea::default());
    steps.queue.embed(&table, &steps.batch, &mut x);
    steps.queue.choose(&steps.batch, &steps.slots, 0, &mut steps.routing);
    link.begin(0);
    link.dispatch(&steps.queue, &mut steps.routing, &x);
    let said = steps.collect().err().map(|error| error.to_string());
    ensure!(said.as_deref() == Some("the device failed: another rank gave no rows in time"), "{said:?}");
    ensure!(link.end() == Err(Lost::Late { rank: Some(1) }), "{:?}", link.end());
    Ok(())
}

/// A queue takes so many operations, after which whoever launches more keeps all others from the GPU: a rank that is layers ahead of the one
/// that it waits for on the same GPU waits before that.
fn a_rank_that_is_ahead_on_a_shared_gpu_keeps_the_other_from_nothing() -> Result<()> {
    const LAYERS: usize = 60;
    const EXPERTS: u32 = 8;
    let gpus: Vec<Arc<Cuda>> = (0..2).map(|_| gpu()).collect::<Result<_>>()?;
    let group = |rank| GroupShape { ranks: 2, rank, layers: 1, slots: 4, top_k: 1, tokens: 4 };
    let shape = |rank| LinkShape { group: group(rank), page: PAGE };
    let windows: Vec<_> = gpus
        .iter()
        .enumerate()
        .map(|(rank, gpu)| Ok(gpu.linking().context("GPUs have links")?.window(shape(rank))?))
        .collect::<Result<_>>()?;
    let (has_put, ahead) = mpsc::channel();
    let rank = |rank: usize, mut put: Option<Sender<()>>, ahead: Option<Receiver<()>>| -> Result<()> {
        let gpu = &gpus[rank];
        let slots = (0..EXPERTS).map(|expert| Slot { rank: expert / 4, index: expert % 4 }).collect();
        let copies = Copies { starts: (0..=EXPERTS).collect(), slots, bounds: vec![0; EXPERTS as usize] };
        let layer = LayerRouting { layer: 0, copies, pages: (0..4).map(PageId).collect() };
        let mut steps = Steps::new(gpu, group(rank), vec![layer], PAGE)?;
        let mut numbers = Numbers(7);
        let logits = steps.table(&numbers.vec(4 * EXPERTS as usize), EXPERTS as usize)?;
        let x = steps.table(&numbers.vec(4 * HIDDEN), HIDDEN)?;
        steps.upload(&tokens(4));
        let (mut scores, mut rows) = (steps.room()?, gpu.buffer(group(rank).rows() * HIDDEN)?);
        steps.queue.embed(&logits, &steps.batch, &mut scores);
        steps.queue.embed(&x, &steps.batch, &mut rows);
        let results = gpu.filled(&vec![0.0; group(rank).results() * HIDDEN])?;
        // The last that is made: its kernels meet what was made zero for them.
        let link = gpu.linking().context("GPUs have links")?.link(&windows, shape(rank), Duration::from_secs(8))?;
        let Steps { queue, batch, slots, routing, .. } = &mut steps;
        queue.route(&scores, RouterShape { experts: EXPERTS as usize, top_k: 1, normalise: true }, routing);
        link.begin(4);
        // The second begins when the first has as much before it as it puts there at once.
        ahead.map_or(Ok(()), |ahead| ahead.recv()).context("the other rank")?;
        for index in 0..LAYERS {
            if index == 7 {
                put.take().map_or(Ok(()), |put| put.send(()))?;
            }
            exchanged(&*link, queue, (batch, slots, routing), (&rows, &results));
        }
        steps.collect()?;
        link.end().map_err(|lost| anyhow!("{lost:?}"))
    };
    std::thread::scope(|scope| {
        let rank = &rank;
        let threads =
            [scope.spawn(move || rank(0, Some(has_put), None)), scope.spawn(move || rank(1, None, Some(ahead)))];
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow!("a rank panicked"))?)
    })
}

/// A layer whose experts are nobody's to compute.
fn exchanged(
    link: &dyn Link<Cuda>,
    queue: &CudaQueue,
    (batch, slots, routing): (
        &<Cuda as Backend>::Batch,
        &mut <Cuda as Backend>::Slots,
        &mut <Cuda as Backend>::Routing,
    ),
    (rows, results): (&<Cuda as Backend>::Buffer<f32>, &<Cuda as Backend>::Buffer<f32>),
) {
    queue.choose(batch, slots, 0, routing);
    link.dispatch(queue, routing, rows);
    queue.sort(slots, 0, routing);
    link.combine(queue, routing, results);
}

fn a_gpu_that_cannot_be_opened_is_refused_in_words() -> Result<()> {
    for said in [
        "GPU 0 cannot be used: could not open it: CUDA_ERROR_DEVICE_UNAVAILABLE (CUDA-capable device(s) is/are busy or unavailable)",
        "GPU 0 cannot be used: the device does not give 1048576 bytes of memory",
    ] {
        let error = Cuda::new(0).err().context("a GPU that is refused")?.to_string();
        ensure!(error.starts_with(said) && error.ends_with("or use --backend cpu"), "{error}");
    }
    Cuda::new(0)?;
    Ok(())
}

fn what_no_link_can_be_with_is_said_in_words() -> Result<()> {
    let gpu = gpu()?;
    let linking = gpu.linking().context("GPUs have links")?;
    for (found, said) in [
        (linking.reach(&gpu), "with CUDA_LAUNCH_BLOCKING no rank can launch anything while a GPU waits for another"),
        (linking.collective(), "NCCL is 2.10, and 2.28 is needed"),
    ] {
        let Err(DeviceError::Unusable { reason }) = found else { return Err(anyhow!("{found:?}")) };
        ensure!(reason == said, "{reason}");
    }
    Ok(())
}

/// The tests of this file.
pub const CASES: &[Case] = &[
    ("memory_is_freed_when_nothing_uses_it", memory_is_freed_when_nothing_uses_it),
    ("what_a_queue_brings_is_freed_when_it_is_there", what_a_queue_brings_is_freed_when_it_is_there),
    ("kernels_are_unloaded_when_none_runs", kernels_are_unloaded_when_none_runs),
    ("a_step_is_brought_when_the_one_before_was_read", a_step_is_brought_when_the_one_before_was_read),
    (
        "a_page_is_written_again_when_the_mark_of_its_last_reader_has_passed",
        a_page_is_written_again_when_the_mark_of_its_last_reader_has_passed,
    ),
    ("what_a_kernel_meets_is_said_in_words", what_a_kernel_meets_is_said_in_words),
    ("a_rank_that_does_not_come_is_said_in_words", a_rank_that_does_not_come_is_said_in_words),
    ("a_page_larger_than_all_that_is_done_at_once_is_whole", a_page_larger_than_all_that_is_done_at_once_is_whole),
];

/// Those of what the driver is told.
pub const TOLD: &[ToldCase] = &[
    (
        "a_rank_that_is_ahead_on_a_shared_gpu_keeps_the_other_from_nothing",
        &[("CUDA_MODEL_QUEUED", "100")],
        a_rank_that_is_ahead_on_a_shared_gpu_keeps_the_other_from_nothing,
    ),
    (
        "a_gpu_that_cannot_be_opened_is_refused_in_words",
        &[("CUDA_MODEL_FAULTS", "open@1,pinned@1")],
        a_gpu_that_cannot_be_opened_is_refused_in_words,
    ),
    (
        "what_no_link_can_be_with_is_said_in_words",
        &[("CUDA_LAUNCH_BLOCKING", "1"), ("CUDA_MODEL_NCCL", "21000")],
        what_no_link_can_be_with_is_said_in_words,
    ),
];
