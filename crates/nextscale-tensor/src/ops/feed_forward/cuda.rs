//! The feed-forward branch on a GPU.

use super::FeedForward;
use crate::ops::linear::cuda::{Layer, add_column_sums, forward, into_gelu, weight_and_input};
use crate::ops::linear::{Activation, Bias};
use crate::{Cx, Result, Tensor};

pub(super) fn feed_forward(cx: &Cx<'_>, x: &Tensor, f: &FeedForward<'_>) -> Result<Tensor> {
    let records = cx.records(&[x, f.w1, f.b1, f.w2, f.b2]);
    // Between the layers values stay in the products' type, whatever the result's is to be.
    let math = cx.math();
    let (a, z) = forward(cx, x, f.w1, Bias::Full(f.b1), Activation::Gelu, records)?;
    let (mut y, _) = forward(cx, &a, f.w2, Bias::Full(f.b2), Activation::None, false)?;
    drop(a);
    if let Some(z) = z {
        let [x, w1, b1, w2, b2] = [x, f.w1, f.b1, f.w2, f.b2].map(Tensor::clone);
        cx.record_one(&mut y, move |g, grads| {
            let first = Layer::new(&x, &w1, math);
            let second = Layer::new(&z, &w2, math);
            if let Some(sums) = grads.sums(&b2)? {
                add_column_sums(&g, second.n, 0, &sums)?;
            }
            let g = g.cast(math.operands)?;
            let dz = second.input_gradient(&g, &w2.operand(math.operands)?, z.dtype(), Some(&z))?;
            if let Some(sums) = grads.sums(&w2)? {
                let a = into_gelu(z)?.cast(math.operands)?;
                second.add_weight_gradient(&g, &a, &sums)?;
            }
            drop(g);
            if let Some(sums) = grads.sums(&b1)? {
                add_column_sums(&dz, first.n, 0, &sums)?;
            }
            weight_and_input(first, &x, &w1, dz, grads)
        });
    }
    Ok(y)
}
