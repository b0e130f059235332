//! `nextscale tokenize`: the tokens of a folder of images.

use super::folder_args::FolderArgs;
use super::images::{may_write, tell_all, tell_bad};
use super::machine::MachineArgs;
use super::processes::ProcessArgs;
use super::turns::{self, Turns};
use super::weights_args::WeightsArgs;
use clap::ArgAction;
use nextscale::checkpoint::open::open_tokenizer;
use nextscale::console::counted;
use nextscale::data::tokens::{PutTokens, TokenInfo, TokenSet, write_tokens};
use nextscale::data::{Feed, LoaderConfig, Subset};
use nextscale::memory::{self, Workload, advise};
use nextscale::model::Pyramid;
use nextscale::model::state::fingerprint;
use nextscale::options::FolderOptions;
use nextscale::options::values::{BadImages, parse_bool, parse_pn};
use nextscale::run::{Dataset, threads_of};
use nextscale::{Error, Result, Share, Team, say};
use nextscale_tensor::PendingTensor;
use nextscale_tensor::Precision;
use nextscale_tensor::ops;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Flags of `tokenize`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// The tokenizer, or a training checkpoint that holds it
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    #[command(flatten)]
    data: FolderArgs,
    /// Which images
    #[arg(long, value_enum, default_value_t = Split::Train)]
    split: Split,
    /// Side lengths of the token maps; without it those the tokenizer was trained with
    #[arg(long, value_name = "LIST")]
    pn: Option<String>,
    /// Crops of every training image: 1 is the one in the middle; more are drawn at random, and `train --tokens` takes them in
    /// turn, another one every epoch
    #[arg(long, value_name = "N", default_value_t = 1)]
    crops: usize,
    /// Mirror half of the drawn crops
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = false)]
    hflip: bool,
    /// Seed of the drawn crops: crop v is the one that `train` with images and this seed sees in epoch v, counted from 0
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Images are resized to this many times their final side before the crop
    #[arg(long, value_name = "X", default_value_t = 1.125)]
    mid_reso: f64,
    /// The file to write (safetensors): tokens, N x crops x L of 16 bits, or 32 where there are more codes than these tell
    /// apart (all scales, coarse to fine), N labels, int32, and the codebook
    #[arg(long, value_name = "FILE", default_value = "tokens.safetensors")]
    out: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// Crops at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// Threads that read images; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    /// What happens to image files that can't be decoded
    #[arg(long, value_enum, default_value_t = BadImages::Fail)]
    bad_images: BadImages,
    #[command(flatten)]
    folder: FolderOptions,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

/// One of the two halves of a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Split {
    /// train/
    Train,
    /// val/
    Val,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    args.processes.share_within(turns::limits(), |team| {
        tokenize(args, team).map_err(|e| args.data.explain(e).of_weights(args.tokenizer.display()))
    })
}

