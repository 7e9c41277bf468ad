//! Vectors of 16 f32 on whatever registers the CPU has. Lane `i` of every operation is the same IEEE operation on every
//! instruction set, and no operation mixes lanes but [`Vector::sum`], whose order is fixed: so results are the same bits.

use std::fmt::{self, Display, Formatter};

use pulp::{Simd, WithSimd};

/// Lanes of a vector.
pub(crate) const LANES: usize = 16;

/// 64 bytes of weights or cache, as they lie in a cache line.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C, align(64))]
pub(crate) struct Line(pub [u32; LANES]);

impl Line {
    /// The line as f32 values.
    #[inline(always)]
    pub fn floats(&self) -> &[f32; LANES] {
        bytemuck::cast_ref(&self.0)
    }
}

/// Which instructions to use.
#[derive(Clone, Copy, Debug)]
pub enum Instructions {
    /// AVX-512, 16 lanes a register.
    #[cfg(target_arch = "x86_64")]
    Avx512(pulp::x86::V4),
    /// AVX2 and FMA, 8 lanes a register.
    #[cfg(target_arch = "x86_64")]
    Avx2(pulp::x86::V3),
    /// NEON, 4 lanes a register.
    #[cfg(target_arch = "aarch64")]
    Neon(pulp::aarch64::Neon),
    /// One lane at a time: any CPU.
    Scalar,
}

impl Display for Instructions {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(_) => "AVX-512",
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(_) => "AVX2",
            #[cfg(target_arch = "aarch64")]
            Self::Neon(_) => "NEON",
            Self::Scalar => "one lane at a time",
        })
    }
}

impl Instructions {
    /// All that this CPU has, the fastest first.
    #[must_use]
    pub fn available() -> Vec<Self> {
        [
            #[cfg(target_arch = "x86_64")]
            pulp::x86::V4::try_new().map(Self::Avx512),
            #[cfg(target_arch = "x86_64")]
            pulp::x86::V3::try_new().map(Self::Avx2),
            #[cfg(target_arch = "aarch64")]
            pulp::aarch64::Neon::try_new().map(Self::Neon),
            Some(Self::Scalar),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// Runs a kernel compiled for these instructions.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx512(simd) => Simd::vectorize(simd, Compiled(kernel)),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2(simd) => Simd::vectorize(simd, Compiled(kernel)),
            #[cfg(target_arch = "aarch64")]
            Self::Neon(simd) => Simd::vectorize(simd, Compiled(kernel)),
            Self::Scalar => Simd::vectorize(pulp::Scalar::new(), Compiled(kernel)),
        }
    }
}

/// A piece of work over vectors. Everything it calls in its loops must be `#[inline(always)]`, so that it is compiled
/// with the instructions it was started for.
pub(crate) trait Kernel {
    /// What it gives.
    type Output;
    /// Does it.
    fn run<V: Vector>(self, v: V) -> Self::Output;
}

struct Compiled<K>(K);

impl<K: Kernel> WithSimd for Compiled<K> {
    type Output = K::Output;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> K::Output {
        match S::F32_LANES {
            16 => self.0.run(Registers::<S, 1>(simd)),
            8 => self.0.run(Registers::<S, 2>(simd)),
            4 => self.0.run(Registers::<S, 4>(simd)),
            _ => self.0.run(Registers::<S, 16>(simd)),
        }
    }
}

/// Operations on 16 lanes of f32.
pub(crate) trait Vector: Copy {
    /// Sixteen values.
    type F32: Copy;
    /// Rows of a matrix product that the registers hold sums for.
    const TILE_ROWS: usize;

    fn splat(self, value: f32) -> Self::F32;
    fn load(self, values: &[f32; LANES]) -> Self::F32;
    fn store(self, value: Self::F32, to: &mut [f32; LANES]);
    /// The low and the high halves of 16 words as bfloat16.
    fn widen(self, words: &[u32; LANES]) -> [Self::F32; 2];
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32;
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32;
    /// `e^x` to 2 units in the last place; 0 below -87.3, `e^88.7` above 88.7.
    fn exp(self, x: Self::F32) -> Self::F32;

    /// The sum of the lanes, by halves: lane `i` with lane `i + 8`, then `i + 4`, `i + 2`, `i + 1`.
    #[inline(always)]
    fn sum(self, value: Self::F32) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] += lanes[lane + width];
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The largest lane.
    #[inline(always)]
    fn largest(self, value: Self::F32) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for lane in 0..width {
                lanes[lane] = if lanes[lane + width] > lanes[lane] { lanes[lane + width] } else { lanes[lane] };
            }
            width /= 2;
        }
        lanes[0]
    }

    /// Up to 16 values, the rest 0.
    #[inline(always)]
    fn load_part(self, values: &[f32]) -> Self::F32 {
        if let Some(all) = values.first_chunk() {
            return self.load(all);
        }
        let mut lanes = [0.0; LANES];
        lanes[..values.len()].copy_from_slice(values);
        self.load(&lanes)
    }

    /// The first lanes, up to 16.
    #[inline(always)]
    fn store_part(self, value: Self::F32, to: &mut [f32]) {
        if let Some(all) = to.first_chunk_mut() {
            return self.store(value, all);
        }
        let mut lanes = [0.0; LANES];
        self.store(value, &mut lanes);
        let len = to.len();
        to.copy_from_slice(&lanes[..len]);
    }
}

