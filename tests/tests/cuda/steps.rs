//! A device's steps, as tests make them: numbers, weights, rows of activations, and how what two devices gave is compared.

use std::sync::Arc;

use anyhow::{Result, ensure};
use half::{bf16, f16};
use kernels::backend::{HeadShape, PageShape};
use kernels::batch::StepLimits;
use kernels::cpu::Cpu;
use kernels::cuda::Cuda;
use kernels::routing::{Copies, GroupShape, LayerRouting, Slot};
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Arena, Backend, Page, PageId, Queue, StepArea};

/// A test of what a device computes, run in a process that meets the emulated driver.
pub type Case = (&'static str, fn() -> Result<()>);

pub const HIDDEN: usize = 48;
pub const VOCABULARY: usize = 5000;
/// At least as wide as those of any of these tests.
const WIDEST: HeadShape = HeadShape { query: 8, key_value: 1, dimension: 256 };
pub const INTERMEDIATE: usize = 40;
pub const TOKENS: usize = 192;
pub const EPSILON: f32 = 1e-5;
/// How near what the GPU computes is to what the CPU does, of one or of the value where that is more.
pub const CLOSE: f32 = 1e-3;

/// Numbers in [-1, 1), the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    /// A whole number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        ((self.next().midpoint(1.0) * end as f32) as usize).min(end - 1)
    }

    pub fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub fn vec(&mut self, len: usize) -> Vec<f32> {
        (0..len).map(|_| self.next()).collect()
    }
}

/// Weights of one of the three types of checkpoints.
#[derive(Clone)]
pub enum Weights {
    Bf16(Vec<bf16>),
    F16(Vec<f16>),
    F32(Vec<f32>),
}

impl Weights {
    pub fn all(values: &[f32]) -> [Self; 3] {
        let narrow = values.iter().copied();
        [
            Self::Bf16(narrow.clone().map(bf16::from_f32).collect()),
            Self::F16(narrow.map(f16::from_f32).collect()),
            Self::F32(values.to_vec()),
        ]
    }

    pub fn values(&self) -> Values<'_> {
        match self {
            Self::Bf16(values) => Values::Bf16(values),
            Self::F16(values) => Values::F16(values),
            Self::F32(values) => Values::F32(values),
        }
    }

    pub fn view(&self, rows: usize) -> MatrixView<'_> {
        let values = self.values();
        MatrixView::new(rows, values.len() / rows, values)
    }

    pub fn kind(&self) -> WeightKind {
        if matches!(self, Self::Bf16(_)) { WeightKind::Bf16 } else { WeightKind::F32 }
    }
}

/// Steps of one rank, or one of several, on a device.
pub struct Steps<B: Backend> {
    pub backend: Arc<B>,
    pub queue: B::Queue,
    pub batch: B::Batch,
    pub slots: B::Slots,
    pub routing: B::Routing,
}

impl<B: Backend> Steps<B> {
    pub fn new(backend: &Arc<B>, group: GroupShape, layers: Vec<LayerRouting>, page: PageShape) -> Result<Self> {
        let limits = StepLimits {
            tokens: TOKENS,
            blocks: 200,
            block_tokens: 16,
            logit_rows: 64,
            vocabulary: VOCABULARY,
            hidden: HIDDEN,
            intermediate: INTERMEDIATE,
            heads: WIDEST,
        };
        let slots = backend.slots(group, layers)?;
        let (batch, routing) = (backend.batch(limits, &slots)?, backend.routing(group, page)?);
        Ok(Self { queue: backend.queue()?, backend: Arc::clone(backend), batch, slots, routing })
    }

    /// One rank that holds every expert, in order.
    pub fn alone(backend: &Arc<B>) -> Result<Self> {
        let page = PageShape { hidden: HIDDEN, intermediate: INTERMEDIATE, kind: WeightKind::F32 };
        let copies = Copies { starts: vec![0, 1], slots: vec![Slot { rank: 0, index: 0 }], bounds: vec![0] };
        let group = GroupShape { ranks: 1, rank: 0, layers: 1, slots: 1, top_k: 1, tokens: TOKENS };
        Self::new(backend, group, vec![LayerRouting { layer: 0, copies, pages: vec![PageId(0)] }], page)
    }

    pub fn upload(&mut self, area: &StepArea) {
        self.queue.upload(area, &mut self.batch, &mut self.slots);
        self.queue.begin(&mut self.batch, &mut self.slots);
    }

    pub fn collect(&mut self) -> Result<()> {
        self.queue.finish(&mut self.batch, &mut self.slots);
        self.queue.collect(&self.batch, &self.slots)?;
        Ok(())
    }

    pub fn filled(&self, values: &[f32]) -> Result<B::Buffer<f32>> {
        Ok(self.backend.filled(values)?)
    }

    /// Room for the results of most of these tests; what is not written shows.
    pub fn room(&self) -> Result<B::Buffer<f32>> {
        self.room_for(1 << 17)
    }

    fn room_for(&self, elements: usize) -> Result<B::Buffer<f32>> {
        Ok(self.backend.filled(&vec![f32::NAN; elements])?)
    }

