//! Milliseconds of drawing a batch of 256×256 images with guidance on a GPU, decoder included, by the sampler's loop and as
//! a graph: `cargo run --release -p nextscale --example draw_speed [batches=1,16,64] [depth=16] [half=bf16|f16|f32]`.

use nextscale::generate::{BatchSampler, Noise, SampleOptions, Sampler};
use nextscale::model::Pyramid;
use nextscale::model::var::{InitScales, Var, VarConfig};
use nextscale::model::vqvae::{Vqvae, VqvaeConfig};
use nextscale::{Error, Result};
use nextscale_tensor::{DType, Device, Math};
use std::time::Instant;

/// The fastest and the median of some calls, in milliseconds.
fn time(runs: usize, mut f: impl FnMut() -> Result<()>) -> Result<(f64, f64)> {
    let Some(gpu) = Device::Cuda(0).gpu()? else {
        return Err(Error::failed("no GPU"));
    };
    let mut all = Vec::new();
    for _ in 0..runs {
        gpu.synchronize()?;
        let start = Instant::now();
        f()?;
        gpu.synchronize()?;
        all.push(start.elapsed().as_secs_f64() * 1e3);
    }
    all.sort_by(f64::total_cmp);
    Ok((all[0], all[all.len() / 2]))
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let of = |key: &str, usual: &str| -> String {
        let found = args.iter().find_map(|a| a.strip_prefix(&format!("{key}=")));
        found.unwrap_or(usual).to_owned()
    };
    let bad = |e: std::num::ParseIntError| Error::input(e.to_string());
    let depth = of("depth", "16").parse().map_err(bad)?;
    let math = match of("half", "bf16").as_str() {
        "f32" => Math::FULL,
        half => Math {
            operands: if half == "f16" {
                DType::F16
            } else {
                DType::Bf16
            },
            tf32: true,
        },
    };
    let pyramid = Pyramid::square(&[1, 2, 3, 4, 5, 6, 8, 10, 13, 16])?;
    let mut vqvae = Vqvae::new(VqvaeConfig::published(pyramid.clone()), false)?;
    vqvae.init(1)?;
    let mut var = Var::new(VarConfig::of_depth(depth, 1000, pyramid), false)?;
    let scales = InitScales {
        hd: 1.0,
        alng: 0.1,
        ..InitScales::default()
    };
    var.init(scales, 1)?;
    var.to_device(Device::Cuda(0), math)?;
    vqvae.to_device(Device::Cuda(0), math)?;
    let sampler = Sampler {
        var: &var,
        vqvae: &vqvae,
    };
    let options = SampleOptions {
        noise: Noise::Seed(1),
        ..SampleOptions::default()
    };
    for batch in of("batches", "1,16,64").split(',') {
        let batch: usize = batch.parse().map_err(bad)?;
        let labels: Vec<i32> = (0..batch as i32).map(|i| i * 7 % 1000).collect();
        let mut batches = BatchSampler::new(sampler, options.clone(), batch);
        let start = Instant::now();
        batches.draw(&labels, 0)?;
        let first = start.elapsed().as_secs_f64() * 1e3;
        let runs = if batch > 16 { 8 } else { 15 };
        let plain = time(runs, || {
            sampler.draw(&labels, 0, &options, None, None).map(|_| ())
        })?;
        let start = Instant::now();
        batches.draw(&labels, 0)?;
        let captured = start.elapsed().as_secs_f64() * 1e3;
        let graph = time(runs, || batches.draw(&labels, 0).map(|_| ()))?;
        let f_hat = batches.draw(&labels, 0)?.f_hat;
        let decoder = time(runs, || sampler.image(&f_hat).map(|_| ()))?;
        println!(
            "batch {batch}: first {first:.0} ms, loop {:.2} (median {:.2}), capture {captured:.0}, graph {:.2} (median {:.2}), of this the decoder {:.2}; graph keeps {} MiB",
            plain.0,
            plain.1,
            graph.0,
            graph.1,
            decoder.0,
            batches.graph_bytes() >> 20
        );
    }
    Ok(())
}
