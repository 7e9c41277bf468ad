//! The load matrices that `tests/bench/plan/loads.py` writes and whose digests it checks.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use plan::load::ExpertLoad;

/// Counts of one window, `[layers][experts]`.
pub type Window = Vec<Vec<u64>>;

/// The folder of the loads.
pub struct Loads(PathBuf);

impl Loads {
    pub const fn new(folder: PathBuf) -> Self {
        Self(folder)
    }

    /// Whether the recorded matrices, which are not part of the repository, are there.
    pub fn has_recorded(&self) -> bool {
        self.0.join("dsv3/realdrift50.npy").exists()
    }

    /// The windows of a family of a model; one for families that are no sequence.
    pub fn windows(&self, model: &str, family: &str) -> Result<Vec<Window>> {
        let path = self.0.join(model).join(format!("{family}.npy"));
        let (shape, counts) = read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        let (windows, layers, experts) = match shape[..] {
            [layers, experts] => (1, layers, experts),
            [windows, layers, experts] => (windows, layers, experts),
            _ => bail!("{} has {} dimensions", path.display(), shape.len()),
        };
        ensure!(counts.len() == windows * layers * experts, "{} is cut short", path.display());
        let rows: Vec<Vec<u64>> = counts.chunks_exact(experts).map(<[u64]>::to_vec).collect();
        Ok(rows.chunks_exact(layers).map(<[Vec<u64>]>::to_vec).collect())
    }

    /// The one window of a family that is no sequence.
    pub fn window(&self, model: &str, family: &str) -> Result<Window> {
        self.windows(model, family)?.pop().context("a family has a window")
    }
}

/// As the planner takes them.
pub fn expert_loads(windows: &[Window]) -> Vec<ExpertLoad> {
    let load = |window: &Window| ExpertLoad::from_rows(window).expect("layers of a window have equally many experts");
    windows.iter().map(load).collect()
}

/// The sum of windows of one model.
pub fn sum(windows: &[Window]) -> Window {
    let mut total = windows[0].clone();
    for window in &windows[1..] {
        for (totals, counts) in total.iter_mut().zip(window) {
            for (total, count) in totals.iter_mut().zip(counts) {
                *total += count;
            }
        }
    }
    total
}

/// Shape and elements of a `NumPy` file of little-endian unsigned 32-bit integers in C order.
fn read(path: &Path) -> Result<(Vec<usize>, Vec<u64>)> {
    let bytes = std::fs::read(path)?;
    ensure!(bytes.starts_with(b"\x93NUMPY\x01\x00"), "it is no NumPy file of format 1.0");
    let header_length = usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let (header, data) = bytes[10..].split_at(header_length);
    let header = std::str::from_utf8(header)?;
    ensure!(
        header.contains("'<u4'") && header.contains("'fortran_order': False"),
        "its elements are not <u4 in C order"
    );
    let shape =
        header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).context("it has no shape")?.0;
    let shape = shape.split(',').map(str::trim).filter(|part| !part.is_empty());
    let shape = shape.map(|part| Ok(part.parse()?)).collect::<Result<_>>()?;
    let elements = data.chunks_exact(4).map(|b| u64::from(u32::from_le_bytes([b[0], b[1], b[2], b[3]])));
    Ok((shape, elements.collect()))
}

/// A window with the popularities of another, counted anew: each count is off by about the root of it.
pub fn counted(window: &[Vec<u64>], seed: u64) -> Window {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut unit = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    let mut count = |&tokens: &u64| {
        let normal = (0..12).map(|_| unit()).sum::<f64>() - 6.0;
        (tokens as f64 + normal * (tokens as f64).sqrt()).max(0.0).round() as u64
    };
    window.iter().map(|row| row.iter().map(&mut count).collect()).collect()
}
