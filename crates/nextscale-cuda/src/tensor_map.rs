//! Maps of tensors for Hopper's copy engine, which fetches a tile with one instruction and writes zeros where the tensor ends.

use crate::bindings::driver::{Map, cuTensorMapEncodeTiled};
use crate::codes::Checked;
use crate::driver::DriverError;
use crate::gpu::Gpu;
use crate::matmul::DevicePtr;
use crate::{DType, Error, Result};
use cudarc::driver::sys;

/// Rows and columns of a tile: 64 rows of 128 bytes, which lie in shared memory with their 16-byte pieces permuted as the
/// matrix unit wants them ("swizzle of 128 bytes").
const TILE: [u32; 2] = [64, 64];

/// A tensor \[samples, rows, columns\] of a half type, as kernels take it (`TensorMap` of `hopper.cuh`).
#[derive(Clone, Copy, Debug)]
pub struct TensorMap(Map);

impl TensorMap {
    /// Of `columns`, `rows` and `samples` from `place` on, rows and samples that many elements apart. On other GPUs than Hopper
    /// and on a dry one it is empty: kernels there don't look at it.
    ///
    /// # Errors
    /// When `place` or the distances are no multiples of 16 bytes, or the driver refuses.
    pub fn new(
        gpu: &Gpu,
        place: DevicePtr<'_>,
        element: DType,
        [columns, rows, samples]: [usize; 3],
        [row, sample]: [usize; 2],
    ) -> Result<Self> {
        if gpu.dry().is_some() || gpu.info().arch.major != 9 {
            return Ok(Self::none());
        }
        let Self(mut map) = Self::none();
        let dtype = match element {
            DType::Bf16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            DType::F16 => sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
            other => {
                return Err(Error::DType {
                    op: "a map of tiles",
                    expected: "half precision",
                    found: other.name(),
                });
            }
        };
        let last = (samples - 1) * sample + (rows - 1) * row + columns;
        let address = place.holds(gpu, "a map of tiles", last * element.bytes())?;
        let extents = [columns as u64, rows as u64, samples as u64];
        let strides = [row, sample].map(|n| (n * element.bytes()) as u64);
        let tile = [TILE[1], TILE[0], 1];
        let steps = [1; 3];
        gpu.bind()?;
        // SAFETY: every pointer is to as many numbers as the rank says, and they live through the call, which only
        // writes the map; the memory mapped is a buffer's.
        let code = unsafe {
            cuTensorMapEncodeTiled(
                &mut map,
                dtype,
                3,
                address as *mut _,
                extents.as_ptr(),
                strides.as_ptr(),
                tile.as_ptr(),
                steps.as_ptr(),
                sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
                sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B,
                sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_L2_128B,
                sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
            )
        };
        let refused = (code != 0).then_some(DriverError(code));
        refused
            .map_or(Ok(()), Err)
            .doing("describing a tensor to the copy engine")?;
        Ok(Self(map))
    }

    /// Of nothing.
    pub fn none() -> Self {
        Self(Map([0; 16]))
    }

    /// The words that a launch hands over.
    pub(crate) fn words(&self) -> *const u64 {
        self.0.0.as_ptr()
    }
}
