//! The attention on a GPU: scores as batched products in float32, the softmax, products with the probabilities. Images go
//! in pieces, so that scores never take more than a fixed amount of memory.

use super::Sizes;
use crate::{DType, Math, Result, Tensor};
use nextscale_cuda::gpu::Gpu;
use nextscale_cuda::kernel::{Arg, Module, Shape};
use nextscale_cuda::matmul::{Batch, DevicePtr, Epilogue, Operands, Product};
use nextscale_cuda::{DeviceBuffer, Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "spatial_attention",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        softmax: "ppif" for f32 bf16 f16;
        gradient: "pppif" for f32 bf16 f16;
    },
};

/// Bytes of scores at a time.
const ROOM: usize = 512 << 20;

/// A matrix an image: its place, elements from row to row, elements from image to image.
#[derive(Clone, Copy)]
struct Matrices<'a>(DevicePtr<'a>, usize, usize);

/// What is the same in every step.
#[derive(Clone, Copy)]
struct Run {
    gpu: &'static Gpu,
    dtype: DType,
    tf32: bool,
    s: Sizes,
}

impl Run {
    fn new(math: Math, s: Sizes, qkv: &Tensor) -> Result<Self> {
        Ok(Self {
            gpu: qkv.gpu()?,
            dtype: math.operands,
            tf32: math.tf32 && math.operands == DType::F32,
            s,
        })
    }

    /// That of so many products of \[positions, positions\] with \[positions, C\], and of moving maps like y.
    fn work(&self, products: f64, maps: usize) -> Work {
        let Sizes {
            batch,
            positions: n,
            c,
        } = self.s;
        Work::of_bytes(maps * batch * n * c * self.dtype.bytes()).products(
            Math {
                operands: self.dtype,
                tf32: self.tf32,
            }
            .precision(),
            products * 2.0 * (batch * n * n) as f64 * c as f64,
        )
    }

    fn square(&self, element: DType) -> Result<DeviceBuffer> {
        let n = self.s.positions;
        Ok(DeviceBuffer::new(
            self.gpu,
            self.s.batch * n * n * element.bytes(),
        )?)
    }

    /// The matrices of scores in a buffer.
    fn scores<'a>(&self, buffer: &'a DeviceBuffer) -> Matrices<'a> {
        let n = self.s.positions;
        Matrices(DevicePtr(buffer, 0), n, n * n)
    }

    /// A third of a tensor like qkv (0, 1, 2), or the whole of one like y.
    fn map<'a>(&self, t: &'a Tensor, first: usize, third: Option<usize>) -> Result<Matrices<'a>> {
        let (n, c) = (self.s.positions, self.s.c);
        let width = if third.is_some() { 3 * c } else { c };
        let DevicePtr(buffer, byte) = t.device_ptr()?;
        let skip = first * n * width + third.unwrap_or(0) * c;
        let ptr = DevicePtr(buffer, byte + skip * self.dtype.bytes());
        Ok(Matrices(ptr, width, n * width))
    }

    /// c = a·b for every image, each factor turned where `turned` says so.
    fn product(
        &self,
        (m, n, k): (usize, usize, usize),
        turned: [bool; 2],
        [a, b, c]: [Matrices<'_>; 3],
        result: DType,
    ) -> Result<()> {
        let p = Product {
            m,
            n,
            k,
            operands: self.dtype,
            result,
            a_transposed: turned[0],
            b_transposed: turned[1],
            accumulate: false,
            tf32: self.tf32,
            epilogue: Epilogue::Plain,
        };
        let batch = Batch {
            count: self.s.batch,
            rows: [a.1, b.1, c.1],
            steps: [a.2, b.2, c.2],
        };
        let operands = Operands {
            a: a.0,
            b: b.0,
            c: c.0,
            vector: None,
            aux: None,
        };
        Ok(self.gpu.matmul_batch(&p, &batch, &operands)?)
    }

    /// Launches a kernel that has a row a block.
    fn rows(&self, name: &'static str, buffers: &[&DeviceBuffer]) -> Result<()> {
        let (n, rows) = (self.s.positions, self.s.batch * self.s.positions);
        let mut args: Vec<Arg<'_>> = buffers.iter().map(|b| Arg::In(b)).collect();
        args.push(Arg::Count(n));
        args.push(Arg::F32(1.0 / (self.s.c as f32).sqrt()));
        let shape = Shape {
            grid: [rows, 1, 1],
            threads: n.next_multiple_of(32).min(256) as u32,
            shared: 0,
        };
        Ok(self.gpu.launch(&MODULE, (name, self.dtype), shape, &args)?)
    }

    /// The probabilities of the images from `first` on.
    fn probabilities(&self, qkv: &Tensor, first: usize) -> Result<DeviceBuffer> {
        let (n, c) = (self.s.positions, self.s.c);
        let scores = self.square(DType::F32)?;
        let (q, k) = (
            self.map(qkv, first, Some(0))?,
            self.map(qkv, first, Some(1))?,
        );
        let out = self.scores(&scores);
        self.product((n, n, c), [false, true], [q, k, out], DType::F32)?;
        let p = self.square(self.dtype)?;
        self.rows("softmax", &[&scores, &p])?;
        Ok(p)
    }

    /// Runs `step` on pieces of the batch, with the piece's sizes and first image.
    fn in_pieces(&self, step: impl Fn(&Self, usize) -> Result<()>) -> Result<()> {
        let n = self.s.positions;
        let images = (ROOM / (n * n * 4)).max(1);
        let mut first = 0;
        while first < self.s.batch {
            let batch = images.min(self.s.batch - first);
            let piece = Self {
                s: Sizes { batch, ..self.s },
                ..*self
            };
            step(&piece, first)?;
            first += batch;
        }
        Ok(())
    }
}

