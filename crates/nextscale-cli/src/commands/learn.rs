//! `nextscale learn`: from a folder of pictures to samples, in a given time.

use super::folder_args::FolderArgs;
use super::progress::without_advice;
use nextscale::learn::{Asked, Learn, report};
use nextscale::options::values::{DeviceChoice, parse_bool, precision_parser};
use nextscale::options::{FolderOptions, Recipe};
use nextscale::run::{StopSignal, init_threads};
use nextscale::{Result, tell};
use nextscale_tensor::Precision;
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `learn`.
#[derive(clap::Args)]
#[command(
    rename_all = "snake_case",
    override_usage = "nextscale learn <FOLDER> [OPTIONS]"
)]
pub struct Args {
    #[command(flatten)]
    folder: FolderArgs,
    /// Time for everything, in minutes
    #[arg(long, value_name = "X", default_value_t = 30.0)]
    minutes: f64,
    /// Side of the images in pixels: 32, 64, 128 or 256; without it what goes with the images, the machine and the time
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Folder for checkpoints, logs, pictures and summary.json; an interrupted call goes on in it
    #[arg(long, value_name = "DIR", default_value = "learnt")]
    out: PathBuf,
    /// Mirror half of the training images
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = false)]
    hflip: bool,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is a usable one
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Precision of products on a GPU; without it what goes with the images, and tf32 to measure and draw
    #[arg(long, value_parser = precision_parser())]
    precision: Option<Precision>,
    /// Threads that compute on the CPU; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Seed of all random draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    images: FolderOptions,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    init_threads(args.threads)?;
    let stop = StopSignal::install()?;
    let summary = Learn {
        asked: Asked {
            data_path: args.folder.path().to_owned(),
            folder: args.images.clone(),
            hflip: args.hflip,
            minutes: args.minutes,
            recipe: args.size.map(Recipe::for_size).transpose()?,
            seed: args.seed,
        },
        out: args.out.clone(),
        device: args.device,
        precision: args.precision,
        stop: stop.clone(),
        say: |line| tell!("{line}"),
        observers: without_advice,
    }
    .run()
    .map_err(|e| args.folder.explain(e))?;
    match summary {
        Some(s) => super::ended(&report(&s, &args.out), 0),
        None => super::ended(
            &format!(
                "stopped; run the same command again to go on: {} keeps what is done",
                args.out.display()
            ),
            stop.exit_code(),
        ),
    }
}
