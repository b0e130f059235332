//! Products and convolutions of models' sizes on a GPU, beside the largest product that was measured.

use super::{Args, Target, numbers};
use nextscale::model::Pyramid;
use nextscale::options::values::parse_pn;
use nextscale::{Result, say};
use nextscale_tensor::cuda::ceilings::filled;
use nextscale_tensor::cuda::conv::Convolution;
use nextscale_tensor::cuda::matmul::{DevicePtr, Epilogue, Operands, Product};
use nextscale_tensor::cuda::timing::fastest;
use nextscale_tensor::cuda::{Ceilings, DeviceBuffer, Gpu};
use nextscale_tensor::{DType, Math};

/// The encoder's convolutions at 256 px: side, inputs and outputs in base widths, kernel, stride. The first has three inputs.
const CONVOLUTIONS: [(usize, usize, usize, usize, usize); 12] = [
    (256, 0, 1, 3, 1),
    (256, 1, 1, 3, 1),
    (256, 1, 1, 3, 2),
    (128, 1, 1, 3, 1),
    (64, 1, 2, 3, 1),
    (64, 1, 2, 1, 1),
    (64, 2, 2, 3, 1),
    (32, 2, 2, 3, 1),
    (32, 2, 2, 3, 2),
    (16, 2, 4, 3, 1),
    (16, 4, 4, 3, 1),
    (16, 4, 12, 1, 1),
];

/// What is the same for all.
struct Run<'a> {
    gpu: &'static Gpu,
    math: Math,
    ceilings: Ceilings,
    /// What operands are filled with.
    numbers: Vec<f32>,
    args: &'a Args,
}

/// The products of a transformer (depth 16 without --depth) and the encoder's convolutions, for batches of 96 without --bs.
pub fn products(args: &Args, gpu: &'static Gpu, target: Target) -> Result<()> {
    let math = target.1;
    let numbers = numbers();
    let ceilings = Ceilings::measure(gpu, math.operands, &numbers)?;
    gpu.trim()?;
    let run = Run {
        gpu,
        math,
        ceilings,
        numbers,
        args,
    };
    say!(
        "ceilings: products of 8192x8192 {:.1} TFLOP/s in half precision, {:.1} in TF32, {:.1} in float32; copies {:.1} GB/s",
        ceilings.half / 1e12,
        ceilings.tf32 / 1e12,
        ceilings.f32 / 1e12,
        ceilings.bandwidth / 1e9
    )?;
    let pn = args.pn.as_deref().unwrap_or("256");
    let pyramid = Pyramid::square(&parse_pn(pn)?)?;
    let rows = args.bs.unwrap_or(96) * pyramid.total();
    let width = 64 * args.depth.unwrap_or(16);
    say!("")?;
    say!(
        "{:34} {:>20} {:>20} {:>20}",
        "product",
        "forward ms TF/s  of",
        "input ms TF/s  of",
        "weights ms TF/s  of"
    )?;
    // The head computes in float32, rounded to TF32 where that is allowed.
    let wide = Math {
        operands: DType::F32,
        ..math
    };
    let vocab = 4096;
    for (name, n, k, math) in [
        ("qkv", 3 * width, width, math),
        ("proj", width, width, math),
        ("fc1", 4 * width, width, math),
        ("fc2", width, 4 * width, math),
        ("head", vocab, width, wide),
    ] {
        run.layer(name, (rows, n, k), math)?;
    }
    say!("")?;
    say!("{:34} {:>20}", "convolution", "ms TF/s  of")?;
    for shape in CONVOLUTIONS {
        run.convolution(shape)?;
    }
    Ok(())
}

impl Run<'_> {
    fn cell(&self, math: Math, ms: f32, flops: f64) -> String {
        let rate = flops / f64::from(ms) * 1e3;
        let share = 100.0 * rate / self.ceilings.of(math.precision());
        format!("{ms:8.3} {:5.0} {share:4.0}%", rate / 1e12)
    }

    /// x·Wᵀ, dy·W and dyᵀ·x of a layer with `m` rows.
    fn layer(&self, name: &str, (m, n, k): (usize, usize, usize), math: Math) -> Result<()> {
        let buffer = |elements| filled(self.gpu, &self.numbers, elements, math.operands);
        let (x, w, y) = (buffer(m * k)?, buffer(n * k)?, buffer(m * n)?);
        let sums = filled(self.gpu, &self.numbers, n * k, DType::F32)?;
        let mut cells = Vec::new();
        let kinds = [
            ((m, n, k), [false, true], [&x, &w, &y]),
            ((m, k, n), [false, false], [&y, &w, &x]),
            ((n, k, m), [true, false], [&y, &x, &sums]),
        ];
        for ((rows, columns, terms), turned, [a, b, c]) in kinds {
            let result = if turned[0] { DType::F32 } else { math.operands };
            let p = Product {
                m: rows,
                n: columns,
                k: terms,
                operands: math.operands,
                result,
                a_transposed: turned[0],
                b_transposed: turned[1],
                accumulate: turned[0],
                tf32: math.tf32,
                epilogue: Epilogue::Plain,
            };
            let o = Operands {
                a: DevicePtr(a, 0),
                b: DevicePtr(b, 0),
                c: DevicePtr(c, 0),
                vector: None,
                aux: None,
            };
            let ms = fastest(self.gpu, self.args.steps, || self.gpu.matmul(&p, &o))?;
            cells.push(self.cell(math, ms, 2.0 * m as f64 * (n * k) as f64));
        }
        let what = format!("{name} {m}x{n}x{k} {}", math.operands.name());
        say!(
            "{what:34} {:>20} {:>20} {:>20}",
            cells[0],
            cells[1],
            cells[2]
        )?;
        Ok(())
    }

    fn convolution(&self, shape: (usize, usize, usize, usize, usize)) -> Result<()> {
        let (side, inputs, outputs, kernel, stride) = shape;
        let ch = self.args.ch.unwrap_or(160);
        let c = Convolution {
            batch: self.args.bs.unwrap_or(96),
            h: side,
            w: side,
            inputs: if inputs == 0 { 3 } else { inputs * ch },
            outputs: outputs * ch,
            kh: kernel,
            kw: kernel,
            stride,
            pad: match stride {
                2 => [0, 0, 1, 1],
                _ => [kernel / 2; 4],
            },
            element: self.math.operands,
            tf32: self.math.tf32 && self.math.operands == DType::F32,
        };
        let (oh, ow) = c.out();
        let dtype = self.math.operands;
        let x = filled(
            self.gpu,
            &self.numbers,
            c.batch * side * side * c.inputs,
            dtype,
        )?;
        let w = filled(
            self.gpu,
            &self.numbers,
            c.outputs * kernel * kernel * c.inputs,
            dtype,
        )?;
        let b = filled(self.gpu, &self.numbers, c.outputs, DType::F32)?;
        let y = DeviceBuffer::new(self.gpu, c.batch * oh * ow * c.outputs * dtype.bytes())?;
        let ms = fastest(self.gpu, self.args.steps, || {
            let bias = Some(DevicePtr(&b, 0));
            self.gpu.conv_forward(
                &c,
                DevicePtr(&x, 0),
                DevicePtr(&w, 0),
                bias,
                None,
                DevicePtr(&y, 0),
            )
        })?;
        let what = format!(
            "{side}x{side} {} to {}, {kernel}x{kernel}, stride {stride}",
            c.inputs, c.outputs
        );
        say!("{what:34} {:>20}", self.cell(self.math, ms, c.operations()))?;
        Ok(())
    }
}
