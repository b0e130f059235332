//! Images a second of decoding, resizing and cropping: `data_speed FOLDER [THREADS] [SIDE] [SECONDS]`.
//!
//! Every thread reads the folder's files in turn, resizes the shorter side to 1.125·SIDE and takes a random crop
//! of SIDE × SIDE as 8-bit RGB.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use nextscale::data::{LoadBuffers, Resizer, Transform, decode_file};
use nextscale::{Error, Result};
use nextscale_tensor::rng::{Purpose, Stream};

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
        .ok_or_else(|| Error::input("usage: data_speed FOLDER [THREADS] [SIDE] [SECONDS]"))?;
    let (threads, side, seconds) = (number(1, 2.0)?, number(2, 256.0)?, number(3, 3.0)?);
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map_err(Error::io(folder))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .collect();
    files.sort();
    let transform = Transform::new(side as usize, 1.125, false)?;
    let limit = Duration::from_secs_f64(seconds);
    let total: f64 = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads as u64)
            .map(|worker| {
                scope.spawn({
                    let files = &files;
                    move || measure(files, transform, worker, limit)
                })
            })
            .collect();
        workers
            .into_iter()
            .map(|w| {
                w.join()
                    .map_err(|_| Error::failed("a thread died"))
                    .flatten()
            })
            .sum::<Result<f64>>()
    })?;
    println!("{total:.0} images/s with {threads} threads");
    Ok(())
}

fn measure(files: &[PathBuf], transform: Transform, worker: u64, limit: Duration) -> Result<f64> {
    let mut buffers = LoadBuffers::default();
    let mut resizer = Resizer::default();
    let mut out = vec![0; transform.bytes()];
    let (mut decode, mut resize) = (Duration::ZERO, Duration::ZERO);
    let begun = Instant::now();
    let mut count = 0;
    while begun.elapsed() < limit {
        for file in files {
            let start = Instant::now();
            decode_file(file, &mut buffers)?;
            let middle = Instant::now();
            let mut stream = Stream::new(worker, Purpose::Augment, 0, count);
            transform.random(&buffers.image, &mut stream, &mut resizer, &mut out)?;
            decode += middle - start;
            resize += middle.elapsed();
            count += 1;
        }
    }
    let each = |part: Duration| 1e3 * part.as_secs_f64() / count as f64;
    println!(
        "thread {worker}: read and decode {:.3} ms, resize and crop {:.3} ms an image",
        each(decode),
        each(resize)
    );
    Ok(count as f64 / begun.elapsed().as_secs_f64())
}
