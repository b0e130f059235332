//! 3×3 convolutions of half precision on Hopper's matrix unit, with a norm and SiLU applied to x while it is fetched: the
//! maps of the published tokenizer, whose 160 channels fit no tile that libraries have.
//!
//! How the kernel works is said at its top (`kernel.cu`).

use super::around::{at, int};
use super::{Call, Convolution, Gpu, Pass};
use crate::DType;
use crate::cache;
use crate::compile::Arch;
use crate::headers::{COPIES, HOPPER};
use crate::kernel::{Arg, Module, Shape};
use crate::kernels;
use crate::pool::DeviceBuffer;
use crate::timing::fastest;
use crate::{Error, Result};
use std::collections::HashMap;
use std::sync::Mutex;

/// Bytes of shared memory of a block; the kernel's source, which is told, refuses another number than that of its layout.
macro_rules! shared {
    () => {
        230320
    };
}

/// The kernels.
pub static MODULE: Module = Module {
    name: "conv_tiles",
    source: &[
        concat!("constexpr int SHARED = ", shared!(), ";\n"),
        COPIES,
        HOPPER,
        include_str!("../planes.cuh"),
        include_str!("kernel.cu"),
    ],
    specific: true,
    kernels: kernels! {
        norm_table: "ppppiii";
        pack_weights: "ppiii" for bf16 f16;
        convolve: "ppppppiiiii" for bf16 f16;
        convolve_normed: "ppppppiiiii" for bf16 f16;
    },
};

/// The GPUs whose matrix unit it is written for.
const ARCH: Arch = Arch { major: 9, minor: 0 };
/// Positions of a tile on either axis.
const SIDE: usize = 16;
/// Outputs of a tile.
const OUTPUTS: usize = 160;
/// Inputs at a time.
const CHUNK: usize = 32;
/// Threads a block.
const THREADS: u32 = 384;
/// Bytes of shared memory of a block.
const SHARED: usize = shared!();

/// A norm with SiLU behind it: moments of groups, γ and β as a factor and a summand for every channel of every sample.
#[derive(Debug)]
pub struct TileNorm(DeviceBuffer);

impl TileNorm {
    /// From mean and 1/deviation \[samples, groups\], γ and β \[channels\], all float32.
    ///
    /// # Errors
    /// When the memory is full or there are more channels or samples than the kernel takes.
    pub fn new(
        gpu: &'static Gpu,
        moments: &DeviceBuffer,
        (gamma, beta): (Arg<'_>, Arg<'_>),
        [samples, channels, groups]: [usize; 3],
    ) -> Result<Self> {
        let count = samples * channels;
        let table = DeviceBuffer::new(gpu, count * 8)?;
        let numbers = [channels, groups, count].map(Arg::Count);
        let mut args = vec![Arg::In(moments), gamma, beta, Arg::In(&table)];
        args.extend(numbers);
        gpu.launch(&MODULE, "norm_table", Shape::pass(gpu, count), &args)?;
        Ok(Self(table))
    }
}

/// Channels in and out of a pass: the gradient of x is a convolution of that of y.
fn channels(c: &Convolution, pass: Pass) -> (usize, usize) {
    match pass {
        Pass::Data => (c.outputs, c.inputs),
        _ => (c.inputs, c.outputs),
    }
}

/// Tiles of a pass that writes so many channels.
fn tile_count(c: &Convolution, outputs: usize) -> usize {
    c.batch * c.h.div_ceil(SIDE) * c.w.div_ceil(SIDE) * (outputs / OUTPUTS)
}

/// Whether the kernel takes a pass.
pub(super) fn fit(gpu: &Gpu, c: &Convolution, pass: Pass) -> bool {
    let (inputs, outputs) = channels(c, pass);
    gpu.info().arch == ARCH
        && gpu.info().shared >= SHARED
        && c.element != DType::F32
        && pass != Pass::Weights
        && (c.kh, c.kw, c.stride, c.pad) == (3, 3, 1, [1; 4])
        && inputs.is_multiple_of(CHUNK)
        && outputs.is_multiple_of(OUTPUTS)
        // Places within an image, weights and tiles are counted with 32 bits.
        && c.h * c.w * inputs.max(outputs) < 1 << 31
        && c.weights() < 1 << 31
        && tile_count(c, outputs) < 1 << 31
}

/// Bytes of the packed weights.
pub(super) fn packed_bytes(c: &Convolution) -> usize {
    c.weights() * c.element.bytes()
}

/// Whether a norm in the kernel pays, for a GPU, a convolution and a residual or none.
type Known = HashMap<(usize, Convolution, bool), bool>;

