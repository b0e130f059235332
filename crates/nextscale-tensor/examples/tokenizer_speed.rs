//! Speed of the tokenizer's operators on a GPU, at the sizes of a 256-pixel encoder of width 160.
//! `cargo run --release -p nextscale-tensor --example tokenizer_speed -- [BATCH [f32|tf32|bf16|f16 [forward|backward [SIDE]]]]`

use nextscale_tensor::cuda::conv::Convolution;
use nextscale_tensor::cuda::matmul::DevicePtr;
use nextscale_tensor::cuda::timing::fastest;
use nextscale_tensor::cuda::{DeviceBuffer, Gpu};
use nextscale_tensor::ops::{Conv, InputNorm, conv2d, group_norm, normed_conv2d, phi};
use nextscale_tensor::ops::{spatial_attention, upsample_nearest2x};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Cx, DType, Device, Math, Result, Tensor};

/// Side, inputs, outputs, kernel, stride, whether a residual is added, how often the encoder has it.
type Shape = (usize, usize, usize, usize, usize, bool, usize);

const CONVOLUTIONS: [Shape; 23] = [
    (256, 3, 160, 3, 1, false, 1),
    (256, 160, 160, 3, 1, false, 2),
    (256, 160, 160, 3, 1, true, 2),
    (256, 160, 160, 3, 2, false, 1),
    (128, 160, 160, 3, 1, false, 2),
    (128, 160, 160, 3, 1, true, 2),
    (128, 160, 160, 3, 2, false, 1),
    (64, 160, 320, 3, 1, false, 1),
    (64, 160, 320, 1, 1, false, 1),
    (64, 320, 320, 3, 1, false, 1),
    (64, 320, 320, 3, 1, true, 2),
    (64, 320, 320, 3, 2, false, 1),
    (32, 320, 320, 3, 1, false, 2),
    (32, 320, 320, 3, 1, true, 2),
    (32, 320, 320, 3, 2, false, 1),
    (16, 320, 640, 3, 1, false, 1),
    (16, 320, 640, 1, 1, false, 1),
    (16, 640, 640, 3, 1, false, 3),
    (16, 640, 640, 3, 1, true, 4),
    (16, 640, 1920, 1, 1, false, 3),
    (16, 640, 640, 1, 1, true, 3),
    (16, 640, 32, 3, 1, false, 1),
    (16, 32, 32, 3, 1, false, 1),
];
/// The decoder's last one, for itself.
const LAST: Shape = (256, 160, 3, 3, 1, false, 0);

/// Side, channels, how often.
const NORMS: [(usize, usize, usize); 8] = [
    (256, 160, 4),
    (128, 160, 4),
    (64, 160, 1),
    (64, 320, 3),
    (32, 320, 4),
    (16, 320, 1),
    (16, 640, 10),
    (16, 32, 0),
];

/// A buffer of random numbers, a piece of them again and again.
fn random(gpu: &'static Gpu, n: usize, dtype: DType) -> Result<DeviceBuffer> {
    const PIECE: usize = 1 << 22;
    let mut s = Stream::new(1, Purpose::Test, 0, 0);
    let piece: Vec<u8> = (0..PIECE.min(n))
        .flat_map(|_| {
            let x = s.normal();
            match dtype {
                DType::Bf16 => half::bf16::from_f32(x).to_le_bytes().to_vec(),
                DType::F16 => half::f16::from_f32(x).to_le_bytes().to_vec(),
                _ => x.to_le_bytes().to_vec(),
            }
        })
        .collect();
    let bytes = n * dtype.bytes();
    let all = DeviceBuffer::new(gpu, bytes)?;
    gpu.upload(&piece, &all)?;
    let mut at = piece.len();
    while at < bytes {
        let more = piece.len().min(bytes - at);
        gpu.copy(DevicePtr(&all, 0), DevicePtr(&all, at), more)?;
        at += more;
    }
    Ok(all)
}

struct Run {
    gpu: &'static Gpu,
    batch: usize,
    dtype: DType,
    tf32: bool,
    runs: usize,
}

