//! The linear layer on a GPU: products by cuBLASLt with what follows done by the product where it can be.

use super::{Activation, Bias};
use crate::{Cx, DType, Grads, Math, Result, Tensor};
use nextscale_cuda::kernel::{MOST_COUNT, Shape as Launch};
use nextscale_cuda::matmul::{Epilogue, Operands, Product};
use nextscale_cuda::{Arg, Module, Work, kernels};

/// Rows of one block of the kernels that go down columns.
const TILE: usize = 256;

/// A product y = x·Wᵀ and those of its gradient: x \[m, k\], W \[n, k\], y \[m, n\].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layer {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
    pub(crate) math: Math,
}

impl Layer {
    pub(crate) fn new(x: &Tensor, w: &Tensor, math: Math) -> Self {
        let (m, k, n) = (x.shape().rows(), x.shape().last(), w.dims()[0]);
        Self { m, n, k, math }
    }

    /// Whether the library can apply GELU or its slope to a result with `columns`: its second result has rows of whole
    /// 16 bytes.
    fn follows_gelu(columns: usize) -> bool {
        columns.is_multiple_of(8)
    }

    /// x·Wᵀ in `result`, and what follows.
    fn forward(
        self,
        x: &Tensor,
        w: &Tensor,
        result: DType,
        epilogue: Epilogue,
        (vector, aux): (Option<&Tensor>, Option<&Tensor>),
    ) -> Result<Tensor> {
        let gpu = x.gpu()?;
        let y = Tensor::scratch(gpu, x.shape().with_last(self.n), result)?;
        let p = Product {
            m: self.m,
            n: self.n,
            k: self.k,
            operands: self.math.operands,
            result,
            a_transposed: false,
            b_transposed: true,
            accumulate: false,
            tf32: self.math.tf32,
            epilogue,
        };
        let o = Operands {
            a: x.device_ptr()?,
            b: w.device_ptr()?,
            c: y.device_ptr()?,
            vector: vector.map(Tensor::device_ptr).transpose()?,
            aux: aux.map(Tensor::device_ptr).transpose()?,
        };
        gpu.matmul(&p, &o)?;
        Ok(y)
    }

    /// dx = dy·W.
    pub(crate) fn input_gradient(self, dy: &Tensor, w: &Tensor, result: DType) -> Result<Tensor> {
        let gpu = dy.gpu()?;
        let dx = Tensor::scratch(gpu, dy.shape().with_last(self.k), result)?;
        let p = Product {
            m: self.m,
            n: self.k,
            k: self.n,
            operands: self.math.operands,
            result,
            a_transposed: false,
            b_transposed: false,
            accumulate: false,
            tf32: self.math.tf32,
            epilogue: Epilogue::Plain,
        };
        let o = Operands {
            a: dy.device_ptr()?,
            b: w.device_ptr()?,
            c: dx.device_ptr()?,
            vector: None,
            aux: None,
        };
        gpu.matmul(&p, &o)?;
        Ok(dx)
    }

    /// x·Wᵀ and nothing else, in the operands' type.
    pub(crate) fn product(self, x: &Tensor, w: &Tensor) -> Result<Tensor> {
        self.forward(x, w, self.math.operands, Epilogue::Plain, (None, None))
    }

    /// sums += dyᵀ·x in float32.
    pub(crate) fn add_weight_gradient(self, dy: &Tensor, x: &Tensor, sums: &Tensor) -> Result<()> {
        let p = Product {
            m: self.n,
            n: self.k,
            k: self.m,
            operands: self.math.operands,
            result: DType::F32,
            a_transposed: true,
            b_transposed: false,
            accumulate: true,
            tf32: self.math.tf32,
            epilogue: Epilogue::Plain,
        };
        let o = Operands {
            a: dy.device_ptr()?,
            b: x.device_ptr()?,
            c: sums.device_ptr()?,
            vector: None,
            aux: None,
        };
        Ok(dy.gpu()?.matmul(&p, &o)?)
    }
}

