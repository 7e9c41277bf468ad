//! Products by cuBLAS, the yardstick: of bfloat16 with sums in f32, one after the other on one stream. Its library is found when it is
//! asked for; without it there is no yardstick.

use std::ffi::c_void;

use cudarc::cublas::sys::{
    self, cublasComputeType_t, cublasGemmAlgo_t, cublasHandle_t, cublasOperation_t, cublasStatus_t, cudaDataType_t,
};

use super::{Gauge, Region};
use crate::error::DeviceError;

/// cuBLAS on the stream of a gauge.
#[derive(Debug)]
pub struct Dense<'a> {
    gauge: &'a Gauge,
    handle: cublasHandle_t,
}

/// Whether a call succeeded.
fn check(what: &str, code: cublasStatus_t) -> Result<(), DeviceError> {
    if code == cublasStatus_t::CUBLAS_STATUS_SUCCESS {
        return Ok(());
    }
    Err(DeviceError::Failed { reason: format!("cuBLAS could not {what}: {code:?}"), usable: true })
}

impl<'a> Dense<'a> {
    /// None if this machine has no cuBLAS.
    ///
    /// # Errors
    /// If it does not start.
    pub fn new(gauge: &'a Gauge) -> Result<Option<Self>, DeviceError> {
        // SAFETY: this runs the initialisation of the library, which is what was asked for.
        if !unsafe { sys::is_culib_present() } {
            return Ok(None);
        }
        gauge.device.context.bind()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is to a local variable, and the context is current.
        check("start", unsafe { sys::cublasCreate_v2(&raw mut handle) })?;
        let dense = Self { gauge, handle };
        // SAFETY: both live; a stream of the driver is one of the runtime, which both call by one handle.
        check("take a stream", unsafe { sys::cublasSetStream_v2(handle, gauge.stream.handle().cast()) })?;
        Ok(Some(dense))
    }

    /// Seconds that products take of `[rows, k]` by `[n, k]` transposed, one for each number of rows, each by weights of its own:
    /// matrix after matrix in `weights`, from the beginning again where they are no more.
    ///
    /// # Errors
    /// If the device or cuBLAS fails.
    ///
    /// # Panics
    /// If there is no room for a matrix, the rows of a product or its results.
    pub fn products(
        &self,
        rows: &[usize],
        (n, k): (usize, usize),
        (weights, x, out): (&Region, &Region, &mut Region),
        times: u32,
    ) -> Result<f64, DeviceError> {
        let most = rows.iter().copied().max().unwrap_or(0);
        let room = weights.bytes / (2 * n * k);
        assert!(room > 0 && 2 * most * k <= x.bytes && 2 * most * n <= out.bytes, "{most} rows of {n} x {k}");
        self.gauge.device.context.bind()?;
        self.gauge.seconds(times, || {
            for (index, &rows) in rows.iter().enumerate().filter(|(_, rows)| **rows > 0) {
                let weights = weights.memory.address() + (2 * n * k * (index % room)) as u64;
                self.product((rows, n, k), [weights, x.memory.address(), out.memory.address()])?;
            }
            Ok(())
        })
    }

    fn product(&self, (rows, n, k): (usize, usize, usize), [weights, x, out]: [u64; 3]) -> Result<(), DeviceError> {
        let (one, nothing) = (1.0_f32, 0.0_f32);
        let (sizes, bf16) = ([n, rows, k].map(|size| size as i32), cudaDataType_t::CUDA_R_16BF);
        let pointer = |address: u64| address as *const c_void;
        // SAFETY: the caller's regions have room for all three matrices (asserted there) and outlive the wait; the factors are read
        // before this returns, as they are the host's.
        let code = unsafe {
            sys::cublasGemmEx(
                self.handle,
                cublasOperation_t::CUBLAS_OP_T,
                cublasOperation_t::CUBLAS_OP_N,
                sizes[0],
                sizes[1],
                sizes[2],
                (&raw const one).cast(),
                pointer(weights),
                bf16,
                sizes[2],
                pointer(x),
                bf16,
                sizes[2],
                (&raw const nothing).cast(),
                out as *mut c_void,
                bf16,
                sizes[0],
                cublasComputeType_t::CUBLAS_COMPUTE_32F,
                cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        };
        check("multiply", code)
    }
}

impl Drop for Dense<'_> {
    fn drop(&mut self) {
        let _ = self.gauge.stream.finish();
        // SAFETY: it was made by cuBLAS, and nothing of it runs any more.
        let _ = unsafe { sys::cublasDestroy_v2(self.handle) };
    }
}
