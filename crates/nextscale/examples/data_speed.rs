//! Images a second of the data pipeline: `data_speed DATA_PATH [WORKERS] [SIDE] [SECONDS]`.
//!
//! First one thread alone, with the time of each stage; then the loader with WORKERS threads, in batches of 64.
//! `DATA_PATH` is a data folder of any kind: class folders, tar shards, Parquet files. Every training image is read, decoded, resized to a shorter side of 1.125·SIDE and cropped at random
//! to SIDE × SIDE, as in training.

use std::path::Path;
use std::time::{Duration, Instant};

use nextscale::data::{
    Cut, ImageSource, LoadBuffers, LoaderConfig, Resizer, Splits, TrainLoader, TrainSampler,
    Transform,
};
use nextscale::{Error, Result, Share};
use nextscale_tensor::rng::{Purpose, Stream};

const BATCH: usize = 64;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |i: usize, default: f64| {
        args.get(i).map_or(Ok(default), |text| {
            text.parse()
                .map_err(|_| Error::input(format!("{text}: not a number")))
        })
    };
    let folder = args
        .first()
        .ok_or_else(|| Error::input("usage: data_speed DATA_PATH [WORKERS] [SIDE] [SECONDS]"))?;
    let (workers, side, seconds) = (number(1, 2.0)?, number(2, 256.0)?, number(3, 3.0)?);
    let begun = Instant::now();
    let source = Splits::open(Path::new(folder), &Cut::default())?.train;
    println!(
        "{} images opened in {:.3} s",
        source.len(),
        begun.elapsed().as_secs_f64()
    );
    let transform = Transform::new(side as usize, 1.125, false)?;
    let limit = Duration::from_secs_f64(seconds);
    stages(source.as_ref(), transform, limit)?;

    let sampler = TrainSampler::new(source.len(), BATCH, Share::WHOLE, 0)?;
    let config = LoaderConfig {
        workers: workers as usize,
        ..LoaderConfig::default()
    };
    let mut loader = TrainLoader::new(source, transform, sampler, (0, 0), config)?;
    loader.next_batch()?;
    let (begun, mut images) = (Instant::now(), 0);
    while begun.elapsed() < limit {
        images += loader.next_batch()?.len();
    }
    let rate = images as f64 / begun.elapsed().as_secs_f64();
    println!("loader with {workers} workers: {rate:.0} images/s");
    Ok(())
}

fn stages(source: &dyn ImageSource, transform: Transform, limit: Duration) -> Result<()> {
    let mut buffers = LoadBuffers::default();
    let mut resizer = Resizer::default();
    let mut out = vec![0; transform.bytes()];
    let (mut load, mut resize, mut count) = (Duration::ZERO, Duration::ZERO, 0);
    while load + resize < limit {
        let start = Instant::now();
        source.load(count % source.len(), &mut buffers)?;
        let middle = Instant::now();
        let mut stream = Stream::new(0, Purpose::Augment, 0, count as u64);
        transform.random(&buffers.image, &mut stream, &mut resizer, &mut out)?;
        load += middle - start;
        resize += middle.elapsed();
        count += 1;
    }
    let each = |part: Duration| 1e3 * part.as_secs_f64() / count as f64;
    println!(
        "one thread: read and decode {:.3} ms, resize and crop {:.3} ms, {:.0} images/s",
        each(load),
        each(resize),
        count as f64 / (load + resize).as_secs_f64()
    );
    Ok(())
}
