//! Which kernels take a call, and how these cut it into blocks.

use super::super::Sizes;
use crate::{Error, Result, Tensor};
use nextscale_cuda::Gpu;
use nextscale_cuda::kernel::Shape as Launch;

/// The head width of the tensor-core kernels.
pub(super) const WIDTH: usize = 64;
/// Their tiles' rows.
pub(super) const TILE: usize = 64;
/// Their threads a block.
const THREADS: u32 = 128;
/// The widest head of the others.
const WIDEST: usize = 128;

/// Which kernels compute a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Path {
    TensorCores,
    Plain,
}

impl Path {
    pub(super) fn of(qkv: &Tensor, s: Sizes) -> Result<Self> {
        let cpu = qkv.gpu()?.is_dry_cpu();
        if s.dim > WIDEST && !cpu {
            return Err(Error::Device(format!(
                "attention on a GPU takes heads of at most {WIDEST} channels, not {}",
                s.dim
            )));
        }
        let (heads, most) = (s.batch * s.heads, Launch::MOST_ROWS);
        if heads > most && !cpu {
            return Err(Error::TooMany(format!(
                "attention on a GPU takes {most} heads of all samples at once, not {heads}"
            )));
        }
        let fits = qkv.dtype().is_half() && s.dim == WIDTH && on_sixteen(qkv);
        Ok(if fits { Self::TensorCores } else { Self::Plain })
    }

    /// Whether four warps multiply together, reading both sides from shared memory.
    fn together(self, gpu: &Gpu) -> bool {
        self == Self::TensorCores && gpu.info().arch.major == 9
    }

    /// Queries or keys of a block. Together warps have a fragment each, elsewhere two.
    pub(super) fn rows(self, gpu: &Gpu, s: Sizes) -> usize {
        match self {
            Self::TensorCores if self.together(gpu) => 64,
            Self::TensorCores => 128,
            Self::Plain if s.dim <= 64 => 32,
            Self::Plain => 16,
        }
    }

    /// Bytes of shared memory that `backward.cu` lays out itself: two stages of two tiles, and two on the left.
    pub(super) fn shared_of_gradient(self, gpu: &Gpu) -> u32 {
        let tiles = match self {
            Self::TensorCores if self.together(gpu) => 6,
            Self::TensorCores => 4,
            Self::Plain => 0,
        };
        tiles * (TILE * WIDTH * 2) as u32
    }

    pub(super) fn threads(self) -> u32 {
        match self {
            Self::TensorCores => THREADS,
            Self::Plain => 256,
        }
    }

    /// Numbers kept for every query and head.
    pub(super) fn kept(self) -> usize {
        match self {
            Self::TensorCores => 3,
            Self::Plain => 2,
        }
    }
}

/// Whether a tensor's bytes begin on a multiple of 16.
pub(super) fn on_sixteen(x: &Tensor) -> bool {
    (x.offset * x.dtype().bytes()).is_multiple_of(16)
}
