//! Bytes and floats on a GPU.

use crate::{DType, Result, Shape, Tensor};
use nextscale_cuda::kernel::{Arg, Module, Shape as Launch};
use nextscale_cuda::matmul::DevicePtr;
use nextscale_cuda::{DeviceBuffer, Gpu, Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "pixels",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        from_pixels: "ppu" for f32 bf16 f16;
        to_pixels: "pppu" for f32 bf16 f16;
    },
};

pub(super) fn from_pixels(
    gpu: &'static Gpu,
    dtype: DType,
    shape: Shape,
    pixels: &[u8],
) -> Result<Tensor> {
    let bytes = DeviceBuffer::new(gpu, pixels.len())?;
    gpu.upload(pixels, &bytes)?;
    floats_of(gpu, dtype, shape, DevicePtr(&bytes, 0))
}

/// Floats of the bytes from a place on, as many as the shape has elements.
pub(crate) fn floats_of(
    gpu: &'static Gpu,
    dtype: DType,
    shape: Shape,
    DevicePtr(bytes, at): DevicePtr<'_>,
) -> Result<Tensor> {
    let name = ("from_pixels", dtype);
    let n = shape.numel();
    let y = Tensor::scratch(gpu, shape, dtype)?;
    let _scope = gpu.scope("from pixels", || Work::moving(&[&y]).and_bytes(n));
    let args = [Arg::At(bytes, at), y.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, name, Launch::pass(gpu, n.div_ceil(8)), &args)?;
    Ok(y)
}

pub(super) fn to_pixels(x: &Tensor) -> Result<Vec<u8>> {
    let name = ("to_pixels", x.dtype());
    let (gpu, n) = (x.gpu()?, x.numel());
    // The pixels, and behind them how many values are no numbers, which come with them.
    let (count_at, count_bytes) = (n.next_multiple_of(8), 8);
    let bytes = DeviceBuffer::new(gpu, count_at + count_bytes)?;
    gpu.zero(DevicePtr(&bytes, count_at), count_bytes)?;
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
