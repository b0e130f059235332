//! Drawing images, decoder included.

use super::timing::{Bench, Pass};
use super::{Args, Target, models};
use crate::commands::images::in_range;
use nextscale::Result;
use nextscale::generate::{BatchSampler, Noise, SampleOptions, Sampler};
use serde_json::json;
use std::time::Instant;

/// Batches of images up to their bytes on the host; on a GPU a captured graph, profiled without the capture.
pub fn sample(args: &Args, target: Target) -> Result<()> {
    in_range("cfg", f64::from(args.cfg), 0.0..=1000.0)?;
    in_range("top_p", f64::from(args.top_p), 0.0..=1.0)?;
    let begun = Instant::now();
    let (vqvae, var, _) = models(args, target, (false, false))?;
    let batch = args.bs.unwrap_or(4);
    let sampler = Sampler {
        var: &var,
        vqvae: &vqvae,
    };
    let labels: Vec<i32> = (0..batch as i32).map(|i| i % 10).collect();
    let options = SampleOptions {
        cfg: args.cfg,
        top_k: args.top_k,
        top_p: args.top_p,
        more_smooth: false,
        noise: Noise::Seed(0),
    };
    let mut batches = BatchSampler::new(sampler, options.clone(), batch);
    let bench = Bench::new(args, target, begun)?;
    let how = [
        ("cfg", json!(args.cfg)),
        ("top_k", json!(args.top_k)),
        ("top_p", json!(args.top_p)),
    ];
    bench.run("sample", batch, &how, |pass| match pass {
        Pass::Timed(_) => {
            let drawn = batches.draw(&labels, 0)?;
            nextscale_tensor::ops::to_pixels(&drawn.images)?;
            Ok(())
        }
        Pass::Ahead => batches.draw(&labels, 0).map(|_| ()),
        Pass::Profiled => sampler.draw(&labels, 0, &options, None, None).map(|_| ()),
    })
}