/// That of y = x·Wᵀ, y in `result`.
fn work(math: Math, x: &Tensor, w: &Tensor, result: DType) -> Work {
    let Layer { m, n, k, .. } = Layer::new(x, w, math);
    let moved = n * k * math.operands.bytes() + m * n * result.bytes();
    Work::moving(&[x])
        .and_bytes(moved)
        .products(math.precision(), 2.0 * m as f64 * (n * k) as f64)
        .sized(format!("{m}×{n}×{k}"))
}

/// That of its gradient for that of y, `g`: dW in float32, and dx in x's type where it is wanted.
fn gradient_work(math: Math, x: &Tensor, w: &Tensor, g: &Tensor, input: bool) -> Work {
    let Layer { m, n, k, .. } = Layer::new(x, w, math);
    let mut work = Work::moving(&[x, g]).and_bytes(n * k * DType::F32.bytes());
    let one = 2.0 * m as f64 * (n * k) as f64;
    let mut flops = one;
    if input {
        work = work.and(&[x]).and_bytes(n * k * math.operands.bytes());
        flops += one;
    }
    work.products(math.precision(), flops)
        .sized(format!("{m}×{n}×{k}"))
}

/// y and, when asked for, the sum before the activation.
pub(crate) fn forward(
    cx: &Cx<'_>,
    x: &Tensor,
    w: &Tensor,
    bias: Bias<'_>,
    activation: Activation,
    keep_sum: bool,
) -> Result<(Tensor, Option<Tensor>)> {
    let (math, result) = (cx.math(), cx.result());
    let _scope = x.gpu()?.scope("linear", || work(math, x, w, result));
    let layer = Layer::new(x, w, math);
    let (x, w) = (x.operand(math.operands)?, w.operand(math.operands)?);
    let bias = match bias {
        Bias::None => None,
        Bias::Full(b) => Some(b.operand(result)?),
        Bias::QkV { q, v } => Some(qkv_bias(q, v, layer.n, result)?),
    };
    let vector = bias.as_ref();
    let plain = vector.map_or(Epilogue::Plain, |_| Epilogue::Bias);
    match activation {
        Activation::None => Ok((layer.forward(&x, &w, result, plain, (vector, None))?, None)),
        Activation::Gelu if vector.is_some() && Layer::follows_gelu(layer.n) => {
            if !keep_sum {
                let y = layer.forward(&x, &w, result, Epilogue::BiasGeluOnly, (vector, None))?;
                return Ok((y, None));
            }
            let z = Tensor::scratch(x.gpu()?, x.shape().with_last(layer.n), result)?;
            let y = layer.forward(&x, &w, result, Epilogue::BiasGelu, (vector, Some(&z)))?;
            Ok((y, Some(z)))
        }
        Activation::Gelu => {
            let z = layer.forward(&x, &w, result, plain, (vector, None))?;
            if !keep_sum {
                return Ok((into_gelu(z)?, None));
            }
            let gpu = z.gpu()?;
            let y = Tensor::scratch(gpu, z.shape(), result)?;
            let name = ("gelu", result);
            let args = [z.arg()?, y.arg()?, Arg::U64(z.numel() as u64)];
            gpu.launch(&MODULE, name, Launch::pass(gpu, z.numel()), &args)?;
            Ok((y, Some(z)))
        }
    }
}

/// Adds to the gradients of x, W and the biases. `sum` is what was kept where there is an activation.
pub(super) fn backward(
    math: Math,
    (x, w): (&Tensor, &Tensor),
    biases: &[(Tensor, usize)],
    sum: Option<Tensor>,
    g: Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let (gpu, input) = (g.gpu()?, grads.wants(x));
    let _scope = gpu.scope("linear gradient", || gradient_work(math, x, w, &g, input));
    let layer = Layer::new(x, w, math);
    let dz = match sum {
        Some(z) => {
            let g = g.into_unique()?;
            times_slope(&g, &z)?;
            g
        }
        None => g,
    };
    for (b, at) in biases {
        if let Some(sums) = grads.sums(b)? {
            add_column_sums(&dz, layer.n, *at, &sums)?;
        }
    }
    weight_and_input(layer, x, w, dz, grads)
}