/// 16 lanes as `N` registers of `S`.
#[derive(Clone, Copy)]
struct Registers<S, const N: usize>(S);

impl<S: Simd, const N: usize> Registers<S, N> {
    #[inline(always)]
    fn map(self, a: [S::f32s; N], op: impl Fn(S, S::f32s) -> S::f32s) -> [S::f32s; N] {
        let mut out = a;
        for register in &mut out {
            *register = op(self.0, *register);
        }
        out
    }

    #[inline(always)]
    fn zip(self, a: [S::f32s; N], b: [S::f32s; N], op: impl Fn(S, S::f32s, S::f32s) -> S::f32s) -> [S::f32s; N] {
        let mut out = a;
        for i in 0..N {
            out[i] = op(self.0, a[i], b[i]);
        }
        out
    }
}

/// `log2(e)`.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
/// `ln(2)` to 9 bits, so that a small whole number times it is exact, and what is missing of it.
const LN_2_HIGH: f32 = 0.693_359_4;
const LN_2_LOW: f32 = -2.121_944_4e-4;
/// 1.5 * 2^23: adding it leaves the nearest whole number in the low bits.
const ROUND: f32 = 12_582_912.0;
/// Minimax polynomial of `(e^r - 1 - r) / r^2` on `|r| <= ln(2) / 2`, from Cephes' `expf`.
#[allow(clippy::excessive_precision, reason = "as published")]
const EXP: [f32; 6] =
    [1.987_569_15e-4, 1.398_199_950_7e-3, 8.333_451_907_3e-3, 4.166_579_589_4e-2, 1.666_666_545_9e-1, 0.5];
const EXP_MIN: f32 = -87.3;
const EXP_MAX: f32 = 88.7;

impl<S: Simd, const N: usize> Vector for Registers<S, N> {
    type F32 = [S::f32s; N];
    const TILE_ROWS: usize = match N {
        1 => 8,
        2 | 4 => 3,
        _ => 1,
    };

    #[inline(always)]
    fn splat(self, value: f32) -> Self::F32 {
        [self.0.splat_f32s(value); N]
    }

    #[inline(always)]
    fn load(self, values: &[f32; LANES]) -> Self::F32 {
        let (registers, _) = S::as_simd_f32s(values);
        let mut out = [registers[0]; N];
        out.copy_from_slice(&registers[..N]);
        out
    }

    #[inline(always)]
    fn store(self, value: Self::F32, to: &mut [f32; LANES]) {
        let (registers, _) = S::as_mut_simd_f32s(to);
        registers[..N].copy_from_slice(&value);
    }

    #[inline(always)]
    fn widen(self, words: &[u32; LANES]) -> [Self::F32; 2] {
        let simd = self.0;
        let (registers, _) = S::as_simd_u32s(words);
        let shift = simd.splat_u32s(16);
        let mask = simd.splat_u32s(0xFFFF_0000);
        let zero = simd.splat_f32s(0.0);
        let (mut low, mut high) = ([zero; N], [zero; N]);
        for i in 0..N {
            low[i] = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(registers[i], shift));
            high[i] = simd.transmute_f32s_u32s(simd.and_u32s(registers[i], mask));
        }
        [low, high]
    }

    #[inline(always)]
    fn add(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.zip(a, b, S::add_f32s)
    }

    #[inline(always)]
    fn sub(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.zip(a, b, S::sub_f32s)
    }

    #[inline(always)]
    fn mul(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.zip(a, b, S::mul_f32s)
    }

    #[inline(always)]
    fn div(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.zip(a, b, S::div_f32s)
    }

    #[inline(always)]
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32 {
        self.zip(a, b, S::max_f32s)
    }

    #[inline(always)]
    fn fma(self, a: Self::F32, b: Self::F32, c: Self::F32) -> Self::F32 {
        let mut out = c;
        for i in 0..N {
            out[i] = self.0.mul_add_f32s(a[i], b[i], c[i]);
        }
        out
    }

    #[inline(always)]
    fn exp(self, x: Self::F32) -> Self::F32 {
        self.map(
            x,
            #[inline(always)]
            |simd, x| {
                let splat = |value| simd.splat_f32s(value);
                let tiny = simd.less_than_f32s(x, splat(EXP_MIN));
                let x = simd.min_f32s(splat(EXP_MAX), simd.max_f32s(splat(EXP_MIN), x));
                let rounded = simd.mul_add_f32s(x, splat(LOG2_E), splat(ROUND));
                let whole = simd.sub_f32s(rounded, splat(ROUND));
                let r = simd.mul_add_f32s(whole, splat(-LN_2_HIGH), x);
                let r = simd.mul_add_f32s(whole, splat(-LN_2_LOW), r);
                let mut p = splat(EXP[0]);
                for coefficient in &EXP[1..] {
                    p = simd.mul_add_f32s(p, r, splat(*coefficient));
                }
                let value = simd.add_f32s(simd.mul_add_f32s(p, simd.mul_f32s(r, r), r), splat(1.0));
                // Adds the whole number to the exponent.
                let exponent = simd.wrapping_dyn_shl_u32s(simd.transmute_u32s_f32s(rounded), simd.splat_u32s(23));
                let scaled = simd.transmute_f32s_u32s(simd.add_u32s(simd.transmute_u32s_f32s(value), exponent));
                simd.select_f32s(tiny, splat(0.0), scaled)
            },
        )
    }
}
