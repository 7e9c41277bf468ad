//! Pages in the memory of the GPU.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use kernels::backend::{PageShape, Write};
use kernels::cuda::Cuda;
use kernels::drawn::Drawn;
use kernels::fingerprint::{CHUNK_BYTES, Fingerprints, chunks_of};
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Arena, Backend, Page, Queue as _};

use crate::steps::{Case, HIDDEN, INTERMEDIATE, Numbers, Steps, Weights, gpu, networks, pages, same_bits, tokens};

fn a_page_survives_the_way_to_another_rank() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(9));
    for kind in 0..3 {
        let network = networks(&mut numbers, 1, kind);
        let shape = PageShape { hidden: HIDDEN, intermediate: INTERMEDIATE, kind: network[0][0].kind() };
        let page = pages(&gpu, shape, &network)?.remove(0);
        let mut bytes = vec![0; Cuda::page_bytes(shape)];
        for (index, part) in bytes.chunks_mut(700).enumerate() {
            page.read(700 * index, part)?;
        }
        ensure!(page.fingerprints() == &gpu.fingerprinter().of(&bytes), "the device's fingerprints are the host's");
        let mut copy = page.arena().take()?;
        for (index, part) in bytes.chunks(1000).enumerate() {
            copy.fill(1000 * index, part)?;
        }
        let mut again = vec![0; bytes.len()];
        copy.read(0, &mut again)?;
        ensure!(again == bytes, "what was filled is what was read");
    }
    Ok(())
}

/// Copies of pages out of the memory of another GPU, and of the same one, in parts of any length; also of pages that got memory only after
/// the way between the two was opened.
fn a_page_is_pulled_out_of_the_memory_of_another_gpu() -> Result<()> {
    let (shape, mut numbers) = (PageShape { hidden: 64, intermediate: 400, kind: WeightKind::F32 }, Numbers(5));
    let bytes = Cuda::page_bytes(shape);
    ensure!(chunks_of(bytes) == 5 && !bytes.is_multiple_of(CHUNK_BYTES), "a page of {bytes} bytes");
    let mut page = |arena: &Arc<Arena<Cuda>>| -> Result<Page<Cuda>> {
        let mut page = arena.take()?;
        let values = numbers.vec(shape.hidden * shape.intermediate);
        let view = |rows| MatrixView::new(rows, values.len() / rows, Values::F32(&values));
        page.pack(view(shape.intermediate), view(shape.intermediate), view(shape.hidden))?;
        Ok(page)
    };
    let last = kernels::cuda::devices()? - 1;
    for other in [0, last.min(1)] {
        let of_gpu = |number| Arena::new(Arc::new(Cuda::new(number)?.with_fingerprint_seed(7)), shape);
        let (own, theirs) = (of_gpu(0)?, of_gpu(other)?);
        let before = page(&theirs)?;
        theirs.open_to(&own)?;
        theirs.open_to(&own)?;
        let mut sources = vec![before];
        // Memory comes in pieces that hold several.
        for _ in 0..10 {
            sources.push(page(&theirs)?);
        }
        for (index, source) in sources.iter().enumerate().filter(|(index, _)| [0, 1, 10].contains(index)) {
            let (mut copy, mut found) = (own.take()?, Vec::new());
            for start in (0..bytes).step_by(CHUNK_BYTES * (1 + index)) {
                found.extend(copy.pull(source, start..bytes.min(start + CHUNK_BYTES * (1 + index)))?);
            }
            ensure!(found == source.fingerprints().chunks(), "the fingerprints of what was copied from GPU {other}");
            let [mut expected, mut copied] = [vec![0; bytes], vec![0; bytes]];
            source.read(0, &mut expected)?;
            copy.read(0, &mut copied)?;
            ensure!(expected == copied, "what was copied from GPU {other} is what was there");
        }
    }
    Ok(())
}

