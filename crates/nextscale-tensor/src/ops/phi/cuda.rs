//! φ on a GPU: float32 whatever the products' arithmetic. 32 channels, the tokenizer's, have a kernel of their own.

use crate::ops::conv2d::{Conv, Sizes, cuda as conv2d};
use crate::tape::Grads;
use crate::{DType, Math, Result, Tensor};
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::kernels;

pub(crate) static MODULE: Module = Module {
    name: "phi",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        phi_32: "ppppiif";
        blend: "pppffu";
    },
};

/// Channels of the fused kernel and the positions of its blocks.
const CHANNELS: usize = 32;
const TILE: [usize; 2] = [4, 16];

/// a·x + b·z.
fn blend(x: &Tensor, z: Option<&Tensor>, a: f32, b: f32) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let y = Tensor::scratch(gpu, x.shape(), DType::F32)?;
    let args = [
        x.arg_of("phi", DType::F32)?,
        z.map_or(Ok(Arg::Null), |z| z.arg_of("phi", DType::F32))?,
        y.arg()?,
        Arg::F32(a),
        Arg::F32(b),
        Arg::U64(n as u64),
    ];
    gpu.launch(&MODULE, "blend", Shape::pass(gpu, n), &args)?;
    Ok(y)
}

pub(super) fn forward(
    s: Sizes,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    rho: f32,
) -> Result<Tensor> {
    let gpu = x.gpu()?;
    let _scope = gpu.scope("phi", || s.work(Math::FULL, false));
    let x = x.cast(DType::F32)?;
    let aligned = |t: &Tensor| -> Result<bool> {
        let ptr = t.device_ptr()?;
        Ok(ptr.alignment() >= 16)
    };
    let tiles = s.h.div_ceil(TILE[0]);
    let fused = s.inputs == CHANNELS
        && s.outputs == CHANNELS
        && s.batch < 1 << 16
        && tiles < 1 << 16
        && aligned(&x)?
        && aligned(weight)?;
    if !fused {
        let y = conv2d::forward(Math::FULL, s, Conv::same(3), &x, weight, bias, None)?;
        return blend(&x, Some(&y), 1.0 - rho, rho);
    }
    let y = Tensor::scratch(gpu, x.shape(), DType::F32)?;
    let floats = CHANNELS * (9 * CHANNELS + 4) + (TILE[0] + 2) * (TILE[1] + 2) * CHANNELS;
    let shape = Shape {
        grid: [s.w.div_ceil(TILE[1]), tiles, s.batch],
        threads: 128,
        shared: (4 * floats) as u32,
    };
    let args = [
        x.arg()?,
        weight.arg_of("phi", DType::F32)?,
        bias.arg_of("phi", DType::F32)?,
        y.arg()?,
        Arg::Count(s.h),
        Arg::Count(s.w),
        Arg::F32(rho),
    ];
    gpu.launch(&MODULE, "phi_32", shape, &args)?;
    Ok(y)
}

/// Hands on the gradients of x, weight and bias for that of y.
pub(super) fn backward(
    s: Sizes,
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    rho: f32,
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let _scope = g.gpu()?.scope("phi gradient", || {
        s.gradient_work(Math::FULL, grads.wants(x))
    });
    let g = g.cast(DType::F32)?;
    let scaled = blend(&g, None, rho, 0.0)?;
    let conv = Conv::same(3);
    conv2d::backward(Math::FULL, s, conv, x, weight, bias, &scaled, grads)?;
    if grads.wants(x) {
        grads.add(x, blend(&g, None, 1.0 - rho, 0.0)?)?;
    }
    Ok(())
}