pub(super) fn forward(math: Math, s: Sizes, qkv: &Tensor) -> Result<Tensor> {
    let run = Run::new(math, s, qkv)?;
    let _scope = run.gpu.scope("spatial attention", || run.work(2.0, 4));
    let &[b, h, w, _] = qkv.dims() else {
        return Err(qkv.wrong("a feature map"));
    };
    let qkv = qkv.cast(run.dtype)?;
    let y = Tensor::scratch(run.gpu, [b, h, w, s.c], run.dtype)?;
    run.in_pieces(|run, first| {
        let p = run.probabilities(&qkv, first)?;
        let (n, c) = (run.s.positions, run.s.c);
        let (v, y) = (run.map(&qkv, first, Some(2))?, run.map(&y, first, None)?);
        run.product((n, c, n), [false, false], [run.scores(&p), v, y], run.dtype)
    })?;
    Ok(y)
}

/// The gradient of qkv for that of y.
pub(super) fn backward(math: Math, s: Sizes, qkv: &Tensor, g: &Tensor) -> Result<Tensor> {
    let run = Run::new(math, s, qkv)?;
    // Five products: the probabilities are made again.
    let _scope = run
        .gpu
        .scope("spatial attention gradient", || run.work(5.0, 7));
    let (qkv, g) = (qkv.cast(run.dtype)?, g.cast(run.dtype)?);
    let d = Tensor::scratch(run.gpu, qkv.shape(), run.dtype)?;
    run.in_pieces(|run, first| {
        let (n, c, e) = (run.s.positions, run.s.c, run.dtype);
        let third = |t, i| run.map(t, first, Some(i));
        let g = run.map(&g, first, None)?;
        let p = run.probabilities(&qkv, first)?;
        let (probabilities, dv) = (run.scores(&p), third(&d, 2)?);
        run.product((n, c, n), [true, false], [probabilities, g, dv], e)?;
        let dp = run.square(DType::F32)?;
        let out = run.scores(&dp);
        run.product(
            (n, n, c),
            [false, true],
            [g, third(&qkv, 2)?, out],
            DType::F32,
        )?;
        let ds = run.square(e)?;
        run.rows("gradient", &[&p, &dp, &ds])?;
        let ds = run.scores(&ds);
        run.product(
            (n, c, n),
            [false, false],
            [ds, third(&qkv, 1)?, third(&d, 0)?],
            e,
        )?;
        run.product(
            (n, c, n),
            [true, false],
            [ds, third(&qkv, 0)?, third(&d, 1)?],
            e,
        )
    })?;
    Ok(d)
}
