//! `nextscale learn`: from a folder of pictures to samples, in a given time.

use super::progress::shown;
use nextscale::learn::{Asked, Learn, report};
use nextscale::options::values::{DeviceChoice, parse_bool, precision_parser};
use nextscale::options::{FolderOptions, Recipe};
use nextscale::run::{StopSignal, init_threads};
use nextscale::{Error, Result, tell};
use nextscale_tensor::Precision;
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `learn`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder of images: CLASS/*, or train/CLASS/* and val/CLASS/*, or images of one class, or tar or Parquet shards; or builtin:shapes
    #[arg(value_name = "FOLDER", required_unless_present = "data_path")]
    folder: Option<String>,
    /// The same
    #[arg(long, value_name = "DIR", conflicts_with = "folder", hide = true)]
    data_path: Option<String>,
    /// Time for everything, in minutes
    #[arg(long, value_name = "X", default_value_t = 30.0)]
    minutes: f64,
    /// Side of the images in pixels: 32, 64, 128 or 256; without it what goes with the images and the machine
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

impl Args {
    fn recipe(&self) -> Result<Option<Recipe>> {
        let Some(size) = self.size else {
            return Ok(None);
        };
        let found = Recipe::SMALL.into_iter().find(|r| r.side() == Some(size));
        found.map(Some).ok_or_else(|| {
            Error::field(
                "size",
                size,
                "give 32, 64, 128 or 256; train-tokenizer and train have more",
            )
        })
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    init_threads(args.threads)?;
    let stop = StopSignal::install()?;
    let folder = args.folder.as_ref().or(args.data_path.as_ref());
    let summary = Learn {
        asked: Asked {
            data_path: folder.cloned().unwrap_or_default(),
            folder: args.images.clone(),
            hflip: args.hflip,
            minutes: args.minutes,
            recipe: args.recipe()?,
            seed: args.seed,
        },
        out: args.out.clone(),
        device: args.device,
        precision: args.precision,
        stop: stop.clone(),
        say: |line| tell!("{line}"),
        observers: || shown(false),
    }
    .run()?;
    match summary {
        Some(s) => super::ended(&report(&s, &args.out), 0),
        None => super::ended(
            "stopped; run the same command again to go on",
            stop.exit_code(),
        ),
    }
}
