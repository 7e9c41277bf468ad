//! What the driver makes of where matrices lie, for kernels to which weights are brought beside their threads.

use cudarc::driver::sys::{
    self, CUtensorMap, CUtensorMapDataType, CUtensorMapFloatOOBfill, CUtensorMapInterleave, CUtensorMapL2promotion,
    CUtensorMapSwizzle,
};

use super::context::Context;
use super::error::Version;
use super::failure::check;
use crate::error::DeviceError;

/// The chips whose own instructions `product_90a.cu` uses. No later one has them.
const CHIP: Version = Version { major: 9, minor: 0 };

/// Elements and outputs of what is brought at once; `product_90a.cu` has the same.
const BOX: [u32; 3] = [64, 128, 1];

/// Matrices of bfloat16 of one shape, each in a page of its own.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrices {
    /// Where the first is.
    pub address: u64,
    /// From one to the next.
    pub page_bytes: usize,
    /// How many there may ever be.
    pub pages: usize,
    /// Of each.
    pub rows: usize,
    /// Of each.
    pub columns: usize,
}

/// A map of matrices, as it goes to kernels. It holds no memory and is valid for whatever lies at the addresses.
#[derive(Clone, Copy, Debug)]
pub(super) struct TensorMap(pub [u64; 16]);

/// Whether a chip has products by mapped weights.
pub(super) fn has_products(context: &Context) -> bool {
    context.capability == CHIP
}

impl TensorMap {
    /// That of these matrices; none where the chip has no use for it, or where a page is no whole number of rows, which the driver
    /// takes no map of. So it depends on the chip and on widths whether there is one, and on nothing that changes while a model serves.
    pub fn new(context: &Context, matrices: Matrices) -> Result<Option<Self>, DeviceError> {
        let Matrices { address, page_bytes, pages, rows, columns } = matrices;
        let row_bytes = columns * size_of::<half::bf16>();
        if !has_products(context) || !page_bytes.is_multiple_of(row_bytes) {
            return Ok(None);
        }
        let sizes = [columns, rows, pages].map(|size| size as u64);
        let (strides, steps) = ([row_bytes as u64, page_bytes as u64], [1_u32; 3]);
        let mut map = CUtensorMap { opaque: [0; 16] };
        // SAFETY: the map is a local variable of the type's own alignment; there are as many sizes, sides and steps as dimensions and
        // strides for all but the first; the driver reads none of the memory.
        let made = unsafe {
            sys::cuTensorMapEncodeTiled(
                &raw mut map,
                CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
                sizes.len() as u32,
                address as *mut _,
                sizes.as_ptr(),
                strides.as_ptr(),
                BOX.as_ptr(),
                steps.as_ptr(),
                CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        check("map weights", made)?;
        Ok(Some(Self(map.opaque)))
    }
}