/// Whether norm and convolution in one kernel are faster than one after the other, with a residual added or not: measured at the
/// first call for a shape, kept on disk.
///
/// # Errors
/// What the two paths return.
pub fn norm_pays<E: From<Error>>(
    gpu: &'static Gpu,
    c: &Convolution,
    added: bool,
    together: impl FnMut() -> Result<(), E>,
    apart: impl FnMut() -> Result<(), E>,
) -> Result<bool, E> {
    /// Runs of either way; the fastest counts.
    const RUNS: usize = 3;
    static KNOWN: Mutex<Option<Known>> = Mutex::new(None);
    let known = || KNOWN.lock().unwrap_or_else(|e| e.into_inner());
    if gpu.dry().is_some() {
        // Where the norm is applied once, which is where memory matters.
        return Ok(c.outputs == OUTPUTS);
    }
    let key = (gpu.info().ordinal, *c, added);
    if let Some(&pays) = known().get_or_insert_default().get(&key) {
        return Ok(pays);
    }
    let name = format!(
        "{c:?} {added} {} {} {}",
        gpu.info().name,
        crate::compile::made_by(),
        MODULE.text()
    );
    let cached = || match cache::load("conv_norm", &name).as_deref() {
        Some([pays]) => Some(*pays == 1),
        _ => None,
    };
    let pays = match cache::choice_or_lock(gpu, "conv_norm", cached) {
        Ok(pays) => pays,
        Err(_lock) => {
            gpu.outside_capture(
                "choosing how to normalise before a convolution that was never run",
            )?;
            let pays = fastest(gpu, RUNS, together)? < fastest(gpu, RUNS, apart)?;
            cache::store("conv_norm", &name, &[u8::from(pays)]);
            pays
        }
    };
    known().get_or_insert_default().insert(key, pays);
    Ok(pays)
}

/// Runs a pass that fits; every operand begins at 16 bytes.
pub(super) fn run(
    gpu: &'static Gpu,
    c: &Convolution,
    pass: Pass,
    norm: Option<&TileNorm>,
    call: &Call<'_>,
) -> Result<()> {
    let (inputs, outputs) = channels(c, pass);
    let (from, to) = match pass {
        Pass::Data => (call.y, call.x),
        _ => (call.x, call.y),
    };
    let packed = DeviceBuffer::new(gpu, packed_bytes(c))?;
    let turned = usize::from(pass == Pass::Data);
    gpu.launch(
        &MODULE,
        ("pack_weights", c.element),
        Shape::pass(gpu, c.weights() / 8),
        &[
            at(call.w),
            Arg::In(&packed),
            int(inputs),
            int(outputs),
            int(turned),
        ],
    )?;
    let shape = Shape {
        grid: [tile_count(c, outputs).min(gpu.info().multiprocessors), 1, 1],
        threads: THREADS,
        shared: SHARED as u32,
    };
    let (name, table) = match norm {
        Some(norm) => ("convolve_normed", Arg::In(&norm.0)),
        None => ("convolve", Arg::Null),
    };
    let args = [
        at(from),
        table,
        Arg::In(&packed),
        call.bias.map_or(Arg::Null, at),
        call.residual.map_or(Arg::Null, at),
        at(to),
        int(c.batch),
        int(c.h),
        int(c.w),
        int(inputs),
        int(outputs),
    ];
    gpu.launch(&MODULE, (name, c.element), shape, &args)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DevicePtr;
    use crate::tests::{gpu, put, random};

    /// More numbers than a launch has threads: every sample has its own.
    #[test]
    fn the_table_of_a_norm_is_whole() {
        let Some(gpu) = gpu() else { return };
        let (samples, channels, groups) = (3000, 320, 32);
        let host = [samples * groups * 2, channels, channels].map(|n| random(n, n as u64));
        let [m, g, b] = [0, 1, 2].map(|i| put(gpu, &host[i], DType::F32));
        let [g, b] = [&g, &b].map(|x| at(DevicePtr(x, 0)));
        let norm = TileNorm::new(gpu, &m, (g, b), [samples, channels, groups]).unwrap();
        let mut bytes = vec![0; samples * channels * 8];
        gpu.download(&norm.0, &mut bytes).unwrap();
        let [moments, gamma, beta] = &host;
        for (i, pair) in bytes.chunks_exact(8).enumerate() {
            let (sample, c) = (i / channels, i % channels);
            let group = 2 * (sample * groups + c / (channels / groups));
            let scale = moments[group + 1] * gamma[c];
            let shift = (-moments[group]).mul_add(scale, beta[c]);
            let want = [scale.to_le_bytes(), shift.to_le_bytes()].concat();
            assert_eq!(pair, want, "sample {sample}, channel {c}");
        }
    }
}
