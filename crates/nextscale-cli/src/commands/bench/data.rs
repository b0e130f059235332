//! The data pipeline.

use super::timing::{Bench, Pass};
use super::{Args, Preset};
use nextscale::Result;
use nextscale::data::LoaderConfig;
use nextscale::options::FolderOptions;
use nextscale::run::Dataset;
use nextscale_tensor::{Device, Math, ops};
use std::time::Instant;

/// Decoding, resizing and cropping images.
pub fn data(args: &Args) -> Result<()> {
    let begun = Instant::now();
    let side = match args.preset {
        Preset::Small => 64,
        Preset::Wide => 256,
    };
    let set = Dataset::open(
        &args.data_path,
        &FolderOptions::default(),
        side,
        1.125,
        false,
    )?;
    let batch = args.bs.unwrap_or(32);
    let config = LoaderConfig {
        workers: args.workers,
        ..LoaderConfig::default()
    };
    let mut loader = set.train_loader(batch, (0, 0), config)?;
    // Batches come in bursts: one step is several of them.
    let per_step = (256 / batch).max(1);
    let target = (Device::Cpu, Math::FULL);
    let bench = Bench::new(args, target, begun)?;
    bench.run("data", batch * per_step, &[], |_: Pass| {
        for _ in 0..per_step {
            let b = loader.next_batch()?;
            ops::from_pixels([b.len(), side, side, 3], &b.images)?;
        }
        Ok(())
    })
}