    /// A table of these rows, one for each token.
    pub fn table(&self, rows: &[f32], width: usize) -> Result<B::Lookup> {
        // One that nobody looks up where there would be none.
        let (none, count) = (vec![0.0; width], (rows.len() / width).max(1));
        let rows = if rows.is_empty() { &none } else { rows };
        Ok(self.backend.lookup(MatrixView::new(count, width, Values::F32(rows)))?)
    }

    /// Rows of activations: those of the tokens of the step, as an embedding gives them.
    pub fn rows(&self, rows: &[f32], width: usize) -> Result<B::Buffer<f32>> {
        let mut out = self.room_for(rows.len().max(1 << 17))?;
        self.queue.embed(&self.table(rows, width)?, &self.batch, &mut out);
        Ok(out)
    }
}

/// A step of so many tokens, numbered from 0, each with one sequence.
pub fn tokens(count: usize) -> StepArea {
    let mut area = StepArea::default();
    for token in 0..count {
        area.push(token as u32, 0, &[token as u32], &[token as u32]);
    }
    area
}

/// Whether values are equal but for `tolerance`, of the larger of 1 and themselves.
pub fn close(what: &str, expected: &[f32], found: &[f32], tolerance: f32) -> Result<()> {
    ensure!(expected.len() == found.len(), "{what}: {} values instead of {}", found.len(), expected.len());
    for (index, (expected, found)) in expected.iter().zip(found).enumerate() {
        let difference = (found - expected).abs();
        ensure!(
            difference <= tolerance * expected.abs().max(1.0),
            "{what}: value {index} is {found} instead of {expected}"
        );
    }
    Ok(())
}

/// Tells the bits of what the GPU gave, which must be the same with every seed of the driver.
pub fn tell(what: &str, found: &[f32]) {
    let bits =
        found.iter().fold(0_u64, |bits, value| (bits ^ u64::from(value.to_bits())).wrapping_mul(0x0100_0000_01B3));
    println!("{what}: {bits:016x}");
}

/// Whether values are the same bits.
pub fn same_bits(what: &str, expected: &[f32], found: &[f32]) -> Result<()> {
    let differ = expected.iter().zip(found).filter(|(a, b)| a.to_bits() != b.to_bits()).count();
    ensure!(differ == 0 && expected.len() == found.len(), "{what}: {differ} of {} values differ", expected.len());
    Ok(())
}

/// Gives the CPU and the GPU the same case, and compares.
pub fn both(
    what: &str,
    tolerance: f32,
    specified: impl FnOnce(&mut Steps<Cpu>) -> Result<Vec<f32>>,
    computed: impl FnOnce(&mut Steps<Cuda>) -> Result<Vec<f32>>,
    gpu: &Arc<Cuda>,
) -> Result<()> {
    let expected = specified(&mut Steps::alone(&Arc::new(Cpu::new(1)))?)?;
    let mut on_device = Steps::alone(gpu)?;
    let found = computed(&mut on_device)?;
    on_device.collect()?;
    tell(what, &found);
    close(what, &expected, &found, tolerance)
}

/// The same for a case that is generic over the device.
macro_rules! compared {
    ($gpu:expr, $what:expr, $tolerance:expr, $case:ident($($argument:expr),*)) => {
        $crate::steps::both($what, $tolerance, |steps| $case(steps, $($argument),*), |steps| $case(steps, $($argument),*), $gpu)?
    };
}
pub(crate) use compared;

pub fn gpu() -> Result<Arc<Cuda>> {
    Ok(Arc::new(Cuda::new(0)?.with_fingerprint_seed(7)))
}

/// The same, and with the products of any chip, where those that the GPU alone has give other bits.
pub fn gpus() -> Result<[Arc<Cuda>; 2]> {
    let gpu = gpu()?;
    let plain = Arc::new(Cuda::clone(&gpu).without_tensor_maps());
    Ok([gpu, plain])
}

/// Pages of these networks, in order.
pub fn pages<B: Backend>(backend: &Arc<B>, shape: PageShape, networks: &[[Weights; 3]]) -> Result<Vec<Page<B>>> {
    let arena = Arena::new(Arc::clone(backend), shape)?;
    let network = |[gate, up, down]: &[Weights; 3]| {
        let mut page = arena.take()?;
        page.pack(gate.view(shape.intermediate), up.view(shape.intermediate), down.view(shape.hidden))?;
        Ok(page)
    };
    networks.iter().map(network).collect()
}

/// Networks of the `kind`-th kind of weights.
pub fn networks(numbers: &mut Numbers, count: usize, kind: usize) -> Vec<[Weights; 3]> {
    networks_of(numbers, (HIDDEN, INTERMEDIATE), count, kind)
}

/// The same of these widths.
pub fn networks_of(
    numbers: &mut Numbers,
    (hidden, intermediate): (usize, usize),
    count: usize,
    kind: usize,
) -> Vec<[Weights; 3]> {
    // As large as those of a model, which keep the size of what goes through them.
    let mut one = || {
        let values: Vec<f32> = numbers.vec(hidden * intermediate).iter().map(|value| value / 4.0).collect();
        Weights::all(&values).into_iter().nth(kind).expect("three kinds")
    };
    (0..count).map(|_| [one(), one(), one()]).collect()
}
