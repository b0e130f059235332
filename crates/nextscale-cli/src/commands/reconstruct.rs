//! `nextscale reconstruct`: images through the tokenizer and back.

use super::images::{check_picture, load, may_write, tell_all, tell_bad};
use super::machine::MachineArgs;
use super::processes::ProcessArgs;
use super::progress::progress;
use super::weights_args::WeightsArgs;
use nextscale::checkpoint::open::open_tokenizer;
use nextscale::data::{BadImage, Feed, LoaderConfig, is_of_the_file};
use nextscale::eval::{Reconstruction, evaluate_reconstruction, psnr_db};
use nextscale::memory::{self, Workload, advise};
use nextscale::model::Pyramid;
use nextscale::options::FolderOptions;
use nextscale::options::values::{BadImages, parse_pn};
use nextscale::pictures::{before_after, check_grid};
use nextscale::run::Dataset;
use nextscale::{Error, Result, Share, Team, say, tell};
use nextscale_tensor::Precision;
use nextscale_tensor::{Device, ops};
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `reconstruct`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// The tokenizer, or a training checkpoint that holds it
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Image files
    #[arg(value_name = "IMAGE")]
    images: Vec<PathBuf>,
    /// Measure on the validation images of this folder, or of builtin:shapes
    #[arg(long, value_name = "DIR")]
    data_path: Option<String>,
    /// Side lengths of the token maps; without it those the tokenizer was trained with
    #[arg(long, value_name = "LIST")]
    pn: Option<String>,
    /// Images are resized to this many times their final side before the crop
    #[arg(long, value_name = "X", default_value_t = 1.125)]
    mid_reso: f64,
    /// Before/after picture to write
    #[arg(long, value_name = "FILE", default_value = "reconstruction.png")]
    out: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
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

/// Images in the picture of a whole set.
const SHOWN: usize = 16;
/// Images in a row.
const COLUMNS: usize = 8;

pub fn run(args: &Args) -> Result<ExitCode> {
    args.processes
        .share(|team| reconstruct(args, team).map_err(|e| e.of_weights(args.tokenizer.display())))
}