/// Adds dzᵀ·x to the gradient of W and dz·W to that of x.
pub(crate) fn weight_and_input(
    layer: Layer,
    x: &Tensor,
    w: &Tensor,
    dz: Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let operands = layer.math.operands;
    let dz = dz.cast(operands)?;
    if let Some(sums) = grads.sums(w)? {
        layer.add_weight_gradient(&dz, &x.operand(operands)?, &sums)?;
    }
    if grads.wants(x) {
        // In x's own type where the library can write it.
        let result = if x.dtype() == operands {
            operands
        } else {
            DType::F32
        };
        let dx = layer.input_gradient(&dz, &w.operand(operands)?, result)?;
        grads.add(x, dx)?;
    }
    Ok(())
}

/// q, zeros, v as one vector of n.
fn qkv_bias(q: &Tensor, v: &Tensor, n: usize, dtype: DType) -> Result<Tensor> {
    const OP: &str = "linear";
    let gpu = q.gpu()?;
    gpu.counts(&MODULE, n, MOST_COUNT, "outputs")?;
    let y = Tensor::scratch(gpu, [n], dtype)?;
    let name = ("qkv_bias", dtype);
    let (q, v) = (q.arg_of(OP, DType::F32)?, v.arg_of(OP, DType::F32)?);
    let shape = Launch {
        grid: [n.div_ceil(256), 1, 1],
        threads: 256,
        shared: 0,
    };
    let args = [q, v, y.arg()?, Arg::Count(n / 3)];
    gpu.launch(&MODULE, name, shape, &args)?;
    Ok(y)
}

/// GELU(z) in z's memory where nobody else holds it.
fn into_gelu(z: Tensor) -> Result<Tensor> {
    let z = z.into_unique()?;
    let gpu = z.gpu()?;
    let name = ("gelu_at", z.dtype());
    let args = [z.arg()?, Arg::U64(z.numel() as u64)];
    gpu.launch(&MODULE, name, Launch::pass(gpu, z.numel()), &args)?;
    Ok(z)
}

/// How kernels over a matrix \[m, n\] are launched whose blocks take 256 rows of 256 columns.
fn tiles(m: usize, n: usize) -> Launch {
    Launch {
        grid: [n.div_ceil(256), m.div_ceil(TILE), 1],
        threads: 256,
        shared: 0,
    }
}

/// GELU(z + bias) for z \[m, n\].
pub(crate) fn gelu_bias(z: &Tensor, bias: &Tensor) -> Result<Tensor> {
    let (m, n) = (z.shape().rows(), z.shape().last());
    let gpu = z.gpu()?;
    let a = Tensor::scratch(gpu, z.shape(), z.dtype())?;
    let name = ("gelu_bias", z.dtype());
    let bias = bias.arg_of("feed_forward", DType::F32)?;
    let (rows, cols) = (Arg::Count(m), Arg::Count(n));
    let args = [z.arg()?, bias, a.arg()?, rows, cols];
    gpu.launch(&MODULE, name, tiles(m, n), &args)?;
    Ok(a)
}

/// From the gradient `g` behind GELU(z + bias) to that before it, in g's memory; z's becomes GELU(z + bias). Nobody else may
/// hold them. Adds the columns' sums of the gradient to `bias_sums`.
pub(crate) fn gelu_bias_backward(
    g: &Tensor,
    z: &Tensor,
    bias: &Tensor,
    bias_sums: Option<&Tensor>,
) -> Result<()> {
    const OP: &str = "feed_forward";
    let (m, n) = (z.shape().rows(), z.shape().last());
    let gpu = z.gpu()?;
    let partial = Tensor::scratch(gpu, [m.div_ceil(TILE), n], DType::F32)?;
    let args = [
        g.arg_of(OP, z.dtype())?,
        z.arg()?,
        bias.arg_of(OP, DType::F32)?,
        partial.arg()?,
        Arg::Count(m),
        Arg::Count(n),
    ];
    gpu.launch(
        &MODULE,
        ("gelu_bias_backward", z.dtype()),
        tiles(m, n),
        &args,
    )?;
    bias_sums.map_or(Ok(()), |sums| add_rows(&partial, sums))
}

