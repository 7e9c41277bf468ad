//! What other planners reach on the same loads, measured on a machine of two shared cores like the one that docs/planner.md
//! names. The peers: DeepSeek's EPLB (d52c72d), vLLM 0.33.0, `SGLang` 0.5.23, vLLM-Ascend 182b75e (Default, Swift, `FlashLB`).
//! `reference` is a plain local search after longest-first packing, compiled, from scratch.

/// Excess of the busiest rank over the lower bound in per cent, mean over layers and families.
pub struct Quality {
    /// The planner with the least excess among those that plan every load.
    pub best: (&'static str, f64),
    pub vllm: f64,
    pub reference: Option<f64>,
}

/// Processor milliseconds for a plan of all layers of `logn10`.
pub struct Time {
    pub fastest: (&'static str, f64),
    pub vllm: f64,
    pub flashlb: f64,
    pub reference: Option<f64>,
}

type Both = (Quality, Option<Quality>);

const fn quality(best: (&'static str, f64), vllm: f64, reference: f64) -> Quality {
    Quality { best, vllm, reference: Some(reference) }
}

const fn time(fastest: (&'static str, f64), vllm: f64, flashlb: f64, reference: f64) -> Time {
    Time { fastest, vllm, flashlb, reference: Some(reference) }
}

pub const DSV3_32: Both = (quality(("flashlb", 0.51), 0.78, 0.02), Some(quality(("flashlb", 0.48), 0.66, 0.02)));
pub const DSV3_64: Both = (quality(("flashlb", 2.68), 3.02, 0.69), Some(quality(("flashlb", 1.38), 1.85, 0.10)));
pub const DSV3_72: Both = (quality(("flashlb", 3.02), 3.26, 1.56), Some(quality(("flashlb", 1.53), 2.33, 0.29)));
pub const DSV3_144: Both = (quality(("flashlb", 5.86), 5.88, 5.88), Some(quality(("vllm", 7.47), 7.47, 7.47)));
pub const QWEN235_16: Both = (quality(("flashlb", 0.28), 0.49, 0.03), None);
pub const QWEN30_8A: Both = (quality(("flashlb", 0.09), 0.46, 0.00), None);
pub const QWEN30_8B: Both = (quality(("vllm", 0.10), 0.10, 0.00), None);
pub const KIMI_32: Both = (quality(("flashlb", 0.32), 0.90, 0.07), None);
pub const KIMI_64: Both = (quality(("flashlb", 1.58), 1.92, 0.45), None);
pub const KIMI_128: Both = (quality(("flashlb", 4.31), 5.07, 0.79), None);
pub const STRESS_512: Both = (Quality { best: ("flashlb", 12.4), vllm: 12.8, reference: None }, None);

pub const DSV3_32_TIME: Time = time(("sglang-vec", 21.0), 102.0, 910.0, 48.0);
pub const DSV3_64_TIME: Time = time(("sglang-vec", 43.0), 132.0, 1603.0, 89.0);
pub const DSV3_72_TIME: Time = time(("sglang-vec", 22.0), 101.0, 1780.0, 51.0);
pub const DSV3_144_TIME: Time = time(("sglang-vec", 23.0), 109.0, 1679.0, 11.0);
pub const QWEN235_16_TIME: Time = time(("sglang-vec", 8.4), 70.0, 448.0, 13.0);
pub const QWEN30_8A_TIME: Time = time(("sglang-vec", 5.0), 33.0, 159.0, 6.7);
pub const QWEN30_8B_TIME: Time = time(("sglang-vec", 6.6), 31.0, 174.0, 8.7);
pub const KIMI_32_TIME: Time = time(("sglang-vec", 33.0), 146.0, 1636.0, 94.0);
pub const KIMI_64_TIME: Time = time(("sglang-vec", 40.0), 179.0, 2237.0, 142.0);
pub const KIMI_128_TIME: Time = time(("sglang-vec", 80.0), 158.0, 4727.0, 354.0);
pub const STRESS_512_TIME: Time = Time { fastest: ("vllm", 726.0), vllm: 726.0, flashlb: 110_679.0, reference: None };

/// Excess on one family of the best peer that plans from scratch, and of the reference, in per cent.
pub type Family = (&'static str, [Cell; 9]);

/// Peer, its excess and that of the reference; no name where no peer was run.
pub type Cell = (&'static str, f64, Option<f64>);

const fn cell(peer: &'static str, excess: f64, reference: f64) -> Cell {
    (peer, excess, Some(reference))
}

const NONE: Cell = ("", f64::NAN, None);

/// The families of [`BY_FAMILY`], in its order.
pub const FAMILIES: [&str; 9] =
    ["uniform", "zipf10", "zipf12", "zipf15", "logn05", "logn10", "logn15", "hot20", "corrgroup"];

/// By shape and family.
#[rustfmt::skip]
pub const BY_FAMILY: [Family; 11] = [
    ("dsv3-32", [cell("flashlb", 0.02, 0.00), cell("flashlb", 0.13, 0.01), cell("flashlb", 1.57, 0.02), cell("vllm", 17.6, 2.64), cell("flashlb", 0.53, 0.02), cell("flashlb", 0.37, 0.04), cell("flashlb", 0.10, 0.06), cell("flashlb", 0.30, 0.02), cell("flashlb", 0.28, 0.04)]),
    ("dsv3-64", [cell("flashlb", 0.06, 0.00), cell("vllm", 2.38, 0.07), cell("flashlb", 9.38, 0.02), cell("vllm", 28.0, 4.60), cell("vllm", 2.92, 0.05), cell("flashlb", 1.35, 0.06), cell("vllm", 0.87, 0.35), cell("flashlb", 1.22, 0.03), cell("flashlb", 1.40, 0.05)]),
    ("dsv3-72", [cell("sglang-vec", 1.66, 0.28), cell("vllm", 13.2, 12.7), cell("vllm", 6.42, 6.23), cell("vllm", 1.68, 1.66), cell("sglang-vec", 2.36, 0.16), cell("flashlb", 1.35, 0.14), cell("vllm", 1.27, 0.68), cell("flashlb", 3.75, 0.07), cell("flashlb", 1.89, 0.19)]),
    ("dsv3-144", [cell("vllm", 0.01, 0.01), cell("vllm", 4.76, 4.76), cell("vllm", 2.03, 2.03), cell("vllm", 0.51, 0.51), cell("vllm", 5.62, 5.62), cell("eplb", 2.43, 2.36), cell("vllm", 0.35, 0.35), cell("flashlb", 21.8, 19.8), cell("vllm", 2.96, 2.63)]),
    ("qwen235-16", [cell("flashlb", 0.02, 0.00), cell("vllm", 1.29, 0.02), cell("flashlb", 0.48, 0.01), cell("vllm", 6.22, 5.98), cell("vllm", 0.83, 0.03), cell("flashlb", 0.34, 0.05), cell("vllm", 0.22, 0.04), cell("flashlb", 0.30, 0.02), cell("flashlb", 0.24, 0.04)]),
    ("qwen30-8a", [cell("flashlb", 0.01, 0.00), cell("vllm", 0.02, 0.00), cell("flashlb", 0.01, 0.00), cell("vllm", 0.19, 0.00), cell("vllm", 0.30, 0.01), cell("flashlb", 0.11, 0.01), cell("vllm", 0.07, 0.01), cell("flashlb", 0.22, 0.00), cell("flashlb", 0.09, 0.01)]),
    ("qwen30-8b", [cell("flashlb", 0.01, 0.00), cell("vllm", 0.02, 0.00), cell("flashlb", 0.01, 0.00), cell("vllm", 0.03, 0.00), cell("vllm", 0.30, 0.00), cell("flashlb", 0.13, 0.01), cell("vllm", 0.05, 0.01), cell("vllm", 0.22, 0.00), cell("flashlb", 0.08, 0.01)]),
    ("kimi-32", [cell("flashlb", 0.02, 0.00), cell("vllm", 0.21, 0.00), cell("flashlb", 0.92, 0.34), cell("vllm", 16.3, 1.04), cell("vllm", 0.47, 0.01), cell("flashlb", 0.21, 0.01), cell("vllm", 0.08, 0.01), cell("flashlb", 0.27, 0.01), cell("flashlb", 0.18, 0.01)]),
    ("kimi-64", [cell("flashlb", 0.04, 0.00), cell("vllm", 1.34, 0.02), cell("flashlb", 6.10, 2.11), cell("vllm", 26.5, 3.65), cell("vllm", 0.91, 0.02), cell("flashlb", 0.57, 0.07), cell("vllm", 0.31, 0.05), cell("flashlb", 0.64, 0.02), cell("flashlb", 0.56, 0.05)]),
    ("kimi-128", [cell("flashlb", 0.05, 0.02), cell("vllm", 4.83, 1.17), cell("flashlb", 16.2, 3.15), cell("vllm", 39.1, 3.97), cell("sglang-vec", 1.51, 0.07), cell("flashlb", 1.06, 0.33), cell("vllm", 1.89, 0.71), cell("flashlb", 1.43, 0.08), cell("flashlb", 2.81, 0.39)]),
    ("stress-512", [("flashlb", 0.51, None), NONE, ("flashlb", 26.7, None), NONE, NONE, cell("ascend-default", 9.84, 0.22), NONE, NONE, NONE]),
];