impl Run {
    /// Milliseconds of the forward pass and, where wanted, of the two gradients and the bias's.
    fn convolution(&self, shape: Shape, backward: bool) -> Result<(f64, Vec<f32>)> {
        let (side, inputs, outputs, kernel, stride, added, _) = shape;
        let pad = if stride == 2 {
            [0, 0, 1, 1]
        } else {
            [kernel / 2; 4]
        };
        let c = Convolution {
            batch: self.batch,
            h: side,
            w: side,
            inputs,
            outputs,
            kh: kernel,
            kw: kernel,
            stride,
            pad,
            element: self.dtype,
            tf32: self.tf32,
        };
        let (oh, ow) = c.out();
        let (nx, ny) = (
            self.batch * side * side * inputs,
            self.batch * oh * ow * outputs,
        );
        let nw = outputs * kernel * kernel * inputs;
        let (x, w) = (
            random(self.gpu, nx, self.dtype)?,
            random(self.gpu, nw, self.dtype)?,
        );
        let (b, y) = (
            random(self.gpu, outputs, DType::F32)?,
            random(self.gpu, ny, self.dtype)?,
        );
        let residual = if added {
            Some(random(self.gpu, ny, self.dtype)?)
        } else {
            None
        };
        let at = |b| DevicePtr(b, 0);
        let mut times = vec![fastest(self.gpu, self.runs, || {
            let r = residual.as_ref().map(at);
            self.gpu
                .conv_forward(&c, at(&x), at(&w), Some(at(&b)), r, at(&y))
        })?];
        if backward {
            let (dx, dw) = (
                DeviceBuffer::new(self.gpu, nx * self.dtype.bytes())?,
                random(self.gpu, nw, DType::F32)?,
            );
            times.push(fastest(self.gpu, self.runs, || {
                self.gpu.conv_data_gradient(&c, at(&y), at(&w), at(&dx))
            })?);
            times.push(fastest(self.gpu, self.runs, || {
                self.gpu.conv_weight_gradient(&c, at(&x), at(&y), at(&dw))
            })?);
            times.push(fastest(self.gpu, self.runs, || {
                self.gpu
                    .add_row_sums(at(&y), c.element, ny / outputs, outputs, at(&b))
            })?);
        }
        Ok((c.operations(), times))
    }

    fn tensor(&self, dims: [usize; 4], dtype: DType) -> Result<Tensor> {
        Tensor::zeros_on(Device::Cuda(0), dims, dtype)
    }

    /// Random numbers, the same few again and again, on the GPU.
    fn random_tensor(&self, dims: [usize; 4], dtype: DType) -> Result<Tensor> {
        let mut s = Stream::new(1, Purpose::Test, 1, 0);
        let some: Vec<f32> = (0..37 * 1031).map(|_| s.normal()).collect();
        let n = dims.iter().product();
        let x: Vec<f32> = some.iter().cycle().take(n).copied().collect();
        Tensor::from_vec(dims, x).to(Device::Cuda(0))?.cast(dtype)
    }

    /// Milliseconds of norm, SiLU and convolution: one after the other, and as one operator.
    fn normed(&self, shape: Shape) -> Result<[f32; 2]> {
        let (side, inputs, outputs, kernel, _, added, _) = shape;
        let cx = Cx::off().with(Math {
            operands: self.dtype,
            tf32: self.tf32,
        });
        let x = self.random_tensor([self.batch, side, side, inputs], self.dtype)?;
        let gamma = self
            .random_tensor([1, 1, 1, inputs], DType::F32)?
            .reshape([inputs])?;
        let w = self
            .random_tensor([outputs, kernel, kernel, inputs], DType::F32)?
            .cast(self.dtype)?;
        let b = self
            .random_tensor([1, 1, 1, outputs], DType::F32)?
            .reshape([outputs])?;
        let y = [self.batch, side, side, outputs];
        let residual = added
            .then(|| self.random_tensor(y, self.dtype))
            .transpose()?;
        let (conv, r) = (Conv::same(kernel), residual.as_ref());
        let apart = fastest(self.gpu, self.runs, || {
            let x = group_norm(&cx, &x, &gamma, &gamma, 32, 1e-6, true)?;
            conv2d(&cx, &x, &w, &b, conv, r).map(drop)
        })?;
        let norm = InputNorm {
            gamma: &gamma,
            beta: &gamma,
            groups: 32,
            eps: 1e-6,
            silu: true,
        };
        let together = fastest(self.gpu, self.runs, || {
            normed_conv2d(&cx, &x, norm, (&w, &b), conv, r).map(drop)
        })?;
        Ok([apart, together])
    }