fn tokenize(args: &Args, team: &Team) -> Result<()> {
    let world = &team.world;
    if world.is_first() {
        may_write(&args.out, args.force)?;
    }
    check(args)?;
    let (device, math) = args.machine.start_in(world, Precision::Tf32)?;
    let asked = match &args.pn {
        Some(pn) => Some(Pyramid::square(&parse_pn(pn)?)?),
        None => None,
    };
    let mut tok = open_tokenizer(&args.tokenizer, asked.as_ref(), args.weights.kind)?;
    let folder = args.folder.or_as(tok.canvas);
    let info = TokenInfo {
        crops: args.crops,
        hflip: args.hflip,
        mid_reso: args.mid_reso,
        seed: args.seed,
        canvas: Some(folder.canvas.chosen()),
        tokenizer: fingerprint(&tok.vqvae.params)?,
    };
    let pyramid = tok.vqvae.config.pyramid.clone();
    let side = pyramid.finest().0 * tok.vqvae.config.downsample();
    let mut data = Dataset::open(args.data.path(), &folder, side, args.mid_reso, args.hflip)?;
    if world.is_first() {
        tell_all(&data.remarks);
        tell_all(&data.glance(&folder));
    }
    if args.bad_images == BadImages::Skip {
        // The file begins with the number of images.
        let half = match args.split {
            Split::Train => &mut data.train,
            Split::Val => &mut data.val,
        };
        let (good, bad) = Subset::readable(Arc::clone(half), args.workers)?;
        if world.is_first() {
            tell_bad(&bad);
        }
        *half = Arc::new(good);
    }
    let config = LoaderConfig {
        // More than images at once have nothing to do.
        workers: threads_of(world, args.workers).min(args.batch),
        seed: args.seed,
        // Batches are then those of one process, whatever their number.
        share: Share::from(world),
        in_turn: true,
        ..LoaderConfig::default()
    };
    // All crops of an image come together.
    let batch = (args.batch / args.crops).max(1);
    let (images, mut loader) = match args.split {
        Split::Train => (&data.train, data.crops_loader(batch, args.crops, config)?),
        Split::Val => (&data.val, data.val_loader(batch, config)?),
    };
    let labels: Vec<i32> = (0..images.len()).map(|i| images.label(i) as i32).collect();
    team.compare([
        ("`tokenizer`", format!("with weights {}", info.tokenizer)),
        (
            "`data_path`",
            format!(
                "with {} images of {} classes",
                labels.len(),
                images.class_names().len()
            ),
        ),
        ("`pn`", format!("{pyramid:?}")),
        ("`batch`", args.batch.to_string()),
        ("`crops`", args.crops.to_string()),
        ("`hflip`", args.hflip.to_string()),
        ("`mid_reso`", args.mid_reso.to_string()),
        ("`seed`", args.seed.to_string()),
    ])?;
    tok.vqvae.to_device(device, math)?;
    let set = TokenSet {
        vqvae: &tok.vqvae,
        pyramid: &pyramid,
        classes: images.class_names(),
        labels: &labels,
        info,
    };
    let workload = || Workload::Tokenize {
        vqvae: &tok.vqvae.config,
        math,
        back: false,
    };
    let at_once = args.crops * batch.min(labels.len());
    memory::check(device, "batch", at_once, workload())?;
    let mut feed = Feed::new(device)?;
    let mut tokens = |put: &mut PutTokens<'_>| -> Result<()> {
        let mut turns = Turns::new(world, labels.len().div_ceil(batch));
        let mut hand = |rows: Option<PendingTensor>| -> Result<bool> {
            let own = rows.map(|rows| rows.wait()).transpose()?;
            let own = own.as_ref().map(|rows| rows.i32()).transpose()?;
            let own = own.map(|rows| {
                rows.iter()
                    .flat_map(|n| n.to_le_bytes())
                    .collect::<Vec<_>>()
            });
            turns.next(own, &mut |_, rows| {
                let rows = rows.as_chunks::<4>().0.iter();
                put(&rows.map(|n| i32::from_le_bytes(*n)).collect::<Vec<_>>())
            })?;
            Ok(turns.are_over())
        };
        // A batch's tokens are handed on while the next one is computed.
        let mut coming: Option<PendingTensor> = None;
        while let Some(batch) = loader.next_batch()? {
            let count = batch.len() * args.crops;
            let mut rows = || -> Result<PendingTensor> {
                let x = feed.images([count, side, side, 3], &batch.images)?;
                let maps = tok.vqvae.tokenize(&x, &pyramid)?;
                Ok(ops::concat_tokens(&maps.iter().collect::<Vec<_>>())?.copy_to_host()?)
            };
            let rows = rows().map_err(|e| advise(e, device, "batch", args.batch, workload()))?;
            if let Some(before) = coming.replace(rows) {
                hand(Some(before))?;
            }
        }
        // Others may have one batch more.
        while !hand(coming.take())? {}
        Ok(())
    };
    if !world.is_first() {
        return tokens(&mut |_| Ok(()));
    }
    write_tokens(&args.out, &set, tokens)?;
    let crops = match args.crops {
        1 => String::new(),
        n => format!(", {n} crops of each,"),
    };
    say!(
        "{}{crops} of {} in {}",
        counted(labels.len(), "image", "images"),
        counted(pyramid.total(), "token", "tokens"),
        args.out.display()
    )
}

fn check(args: &Args) -> Result<()> {
    let refuse = |text: String| Err(Error::input(text));
    if args.batch == 0 {
        return refuse("--batch=0: expected at least 1".into());
    }
    if !(1..=1024).contains(&args.crops) {
        return refuse(format!("--crops={}: expected 1 to 1024", args.crops));
    }
    if args.crops > 1 && args.split == Split::Val {
        return refuse(format!(
            "--crops={}: of validation images the middle is taken; leave the flag out with --split=val",
            args.crops
        ));
    }
    if args.hflip && args.crops == 1 {
        return refuse(
            "--hflip=1: the one crop in the middle is not mirrored; give --crops=2 or more".into(),
        );
    }
    Ok(())
}