/// g ← g·GELU′(z), both of one type.
fn times_slope(g: &Tensor, z: &Tensor) -> Result<()> {
    let gpu = g.gpu()?;
    let z_arg = z.arg_of("linear", g.dtype())?;
    let args = [g.arg()?, z_arg, Arg::U64(g.numel() as u64)];
    Ok(gpu.launch(
        &MODULE,
        ("gelu_slope", g.dtype()),
        Launch::pass(gpu, g.numel()),
        &args,
    )?)
}

/// Adds the sums of the columns `at..at + out.numel()` of a matrix with `n` columns to `out`, float32. Blocks of rows are
/// summed apart and then in a fixed order.
pub(crate) fn add_column_sums(x: &Tensor, n: usize, at: usize, out: &Tensor) -> Result<()> {
    let gpu = x.gpu()?;
    let (m, width) = (x.numel() / n.max(1), out.numel());
    if m == 0 || width == 0 {
        return Ok(());
    }
    let blocks = m.div_ceil(TILE);
    let partial = Tensor::scratch(gpu, [blocks, width], DType::F32)?;
    let args = [
        x.arg()?,
        partial.arg()?,
        Arg::Count(m),
        Arg::Count(n),
        Arg::Count(at),
        Arg::Count(width),
    ];
    gpu.launch(&MODULE, ("column_sums", x.dtype()), tiles(m, width), &args)?;
    add_rows(&partial, out)
}

/// out += the sum of the rows of partial \[rows, out.numel()\], in a fixed order.
pub(crate) fn add_rows(partial: &Tensor, out: &Tensor) -> Result<()> {
    let gpu = partial.gpu()?;
    let width = out.numel();
    let rows = partial.numel() / width.max(1);
    let shape = Launch {
        grid: [width.div_ceil(32).max(1), 1, 1],
        threads: 1024,
        shared: 0,
    };
    let args = [
        partial.arg_of("add_rows", DType::F32)?,
        out.arg_of("add_rows", DType::F32)?,
        Arg::Count(rows),
        Arg::Count(width),
    ];
    Ok(gpu.launch(&MODULE, "add_rows", shape, &args)?)
}

/// The kernels of linear layers.
pub(crate) static MODULE: Module = Module {
    name: "linear",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        qkv_bias: "pppi" for f32 bf16 f16;
        gelu: "ppu" for f32 bf16 f16;
        gelu_at: "pu" for f32 bf16 f16;
        gelu_slope: "ppu" for f32 bf16 f16;
        column_sums: "ppiiii" for f32 bf16 f16;
        gelu_bias: "pppii" for f32 bf16 f16;
        gelu_bias_backward: "ppppii" for f32 bf16 f16;
        add_rows: "ppii";
    },
};

#[cfg(test)]
mod tests {
    use super::*;
    use nextscale_cuda::Precision;

    #[test]
    fn a_layer_counts_its_products_and_what_it_moves() {
        let bf16 = Math {
            operands: DType::Bf16,
            tf32: true,
        };
        let (x, w) = (Tensor::zeros([2, 3, 5]), Tensor::zeros([7, 5]));
        let forward = work(bf16, &x, &w, DType::Bf16);
        assert_eq!(forward.flops, 2.0 * 6.0 * 7.0 * 5.0);
        assert_eq!(forward.bytes, (6 * 5 * 4 + 7 * 5 * 2 + 6 * 7 * 2) as f64);
        assert_eq!(
            (forward.rate, forward.note.as_str()),
            (Precision::Bf16, "6×7×5")
        );
        let g = Tensor::zeros([2, 3, 7]);
        let weights = gradient_work(Math::FULL, &x, &w, &g, false);
        assert_eq!(weights.flops, forward.flops);
        assert_eq!(weights.bytes, (4 * (6 * 5 + 6 * 7 + 7 * 5)) as f64);
        let both = gradient_work(Math::FULL, &x, &w, &g, true);
        assert_eq!(both.flops, 2.0 * forward.flops);
        assert_eq!(both.bytes, weights.bytes + (4 * (6 * 5 + 7 * 5)) as f64);
        assert_eq!(both.rate, Precision::Fp32);
    }
}
