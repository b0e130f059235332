//! The weights' gradient of 3×3 convolutions of half precision on Hopper's matrix unit, for which libraries have nothing fast that adds
//! in the same order each time.
//!
//! How the kernel works is said at its top (`kernel.cu`).

use super::around::{at, int};
use super::{Call, Convolution, Gpu};
use crate::DType;
use crate::Result;
use crate::compile::Arch;
use crate::headers::{COPIES, HOPPER};
use crate::kernel::{Arg, Module, Shape};
use crate::kernels;
use crate::pool::DeviceBuffer;

/// Bytes of shared memory of a block; the kernel's source, which is told, refuses another number than that of its layout.
macro_rules! shared {
    () => {
        219120
    };
}

/// The kernels.
pub static MODULE: Module = Module {
    name: "conv_weight_tiles",
    source: &[
        concat!("constexpr int SHARED = ", shared!(), ";\n"),
        COPIES,
        HOPPER,
        include_str!("../planes.cuh"),
        include_str!("kernel.cu"),
    ],
    specific: true,
    kernels: kernels! {
        add_shares: "ppii";
        weight_gradient: "pppiiiiii" for bf16 f16;
    },
};

/// The GPUs whose matrix unit it is written for.
const ARCH: Arch = Arch { major: 9, minor: 0 };
/// Positions of a tile: rows and columns.
const TILE: (usize, usize) = (8, 16);
/// Inputs of a block.
const INPUTS: usize = 64;
/// Outputs of a block.
const OUTPUTS: usize = 80;
/// Threads of a block.
const THREADS: u32 = 512;
/// Bytes of shared memory of a block.
const SHARED: usize = shared!();
/// Most bytes of the shares' sums.
const ROOM: usize = 256 << 20;

fn tile_count(c: &Convolution) -> usize {
    c.batch * c.h.div_ceil(TILE.0) * c.w.div_ceil(TILE.1)
}

/// Blocks that a share of the tiles takes.
fn parts(c: &Convolution) -> usize {
    c.inputs.div_ceil(INPUTS) * (c.outputs / OUTPUTS)
}

/// Into how many shares the tiles go: what takes so many multiprocessors least time, were a block's beginning and end as long as three
/// tiles. The order of the sums depends on it.
fn shares(c: &Convolution, multiprocessors: usize) -> usize {
    const ENDS: usize = 3;
    let (parts, tiles) = (parts(c), tile_count(c));
    let most = (ROOM / (c.weights() * 4))
        .min(tiles)
        .min((4 * multiprocessors).div_ceil(parts))
        .max(1);
    let time = |n: usize| (parts * n).div_ceil(multiprocessors) * (tiles.div_ceil(n) + ENDS);
    (1..=most).min_by_key(|&n| time(n)).unwrap_or(1)
}

/// Whether the kernel takes a convolution.
pub(super) fn fit(gpu: &Gpu, c: &Convolution) -> bool {
    gpu.info().arch == ARCH
        && gpu.info().shared >= SHARED
        && c.element != DType::F32
        && (c.kh, c.kw, c.stride, c.pad) == (3, 3, 1, [1; 4])
        && c.inputs.is_multiple_of(8)
        && c.outputs.is_multiple_of(OUTPUTS)
        // Places within an image, weights and tiles are counted with 32 bits.
        && c.h * c.w * c.inputs.max(c.outputs) < 1 << 31
        && c.weights() < 1 << 31
        && tile_count(c) < 1 << 30
}

/// Bytes of the shares' sums.
pub(super) fn sums_bytes(gpu: &Gpu, c: &Convolution) -> usize {
    shares(c, gpu.info().multiprocessors) * c.weights() * 4
}

/// Adds the gradient to the numbers at `call.w`; every operand begins at 16 bytes.
pub(super) fn run(gpu: &'static Gpu, c: &Convolution, call: &Call<'_>) -> Result<()> {
    let shares = shares(c, gpu.info().multiprocessors);
    let sums = DeviceBuffer::new(gpu, sums_bytes(gpu, c))?;
    let shape = Shape {
        grid: [parts(c) * shares, 1, 1],
        threads: THREADS,
        shared: SHARED as u32,
    };
    let mut args = vec![at(call.x), at(call.y), Arg::In(&sums)];
    args.extend([c.batch, c.h, c.w, c.inputs, c.outputs, shares].map(int));
    gpu.launch(&MODULE, ("weight_gradient", c.element), shape, &args)?;
    let count = c.weights();
    let args = [Arg::In(&sums), at(call.w), int(shares), int(count)];
    gpu.launch(&MODULE, "add_shares", Shape::pass(gpu, count), &args)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convolution(batch: usize, side: usize, inputs: usize, outputs: usize) -> Convolution {
        Convolution {
            batch,
            h: side,
            w: side,
            inputs,
            outputs,
            kh: 3,
            kw: 3,
            stride: 1,
            pad: [1; 4],
            element: DType::Bf16,
            tf32: false,
        }
    }

    #[test]
    fn shares_fill_the_machine_and_memory_holds_them() {
        let cases = [(16, 256, 160, 160), (16, 64, 320, 320), (16, 16, 640, 640)];
        let taken = cases.map(|(b, side, i, o)| {
            let c = convolution(b, side, i, o);
            (parts(&c), shares(&c, 132))
        });
        for (parts, shares) in taken {
            let blocks = parts * shares;
            let idle = (blocks.next_multiple_of(132) - blocks) as f64 / blocks as f64;
            assert!(idle < 0.11, "{parts} parts in {shares} shares: {idle}");
        }
        assert_eq!(taken[0], (6, 22));
        // One tile is one share, however many multiprocessors there are; large sums are few.
        assert_eq!(shares(&convolution(1, 8, 160, 160), 132), 1);
        let large = convolution(64, 64, 4096, 4080);
        assert!(shares(&large, 132) == 1);
    }
}
