//! Times the quantizer on a GPU and checks it against the CPU:
//! `cargo run --release -p nextscale-tensor --example quantizer_speed`.
use nextscale_tensor::cuda::{self, Gpu};
use nextscale_tensor::ops::{
    Residual, ResidualCodes, nearest_code, residual_quantize, var_input_from_tokens,
};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Device, Result, Tensor};
use std::time::Instant;

const SIDES: [usize; 10] = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16];
const CODES: usize = 4096;
const CHANNELS: usize = 32;

fn random(dims: &[usize], lane: u64, by: f32) -> Tensor {
    let mut s = Stream::new(7, Purpose::Test, 0, lane);
    let n = dims.iter().product();
    Tensor::from_vec(dims, (0..n).map(|_| s.normal() * by).collect())
}

/// Milliseconds a call, the median of seven rounds of `calls`.
fn time(gpu: &Gpu, calls: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut rounds = Vec::new();
    for _ in 0..8 {
        gpu.synchronize()?;
        let start = Instant::now();
        for _ in 0..calls {
            f()?;
        }
        gpu.synchronize()?;
        rounds.push(1e3 * start.elapsed().as_secs_f64() / calls as f64);
    }
    // The first round warms up.
    rounds.remove(0);
    rounds.sort_by(f64::total_cmp);
    Ok(rounds[3])
}

/// How many tokens differ, and the largest difference between two f̂.
fn compare(a: &Residual, b: &Residual) -> Result<(usize, f32)> {
    let mut differ = 0;
    for (a, b) in a.indices.iter().zip(&b.indices) {
        let (a, b) = (a.to(Device::Cpu)?, b.to(Device::Cpu)?);
        differ += a
            .i32()?
            .iter()
            .zip(b.i32()?)
            .filter(|(a, b)| a != b)
            .count();
    }
    let (a, b) = (a.f_hat.to(Device::Cpu)?, b.f_hat.to(Device::Cpu)?);
    let gaps = a.f32()?.iter().zip(b.f32()?).map(|(a, b)| (a - b).abs());
    Ok((differ, gaps.fold(0.0, f32::max)))
}

fn main() -> Result<()> {
    if cuda::count() == 0 {
        println!("skipped: no CUDA device");
        return Ok(());
    }
    let (device, gpu) = (Device::Cuda(0), Gpu::get(0)?);
    let scales: Vec<(usize, usize)> = SIDES.iter().map(|s| (*s, *s)).collect();
    let codebook = random(&[CODES, CHANNELS], 1, 0.7);
    let blends: Vec<(Tensor, Tensor)> = (0..4)
        .map(|i| {
            let weight = random(&[CHANNELS, 3, 3, CHANNELS], 10 + i, 0.06);
            (weight, random(&[CHANNELS], 20 + i, 0.1))
        })
        .collect();
    // Which φ a scale has, as four shared ones fall on ten scales.
    let phis: Vec<(Tensor, Tensor)> = [0, 0, 0, 1, 1, 2, 2, 3, 3, 3]
        .map(|i: usize| blends[i].clone())
        .to_vec();
    let there = |x: &Tensor| x.to(device);
    let book = there(&codebook)?;
    let flat: Vec<f32> = phis.iter().try_fold(Vec::new(), |mut all, (w, b)| {
        all.extend_from_slice(w.f32()?);
        all.extend_from_slice(b.f32()?);
        Ok::<_, nextscale_tensor::Error>(all)
    })?;
    // One buffer, as a model has them.
    let flat = there(&Tensor::from_vec([flat.len()], flat))?;
    let each = 9 * CHANNELS * CHANNELS;
    let mut placed = Vec::new();
    for (k, (w, b)) in phis.iter().enumerate() {
        let at = k * (each + CHANNELS);
        placed.push((
            flat.narrow(at, each)?.reshape(w.shape())?,
            flat.narrow(at + each, CHANNELS)?.reshape(b.shape())?,
        ));
    }
    let host = ResidualCodes {
        codebook: &codebook,
        phis: &phis,
        rho: 0.5,
        by_angle: false,
    };
    let codes = ResidualCodes {
        codebook: &book,
        phis: &placed,
        ..host
    };
    let side = SIDES[SIDES.len() - 1];
    for batch in [1, 32, 96, 128] {
        let f = random(&[batch, side, side, CHANNELS], 2, 1.0);
        let f_there = there(&f)?;
        if batch == 32 {
            let want = residual_quantize(&f, &host, &scales, 0, None)?;
            let got = residual_quantize(&f_there, &codes, &scales, 0, None)?;
            let (differ, gap) = compare(&got, &want)?;
            let total: usize = want.indices.iter().map(Tensor::numel).sum();
            println!("{differ} of {total} tokens differ from the CPU's, f_hat by at most {gap:e}");
        }
        let made = residual_quantize(&f_there, &codes, &scales, 10, None)?;
        let encode = time(gpu, 20, || {
            residual_quantize(&f_there, &codes, &scales, 0, None).map(drop)
        })?;
        let both = time(gpu, 20, || {
            residual_quantize(&f_there, &codes, &scales, 10, None).map(drop)
        })?;
        let input = time(gpu, 20, || {
            var_input_from_tokens(&made.indices, &codes, &scales, 10).map(drop)
        })?;
        println!(
            "batch {batch:3}: tokens {encode:.3} ms, tokens and input {both:.3} ms, input from tokens {input:.3} ms"
        );
    }
    for m in [96 * 256, 96 * 680] {
        let x = there(&random(&[m, CHANNELS], 3, 1.0))?;
        let t = time(gpu, 20, || nearest_code(&x, &book, false).map(drop))?;
        let flop = 2e-9 * (m * CODES * CHANNELS) as f64;
        println!(
            "nearest code of {m} vectors: {t:.3} ms, {:.1} TFLOP/s",
            flop / t
        );
    }
    Ok(())
}