/// What is drawn on the device is what the host would have brought there, whose values are the specification.
fn what_is_drawn_on_the_gpu_is_the_hosts_to_the_bit() -> Result<()> {
    let gpu = gpu()?;
    for kind in [WeightKind::Bf16, WeightKind::F32] {
        let shape = PageShape { hidden: HIDDEN, intermediate: INTERMEDIATE, kind };
        let size = HIDDEN * INTERMEDIATE;
        let parts = ["gate", "up", "down"].map(|name| [Drawn::new(11, name, 3 * size, (0.5, 0.25)).part(size, size)]);
        let drawn = [0, 1, 2].map(|index| Values::Drawn { kind, parts: &parts[index] });
        let stored = drawn.map(as_read);
        let arena = Arena::new(Arc::clone(&gpu), shape)?;
        let page = |values: [Values<'_>; 3]| -> Result<(Vec<u8>, Fingerprints)> {
            let mut page = arena.take()?;
            // What was there before is overwritten to the last byte.
            page.fill(0, &vec![0xa5; Cuda::page_bytes(shape)])?;
            let [gate, up, down] = values;
            page.pack(
                MatrixView::new(INTERMEDIATE, HIDDEN, gate),
                MatrixView::new(INTERMEDIATE, HIDDEN, up),
                MatrixView::new(HIDDEN, INTERMEDIATE, down),
            )?;
            let mut bytes = vec![0; Cuda::page_bytes(shape)];
            page.read(0, &mut bytes)?;
            Ok((bytes, page.fingerprints().clone()))
        };
        let read = [0, 1, 2].map(|index| stored[index].values());
        ensure!(page(drawn)? == page(read)?, "{kind:?}: a drawn page is another");
        // A matrix of several tensors, as the projections of attention are, and a table.
        let parts = [Drawn::new(12, "query", 24 * HIDDEN, (0.0, 0.2)), Drawn::new(12, "key", 5 * HIDDEN, (0.0, 0.2))];
        let drawn = Values::Drawn { kind, parts: &parts };
        let stored = as_read(drawn);
        let results = |values: Values<'_>| -> Result<[Vec<f32>; 2]> {
            let view = MatrixView::new(29, HIDDEN, values);
            let mut steps = Steps::alone(&gpu)?;
            steps.upload(&tokens(29));
            let (mut rows, mut out) = (steps.room()?, steps.room()?);
            steps.queue.embed(&gpu.lookup(view)?, &steps.batch, &mut rows);
            steps.queue.matmul(&rows, &gpu.matrix(view, None)?, Write::Replace, &mut out);
            let found = [steps.queue.read(&rows).to_vec(), steps.queue.read(&out).to_vec()];
            steps.collect()?;
            Ok(found)
        };
        let ([rows, out], [drawn_rows, drawn_out]) = (results(stored.values())?, results(drawn)?);
        same_bits("a drawn table", &rows, &drawn_rows)?;
        same_bits("a product by a drawn matrix", &out, &drawn_out)?;
        ensure!(
            rows.iter().all(|value| value.is_finite()) && rows[0].to_bits() != rows[1].to_bits(),
            "values are drawn"
        );
    }
    Ok(())
}

/// The values of what is drawn, as they would have been read.
fn as_read(drawn: Values<'_>) -> Weights {
    let values: Vec<f32> = (0..drawn.len()).map(|index| drawn.get(index)).collect();
    let [narrow, _, wide] = Weights::all(&values);
    if drawn.kind() == WeightKind::Bf16 { narrow } else { wide }
}

/// Moves may take a hundredth of it.
fn how_fast_memory_is_can_be_measured_and_takes_none_of_it() -> Result<()> {
    let gpu = gpu()?;
    let free = || -> Result<u64> { Ok(gpu.memory()?.context("a GPU has memory of its own")?.free) };
    let before = free()?;
    let measured = gpu.bandwidth()?.context("a GPU's memory has a speed")?;
    // A bus of a GPU that is served moves more than 100 MB a second, and none will move a petabyte.
    ensure!((1e8..1e15).contains(&measured), "{measured} bytes a second");
    ensure!(free()? == before, "{} bytes free of {before}", free()?);
    Ok(())
}

pub const CASES: &[Case] = &[
    ("a_page_survives_the_way_to_another_rank", a_page_survives_the_way_to_another_rank),
    (
        "how_fast_memory_is_can_be_measured_and_takes_none_of_it",
        how_fast_memory_is_can_be_measured_and_takes_none_of_it,
    ),
    ("a_page_is_pulled_out_of_the_memory_of_another_gpu", a_page_is_pulled_out_of_the_memory_of_another_gpu),
    ("what_is_drawn_on_the_gpu_is_the_hosts_to_the_bit", what_is_drawn_on_the_gpu_is_the_hosts_to_the_bit),
];
