//! Times of what happens to token logits on a GPU: cross entropy with its gradient, and drawing with guidance, beside
//! what the memory allows. `cargo run --release -p nextscale-tensor --example token_speed [rows of 680 tokens]`

mod timing;

use nextscale_tensor::ops::{self, Draw, draw_params};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Cx, DType, Device, Result, Tape, Tensor};

const V: usize = 4096;
const SCALES: [usize; 10] = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16];

/// Logits \[b, l, V\] of a few different rows, again and again.
fn logits(b: usize, l: usize) -> Result<Tensor> {
    let mut s = Stream::new(1, Purpose::Test, 0, 0);
    let rows: Vec<f32> = (0..37 * V).map(|_| 2.5 * s.normal()).collect();
    let x: Vec<f32> = rows.iter().copied().cycle().take(b * l * V).collect();
    Tensor::from_vec([b, l, V], x).to(Device::Cuda(0))
}

/// Milliseconds a call, the best of 5 rounds.
fn time(runs: usize, f: impl FnMut() -> Result<()>) -> Result<f64> {
    timing::fastest(5, runs, f)
}

fn cross_entropy(b: usize) -> Result<()> {
    let l = 680;
    let mut x = logits(b, l)?;
    let bytes = (x.numel() * 4) as f64;
    let t: Vec<i32> = (0..b * l).map(|i| (i * 977 % V) as i32).collect();
    let t = Tensor::from_i32([b, l], t).to(Device::Cuda(0))?;
    let w = vec![1.0 / l as f32; l];
    let forward = time(10, || {
        ops::cross_entropy(&Cx::off(), x.clone(), &t, &w, 0.1).map(|_| ())
    })?;
    let both = time(10, || {
        let tape = Tape::new();
        let cx = Cx::on(&tape);
        let (leaf, key) = cx.leaf(&x);
        // Nobody else holds the logits: the gradient is written over them.
        x = Tensor::zeros_on(Device::Cuda(0), [1], DType::F32)?;
        let out = ops::cross_entropy(&cx, leaf, &t, &w, 0.1)?;
        let mut g = tape.backward(&out.loss, 1.0, None, &[key])?;
        x = g.remove(0).expect("a gradient");
        Ok(())
    })?;
    let rate = |passes: f64, ms: f64| passes * bytes / ms / 1e9;
    println!(
        "cross entropy, {b} rows of {l} tokens: forward {forward:.3} ms ({:.2} TB/s), with gradient {both:.3} ms ({:.2} TB/s)",
        rate(1.0, forward),
        rate(3.0, both)
    );
    let (plain, predicted) = {
        let out = ops::cross_entropy(&Cx::off(), x.clone(), &t, &w, 0.1)?;
        (out.plain, out.predicted)
    };
    let mut start = 0;
    let ranges: Vec<_> = SCALES
        .iter()
        .map(|s| {
            start += s * s;
            start - s * s..start
        })
        .collect();
    let ms = time(50, || {
        ops::token_measures(&plain, &predicted, &t, &ranges).map(|_| ())
    })?;
    println!("measures of {} scales: {ms:.4} ms", ranges.len());
    Ok(())
}

fn sampling(b: usize) -> Result<()> {
    let gpu = Device::Cuda(0).gpu()?.expect("a GPU");
    let params = Tensor::from_i32([4], draw_params(1, 0).to_vec()).to(Device::Cuda(0))?;
    let all: Vec<Tensor> = SCALES
        .iter()
        .map(|s| logits(2 * b, s * s))
        .collect::<Result<_>>()?;
    for (k, p) in [(900, 0.96), (0, 0.0), (900, 0.0), (0, 0.96), (1, 0.0)] {
        let draw = || -> Result<()> {
            for (scale, x) in all.iter().enumerate() {
                let draw = Draw::Device {
                    params: &params,
                    scale: scale as u64,
                };
                ops::sample_tokens(x, Some(1.5 * scale as f32 / 9.0), k, p, &draw)?;
            }
            Ok(())
        };
        let plain = time(10, draw)?;
        let (mut graph, ()) = gpu.capture(draw)?;
        let replayed = time(10, || Ok(graph.launch()?))?;
        let last = time(10, || {
            let draw = Draw::Device {
                params: &params,
                scale: 9,
            };
            ops::sample_tokens(&all[9], Some(1.5), k, p, &draw).map(|_| ())
        })?;
        println!(
            "drawing {b} images, k {k}, p {p}: all scales {plain:.3} ms, as a graph {replayed:.3} ms; the last scale {last:.3} ms"
        );
    }
    Ok(())
}

fn main() -> Result<()> {
    let b = std::env::args().nth(1).and_then(|b| b.parse().ok());
    cross_entropy(b.unwrap_or(96))?;
    for b in [1, 16, 64] {
        sampling(b)?;
    }
    Ok(())
}
