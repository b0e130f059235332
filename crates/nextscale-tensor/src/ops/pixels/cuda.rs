//! Bytes and floats on a GPU.

use crate::{DType, Result, Shape, Tensor};
use nextscale_cuda::by_dtype;
use nextscale_cuda::kernel::{Arg, Kernel, Module, Shape as Launch};
use nextscale_cuda::matmul::Place;
use nextscale_cuda::{DeviceBuffer, Gpu, Work};

pub(crate) static MODULE: Module = Module {
    name: "pixels",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: &[
        Kernel::new("from_pixels_f32", "ppu"),
        Kernel::new("from_pixels_bf16", "ppu"),
        Kernel::new("from_pixels_f16", "ppu"),
        Kernel::new("to_pixels_f32", "pppu"),
        Kernel::new("to_pixels_bf16", "pppu"),
        Kernel::new("to_pixels_f16", "pppu"),
    ],
};

pub(super) fn from_pixels(
    gpu: &'static Gpu,
    dtype: DType,
    shape: Shape,
    pixels: &[u8],
) -> Result<Tensor> {
    let bytes = DeviceBuffer::new(gpu, pixels.len())?;
    gpu.upload(pixels, &bytes)?;
    floats_of(gpu, dtype, shape, &bytes)
}

/// Floats of the first bytes of a buffer, as many as the shape has elements.
pub(crate) fn floats_of(
    gpu: &'static Gpu,
    dtype: DType,
    shape: Shape,
    bytes: &DeviceBuffer,
) -> Result<Tensor> {
    let name = by_dtype(
        dtype,
        ["from_pixels_f32", "from_pixels_bf16", "from_pixels_f16"],
    )?;
    let n = shape.numel();
    let y = Tensor::scratch(gpu, shape, dtype)?;
    let _scope = gpu.scope("from pixels", || Work::moving(&[&y]).and_bytes(n));
    let args = [Arg::In(bytes), y.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Launch::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(y)
}

pub(super) fn to_pixels(x: &Tensor) -> Result<Vec<u8>> {
    let name = by_dtype(
        x.dtype(),
        ["to_pixels_f32", "to_pixels_bf16", "to_pixels_f16"],
    )?;
    let (gpu, n) = (x.gpu()?, x.numel());
    // The pixels, and behind them how many values are no numbers, which come with them.
    let (count_at, count_bytes) = (n.next_multiple_of(8), 8);
    let bytes = DeviceBuffer::new(gpu, count_at + count_bytes)?;
    gpu.zero(Place(&bytes, count_at), count_bytes)?;
    let _scope = gpu.scope("to pixels", || Work::moving(&[x]).and_bytes(n));
    let count = Arg::At(&bytes, count_at);
    let args = [x.arg()?, Arg::In(&bytes), count, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Launch::pass(gpu, n.div_ceil(8)), &args)?;
    let mut pixels = vec![0; count_at + count_bytes];
    gpu.download(&bytes, &mut pixels)?;
    let bad = pixels.last_chunk().map_or(0, |c| u64::from_le_bytes(*c));
    super::not_numbers(bad as usize, n)?;
    pixels.truncate(n);
    Ok(pixels)
}