    fn others(&self) -> Result<f32> {
        let cx = Cx::off().with(Math {
            operands: self.dtype,
            tf32: self.tf32,
        });
        let mut all = 0.0;
        for (side, c, times) in NORMS {
            let x = self.tensor([self.batch, side, side, c], self.dtype)?;
            let gamma = self.tensor([1, 1, 1, c], DType::F32)?.reshape([c])?;
            let ms = fastest(self.gpu, self.runs, || {
                group_norm(&cx, &x, &gamma, &gamma, 32, 1e-6, true).map(drop)
            })?;
            let bytes = 3.0 * (x.numel() * self.dtype.bytes()) as f64;
            let speed = bytes / f64::from(ms) / 1e9;
            println!("norm {side:4}² {c:4}: {ms:8.3} ms {speed:6.2} TB/s  ×{times}");
            all += ms * times as f32;
        }
        println!("norms of the encoder: {all:.2} ms");
        let qkv = self.tensor([self.batch, 16, 16, 1920], self.dtype)?;
        let ms = fastest(self.gpu, self.runs, || {
            spatial_attention(&cx, &qkv).map(drop)
        })?;
        println!("attention 16² 640: {ms:.3} ms  ×3");
        let x = self.tensor([self.batch, 16, 16, 32], DType::F32)?;
        let w = self.tensor([32, 3, 3, 32], DType::F32)?;
        let b = self.tensor([1, 1, 1, 32], DType::F32)?.reshape([32])?;
        let ms = fastest(self.gpu, self.runs, || phi(&cx, &x, &w, &b, 0.5).map(drop))?;
        println!("phi 16² 32: {ms:.4} ms");
        let x = self.tensor([self.batch, 128, 128, 160], self.dtype)?;
        let ms = fastest(self.gpu, self.runs, || {
            upsample_nearest2x(&cx, &x).map(drop)
        })?;
        let bytes = 5.0 * (x.numel() * self.dtype.bytes()) as f64;
        let speed = bytes / f64::from(ms) / 1e9;
        println!("upsample 128² 160: {ms:.3} ms {speed:.2} TB/s");
        Ok(all)
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let batch = args.first().and_then(|a| a.parse().ok()).unwrap_or(96);
    let (dtype, tf32) = match args.get(1).map(String::as_str) {
        Some("f32") => (DType::F32, false),
        Some("tf32") => (DType::F32, true),
        Some("f16") => (DType::F16, false),
        _ => (DType::Bf16, false),
    };
    let backward = args.get(2).is_some_and(|a| a == "backward");
    let side = args.get(3).and_then(|a| a.parse::<usize>().ok());
    let run = Run {
        gpu: Gpu::get(0)?,
        batch,
        dtype,
        tf32,
        runs: 5,
    };
    if side.is_none() {
        run.others()?;
    }
    let mut all = 0.0;
    for shape in CONVOLUTIONS.into_iter().chain([LAST]) {
        if side.is_some_and(|s| s != shape.0) {
            continue;
        }
        let begun = std::time::Instant::now();
        let (operations, times) = run.convolution(shape, backward)?;
        let took = begun.elapsed().as_secs_f32();
        let (side, inputs, outputs, kernel, stride, added, often) = shape;
        let plus = if added { '+' } else { ' ' };
        print!("{side:4}² {inputs:4}→{outputs:4} {kernel}×{kernel}/{stride}{plus} ×{often}:");
        for ms in &times {
            print!(" {ms:8.3} ms {:5.0}", operations / f64::from(*ms) / 1e9);
        }
        if !backward && stride == 1 && kernel == 3 && inputs >= 32 {
            let [apart, together] = run.normed(shape)?;
            print!("  behind a norm {apart:8.3} ms, as one {together:8.3} ms");
        }
        println!("  ({took:.1} s)");
        all += times[0] * often as f32;
    }
    println!(
        "convolutions above as often as the encoder has them, batch {batch}, forward: {all:.2} ms"
    );
    Ok(())
}
