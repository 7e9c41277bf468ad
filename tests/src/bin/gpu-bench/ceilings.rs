//! What there is, and what it can do at most.

use anyhow::Result;
use kernels::Backend;
use kernels::cuda::Cuda;
use kernels::cuda::measure::{Dense, Gauge, Way};
use serde_json::json;

use crate::figures::{Figures, percent, rounded};
use crate::least;

/// Gigabytes a second.
pub fn rate(bytes: usize, seconds: f64) -> f64 {
    bytes as f64 / seconds / 1e9
}

pub fn probe(figures: &Figures) -> Result<()> {
    let gpu = Cuda::new(0)?;
    let (identity, memory) = (gpu.identity(), gpu.memory()?);
    let gauge = Gauge::new(&gpu)?;
    figures.tell(
        "GPU",
        &[
            ("name", json!(identity.name)),
            ("kind", json!(identity.kind)),
            ("multiprocessors", json!(gauge.multiprocessors())),
            ("driver", json!(gauge.driver())),
            ("GB", memory.map_or(json!(null), |memory| rounded(memory.total as f64 / 1e9))),
            ("free GB", memory.map_or(json!(null), |memory| rounded(memory.free as f64 / 1e9))),
        ],
    );
    Ok(())
}

pub fn run(small: bool, figures: &Figures) -> Result<()> {
    let gpu = Cuda::new(0)?;
    let gauge = Gauge::new(&gpu)?;
    let (bytes, times) = if small { (1 << 18, 1) } else { (8 << 30, 4) };
    let mut region = gauge.region(bytes)?;
    let read = least(3, || Ok(gauge.read(&region, times)?))?;
    let read = rate(region.bytes(), read);
    figures.tell("read", &[("GB/s", rounded(read))]);
    for (what, blocks) in [("copy as the driver does", None), ("copy by a kernel", Some(8 * gauge.multiprocessors()))] {
        // Read and written.
        let seconds = (0..3)
            .try_fold(f64::INFINITY, |least, _| gauge.copy(&mut region, blocks, times).map(|one| one.min(least)))?;
        let copied = rate(region.bytes(), seconds);
        figures.tell(what, &[("GB/s", rounded(copied)), ("of read %", percent(copied, read))]);
    }
    let launch = least(3, || Ok(gauge.launch(&region, if small { 10 } else { 1000 })?))?;
    figures.tell("a launch among many", &[("us", rounded(launch * 1e6))]);
    let bytes = if small { 1 << 16 } else { 256 << 20 };
    let mut pinned = gauge.pinned(bytes)?;
    for (what, way) in [("from the host", Way::ToDevice), ("to the host", Way::ToHost)] {
        for part in [64 << 10, 1 << 20, 4 << 20, 64 << 20] {
            if part > bytes {
                break;
            }
            let carry =
                |least: f64, _| gauge.carry((way, part), &mut pinned, &mut region, times).map(|one| one.min(least));
            let seconds = (0..3).try_fold(f64::INFINITY, carry)?;
            figures.tell(what, &[("KiB each", json!(part >> 10)), ("GB/s", rounded(rate(bytes, seconds)))]);
        }
    }
    drop((region, pinned));
    dense(&gauge, small, figures)
}

/// cuBLAS, square.
fn dense(gauge: &Gauge, small: bool, figures: &Figures) -> Result<()> {
    let Some(dense) = Dense::new(gauge)? else {
        figures.tell("dense by cuBLAS", &[("not measured", json!("this machine has no libcublas.so"))]);
        return Ok(());
    };
    for size in if small { vec![64] } else { vec![2048, 4096, 8192] } {
        let teraflops = square(gauge, &dense, size)?;
        figures.tell("dense by cuBLAS", &[("size", json!(size)), ("TFLOP/s", rounded(teraflops))]);
    }
    Ok(())
}

/// Teraflops of a square product of cuBLAS.
pub fn square(gauge: &Gauge, dense: &Dense<'_>, size: usize) -> Result<f64> {
    let (weights, x) = (gauge.region(2 * size * size)?, gauge.region(2 * size * size)?);
    let mut out = gauge.region(2 * size * size)?;
    let product = |least: f64, _| {
        let seconds = dense.products(&[size], (size, size), (&weights, &x, &mut out), 20)?;
        Ok::<_, anyhow::Error>(seconds.min(least))
    };
    let seconds = (0..3).try_fold(f64::INFINITY, product)?;
    Ok(2.0 * (size as f64).powi(3) / seconds / 1e12)
}
