//! `nextscale train-features`: a classifier of a folder's own classes, whose features scores compare images by.

use super::folder_args::FolderArgs;
use super::images::{check_parent, may_write};
use super::machine::MachineArgs;
use clap::ArgAction;
use nextscale::features::{FeatureOptions, FeatureRun, Length, Round, Told};
use nextscale::log::clock::format_duration;
use nextscale::options::FolderOptions;
use nextscale::options::values::{BadImages, parse_bool};
use nextscale::run::StopSignal;
use nextscale::{Error, Result, say, tell};
use nextscale_tensor::Precision;
use std::path::PathBuf;

/// Flags of `train-features`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    data: FolderArgs,
    /// The file to write (safetensors): it appears at the end, when the training is done
    #[arg(long, value_name = "FILE", default_value = "features.safetensors")]
    out: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// Side of the images in pixels, 16 to 1024; without it 32, 64, 128 or 256, what goes with the images and the machine
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Epochs; without --ep, --steps and --minutes what goes with the number of images, but not more than 20 minutes
    #[arg(long, value_name = "N", conflicts_with_all = ["steps", "minutes"])]
    ep: Option<u64>,
    /// Steps, instead of --ep
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    steps: Option<u64>,
    /// As many steps as fit into so many minutes
    #[arg(long, value_name = "X")]
    minutes: Option<f64>,
    /// Images in a step
    #[arg(long, value_name = "N", default_value_t = FeatureOptions::default().batch)]
    batch: usize,
    /// Peak learning rate
    #[arg(long, value_name = "X", default_value_t = FeatureOptions::default().lr)]
    lr: f64,
    /// Weight decay
    #[arg(long, value_name = "X", default_value_t = FeatureOptions::default().wd)]
    wd: f64,
    /// Seed of all random draws
    #[arg(long, value_name = "N", default_value_t = FeatureOptions::default().seed)]
    seed: u64,
    /// Images are resized to this many times their final side before the crop
    #[arg(long, value_name = "X", default_value_t = FeatureOptions::default().mid_reso)]
    mid_reso: f64,
    /// Mirror half of the training images
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = false)]
    hflip: bool,
    /// Threads that read images; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// What happens to image files that can't be decoded
    #[arg(long, value_enum, default_value_t = BadImages::Fail)]
    bad_images: BadImages,
    #[command(flatten)]
    folder: FolderOptions,
    #[command(flatten)]
    machine: MachineArgs,
}

impl Args {
    fn options(&self) -> FeatureOptions {
        let length = match (self.steps, self.ep, self.minutes) {
            (Some(steps), _, _) => Length::Steps(steps),
            (_, Some(epochs), _) => Length::Epochs(epochs),
            (_, _, Some(minutes)) => Length::Minutes(minutes),
            _ => Length::Usual,
        };
        FeatureOptions {
            data_path: self.data.path().to_owned(),
            folder: self.folder.clone(),
            size: self.size,
            mid_reso: self.mid_reso,
            hflip: self.hflip,
            length,
            batch: self.batch,
            lr: self.lr,
            wd: self.wd,
            seed: self.seed,
            workers: self.workers,
            bad_images: self.bad_images,
        }
    }
}

pub fn run(args: &Args) -> Result<()> {
    may_write(&args.out, args.force)?;
    check_parent(&args.out)?;
    if args.out.is_dir() {
        return Err(Error::input(format!(
            "--out={}: is a folder; give the name of a file in it",
            args.out.display()
        )));
    }
    let usual = Precision::Tf32;
    let (device, _) = args.machine.start(usual)?;
    let run = FeatureRun {
        options: &args.options(),
        device,
        precision: args.machine.chosen(device, usual),
        // A signal ends the process: until the file is written there is nothing to keep.
        stop: StopSignal::detached(),
    };
    let trained = run
        .run(&mut |told| match told {
            Told::Line(line) => tell!("{line}"),
            Told::Round(round) => tell!("{}", line_of(round)),
        })
        .map_err(|e| args.data.explain(e))?;
    trained.write(&args.out)?;
    let record = &trained.record;
    say!(
        "held-out accuracy {:.2} % of {}; {:.2} % are right where all are taken for the class that has most",
        100.0 * record.accuracy,
        nextscale::console::counted(record.held_out, "image", "images"),
        100.0 * record.chance
    )?;
    say!(
        "{} features, fingerprint {}: {}",
        trained.classifier.config.features(),
        trained.fingerprint()?,
        args.out.display()
    )
}

/// A round as a line.
fn line_of(round: &Round) -> String {
    let whole = round.of.ceil().to_string().len();
    format!(
        "epoch {:>width$.1}/{:.1}  loss {:.4}  accuracy {:6.2} %  held out {:6.2} %  {} spent, about {} left",
        round.epochs,
        round.of,
        round.loss,
        100.0 * round.train,
        100.0 * round.held_out,
        format_duration(round.spent),
        format_duration(round.left),
        width = whole + 2,
    )
}
