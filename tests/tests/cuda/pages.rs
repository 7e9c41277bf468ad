//! Pages in the memory of the GPU.

use anyhow::{Result, ensure};
use kernels::Backend;
use kernels::backend::PageShape;
use kernels::cuda::Cuda;

use crate::steps::{Case, HIDDEN, INTERMEDIATE, Numbers, gpu, networks, pages};

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

pub const CASES: &[Case] = &[("a_page_survives_the_way_to_another_rank", a_page_survives_the_way_to_another_rank)];
