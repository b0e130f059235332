//! The feed-forward branch on a GPU.
//!
//! While training, the first product comes without its bias and GELU: on large matrices the library's forms that write both
//! the sum and the activation, or multiply by the slope, cost more than a pass over memory, and one pass of the backward
//! direction makes the slope, the activation and the bias's gradient together.

use super::FeedForward;
use crate::ops::linear::cuda::{
    Layer, add_column_sums, forward, gelu_bias, gelu_bias_backward, weight_and_input,
};
use crate::ops::linear::{Activation, Bias};
use crate::{Cx, DType, Math, Result, Tensor};
use nextscale_cuda::Work;

pub(super) fn feed_forward(cx: &Cx<'_>, x: &Tensor, f: &FeedForward<'_>) -> Result<Tensor> {
    let math = cx.math();
    let second = Bias::Full(f.b2);
    let _scope = x
        .gpu()?
        .scope("feed-forward", || work(math, x, [f.w1, f.w2], 1.0));
    if !cx.records(&[x, f.w1, f.b1, f.w2, f.b2]) {
        let inner = Cx::off().with(math);
        let (a, _) = forward(&inner, x, f.w1, Bias::Full(f.b1), Activation::Gelu, false)?;
        return Ok(forward(cx, &a, f.w2, second, Activation::None, false)?.0);
    }
    let first = Layer::new(x, f.w1, math);
    let z = first.product(&x.operand(math.operands)?, &f.w1.operand(math.operands)?)?;
    let a = gelu_bias(&z, &f.b1.cast(DType::F32)?)?;
    let (mut y, _) = forward(cx, &a, f.w2, second, Activation::None, false)?;
    drop(a);
    let [x, w1, b1, w2, b2] = [x, f.w1, f.b1, f.w2, f.b2].map(Tensor::clone);
    cx.record_one(&mut y, move |g, grads| {
        let _scope = g
            .gpu()?
            .scope("feed-forward gradient", || work(math, &x, [&w1, &w2], 2.0));
        let second = Layer::new(&z, &w2, math);
        if let Some(sums) = grads.sums(&b2)? {
            add_column_sums(&g, second.n, 0, &sums)?;
        }
        let g = g.cast(math.operands)?;
        let dz = second.input_gradient(&g, &w2.operand(math.operands)?, math.operands)?;
        let z = z.into_unique()?;
        let sums = grads.sums(&b1)?;
        gelu_bias_backward(&dz, &z, &b1.cast(DType::F32)?, sums.as_ref())?;
        let a = z;
        if let Some(sums) = grads.sums(&w2)? {
            second.add_weight_gradient(&g, &a, &sums)?;
        }
        drop((g, a));
        weight_and_input(first, &x, &w1, dz, grads)
    });
    Ok(y)
}

/// That of `times` as many products as forward has: x, y and the weights once in the products' type, the gradients like these,
/// the weights' in float32.
fn work(math: Math, x: &Tensor, weights: [&Tensor; 2], times: f64) -> Work {
    let (m, outputs) = (x.shape().rows(), weights[1].dims()[0]);
    let (rate, e) = (math.precision(), math.operands.bytes());
    let held: usize = weights.iter().map(|w| w.numel()).sum();
    let (maps, sums) = if times > 1.0 { (2, 4 * held) } else { (1, 0) };
    Work::of_bytes(e * held + sums)
        .and_bytes(maps * x.numel() * x.dtype().bytes() + e * m * outputs)
        .products(rate, times * 2.0 * m as f64 * held as f64)
        .sized(format!("{m}×{}×{}", weights[0].dims()[0], x.shape().last()))
}
