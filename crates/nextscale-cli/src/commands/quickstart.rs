//! `nextscale quickstart`: everything once, on built-in data.

use super::progress::shown;
use nextscale::options::values::{DeviceChoice, precision_parser};
use nextscale::quickstart::{Quickstart, report};
use nextscale::run::StopSignal;
use nextscale::run::init_threads;
use nextscale::{Result, tell};
use nextscale_tensor::Precision;
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `quickstart`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder for checkpoints, logs, pictures and summary.json; an interrupted quickstart goes on in it
    #[arg(long, value_name = "DIR", default_value = "quickstart")]
    out: PathBuf,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is a usable one
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Precision of products on a GPU; without it tf32
    #[arg(long, value_parser = precision_parser())]
    precision: Option<Precision>,
    /// Threads that compute on the CPU; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Seed of all random draws
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    init_threads(args.threads)?;
    let stop = StopSignal::install()?;
    let summary = Quickstart {
        out: args.out.clone(),
        device: args.device,
        precision: args.precision,
        seed: args.seed,
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