fn reconstruct(args: &Args, team: &Team) -> Result<()> {
    let world = &team.world;
    check_picture(&args.out)?;
    may_write(&args.out, args.force)?;
    if args.images.is_empty() == args.data_path.is_none() {
        return Err(Error::input("give either image files or --data_path"));
    }
    if args.batch == 0 {
        return Err(Error::input("--batch=0: expected at least 1"));
    }
    let (device, math) = args.machine.start_in(world, Precision::Tf32)?;
    let asked = match &args.pn {
        Some(pn) => Some(Pyramid::square(&parse_pn(pn)?)?),
        None => None,
    };
    let mut tok = open_tokenizer(&args.tokenizer, asked.as_ref(), args.weights.kind)?;
    tok.vqvae.to_device(device, math)?;
    let folder = args.folder.or_as(tok.canvas);
    let pyramid = tok.vqvae.config.pyramid.clone();
    let side = pyramid.finest().0 * tok.vqvae.config.downsample();
    let shown = match args.images.len() {
        0 => SHOWN,
        n => n,
    };
    let tiles = 2 * shown.next_multiple_of(COLUMNS);
    check_grid(&args.out, tiles, side, COLUMNS, "fewer images at once")?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut show = |pixels: &[u8], back: &nextscale_tensor::Tensor| -> Result<()> {
        before.extend_from_slice(pixels);
        after.extend(ops::to_pixels(&ops::to_unit_range(back)?)?);
        Ok(())
    };
    let workload = || Workload::Tokenize {
        vqvae: &tok.vqvae.config,
        math,
        back: true,
    };
    let full = |e| advise(e, device, "batch", args.batch, workload());
    // Where figures can't be printed the picture is written all the same.
    let mut printed = Ok(());
    match &args.data_path {
        Some(path) => {
            let data = Dataset::open(path, &folder, side, args.mid_reso, false)?;
            if world.is_first() {
                tell_all(&data.remarks);
            }
            let config = LoaderConfig {
                bad_images: args.bad_images.into(),
                ..LoaderConfig::default()
            };
            memory::check(device, "batch", args.batch.min(data.val.len()), workload())?;
            let mut first = data.val_loader(SHOWN.min(args.batch), config)?;
            let (mut feed, mut shown) = (Feed::new(device)?, 0);
            while world.is_first()
                && shown < SHOWN
                && let Some(batch) = first.next_batch()?
            {
                let (x, _) = feed.batch(&batch, side)?;
                let back = tok.vqvae.reconstruct(&x, &pyramid).map_err(full)?.0;
                show(&batch.images, &back)?;
                shown += batch.len();
            }
            let share = Share::from(world);
            let mut loader = data.val_loader(args.batch, LoaderConfig { share, ..config })?;
            let own = data.val.len().div_ceil(world.size());
            let mut seen = progress(own, world.is_first());
            let vqvae = &tok.vqvae;
            let all = evaluate_reconstruction(vqvae, &pyramid, &mut loader, side, team, &mut seen);
            let all = all.map_err(full)?;
            tell_bad(&loader.bad_images());
            check_numbers(&all)?;
            if world.is_first() {
                printed = report(&all);
            }
        }
        // A few images are no work to share.
        None if !world.is_first() => return Ok(()),
        None => {
            let mut left_out = Vec::new();
            for path in &args.images {
                if path.is_dir() {
                    return Err(Error::input(format!(
                        "{path}: is a folder; give image files, or --data_path={path} to measure on its validation images",
                        path = path.display()
                    )));
                }
                let loaded = match load(path, side, args.mid_reso, folder.canvas.chosen()) {
                    Err(e) if args.bad_images == BadImages::Skip && is_of_the_file(&e) => {
                        let reason = e.to_string();
                        left_out.push(BadImage {
                            index: left_out.len(),
                            reason,
                        });
                        continue;
                    }
                    other => other?,
                };
                for remark in &loaded.remarks {
                    tell!("{}: {remark}", path.display());
                }
                let x = loaded.tensor;
                let (back, _) = tok.vqvae.reconstruct(&x.to(device)?, &pyramid)?;
                show(&loaded.pixels, &back)?;
                let back = back.to(Device::Cpu)?;
                let psnr = psnr(x.f32()?, back.f32()?);
                printed = printed.and_then(|()| say!("{}: {psnr:.2} dB", path.display()));
            }
            tell_bad(&left_out);
            if left_out.len() == args.images.len() {
                return Err(Error::input("none of the images can be read"));
            }
        }
    }
    if !world.is_first() {
        return Ok(());
    }
    // One image takes no row of eight.
    let columns = COLUMNS.min(before.len() / (side * side * 3)).max(1);
    before_after(&before, &after, side, columns).save(&args.out)?;
    printed.and_then(|()| say!("before and after: {}", args.out.display()))
}

fn psnr(a: &[f32], b: &[f32]) -> f64 {
    let sum: f64 = a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum();
    psnr_db(sum / a.len().max(1) as f64)
}

fn check_numbers(r: &Reconstruction) -> Result<()> {
    if r.not_numbers > 0 {
        return Err(Error::Tensor(nextscale_tensor::Error::NotNumbers {
            what: "reconstructions",
            bad: r.not_numbers,
            of: r.images,
        }));
    }
    Ok(())
}

fn report(r: &Reconstruction) -> Result<()> {
    say!("images          {}", r.images)?;
    say!("psnr_db         {:.3}", r.psnr_db)?;
    say!("l1              {:.5}", r.l1)?;
    say!("l2              {:.5}", r.l2)?;
    say!("codebook_usage  {:.1} %", 100.0 * r.codebook_usage)?;
    let scales: Vec<String> = r
        .usage_by_scale
        .iter()
        .map(|u| format!("{:.1}", 100.0 * u))
        .collect();
    say!("usage by scale  {} %", scales.join(" "))
}
