//! `nextscale check`: what a folder of pictures is like, and what to do with it on this machine.

use super::folder_args::FolderArgs;
use super::images::{check_parent, check_picture, may_write};
use nextscale::advice::{
    self, Facts, describe, expected, for_whom, shell_word, time_tokenizer, time_transformer,
};
use nextscale::data::{Aspect, Look, Resizer, Survey, Transform};
use nextscale::device::resolve_device;
use nextscale::model::vqvae::Vqvae;
use nextscale::options::precision::in_reference_flags;
use nextscale::options::values::{DeviceChoice, precision_parser};
use nextscale::options::{
    CanvasOptions, FolderOptions, Recipe, TokenizerOptions, TransformerOptions,
};
use nextscale::pictures::{Picture, labelled_rows};
use nextscale::run::{Dataset, StopSignal, init_threads};
use nextscale::{Result, say};
use nextscale_tensor::{Device, Precision};
use std::path::PathBuf;
use std::time::Duration;

/// Classes and images of each in the picture.
const CLASSES: usize = 40;
const OF_EACH: usize = 12;
/// For how long steps are timed.
const TIMED: Duration = Duration::from_secs(3);
/// Widest name before a text.
const NAME: usize = 12;

/// Flags of `check`.
#[derive(clap::Args)]
#[command(
    rename_all = "snake_case",
    override_usage = "nextscale check <FOLDER> [OPTIONS]"
)]
pub struct Args {
    #[command(flatten)]
    folder: FolderArgs,
    /// Side of the images that are to be made: 32, 64, 128 or 256; without it what goes with the images and the machine
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Write a picture of images as a model would see them, a class a row: .png, .jpg or .webp
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite the picture
    #[arg(long)]
    force: bool,
    /// Only look at the images: time no steps, suggest nothing
    #[arg(long)]
    only_look: bool,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is a usable one
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Precision of products on a GPU, for times and memory; without it what goes with the images
    #[arg(long, value_parser = precision_parser())]
    precision: Option<Precision>,
    /// Threads that read images and compute on the CPU; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    #[command(flatten)]
    images: FolderOptions,
}

pub fn run(args: &Args) -> Result<()> {
    look(args).map_err(|e| args.folder.explain(e))
}

fn look(args: &Args) -> Result<()> {
    init_threads(args.threads)?;
    if let Some(out) = &args.out {
        check_picture(out)?;
        check_parent(out)?;
        may_write(out, args.force)?;
    }
    let folder = args.folder.path();
    let recipe = args.size.map(Recipe::for_size).transpose()?;
    // Sizes are those of the images, whatever becomes of them.
    let as_they_are = FolderOptions {
        canvas: CanvasOptions {
            aspect: Some(Aspect::Crop),
            ..args.images.canvas.clone()
        },
        ..args.images.clone()
    };
    let raw = Dataset::open(folder, &as_they_are, 64, 1.0, false)?;
    let survey = Survey::of(&raw.train, &raw.val, Look::LONG)?;
    let facts = Facts::of_survey(&survey.train, args.device)?;
    let recipe = recipe.unwrap_or_else(|| advice::recipe(&facts));
    let side = recipe.side().unwrap_or(64);
    for remark in &raw.remarks {
        say!("{remark}")?;
    }
    for (name, text) in describe(&survey, side, &args.images) {
        say!("{name:<NAME$} {text}")?;
    }
    if let Some(path) = &args.out {
        thumbnails(args, folder, side)?.save(path)?;
        say!("{:<NAME$} {}", "picture", path.display())?;
    }
    match args.only_look {
        true => Ok(()),
        false => {
            let has_bad = !survey.train.bad.is_empty() || !survey.val.bad.is_empty();
            suggest(args, folder, (&facts, has_bad), recipe)
        }
    }
}

impl Args {
    /// The flags of the folder and the machine that were given, as they are written.
    fn given(&self) -> String {
        let o = &self.images;
        let mut words = String::new();
        let mut add = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                words.push_str(&format!(" --{flag}={}", shell_word(&value)));
            }
        };
        add(
            "val_path",
            o.val_path.as_ref().map(|p| p.display().to_string()),
        );
        add("val_share", o.val_share.map(|x| x.to_string()));
        add("background", o.canvas.background.map(|b| b.to_string()));
        add("aspect", o.canvas.aspect.map(|a| a.to_string()));
        let device = (self.device != DeviceChoice::Auto).then(|| self.device.to_string());
        add("device", device);
        add("precision", self.precision.map(|p| p.to_string()));
        words
    }
}

/// Commands for these images and this machine, with what they take.
fn suggest(
    args: &Args,
    folder: &str,
    (facts, has_bad): (&Facts, bool),
    recipe: Recipe,
) -> Result<()> {
    let stop = StopSignal::detached();
    let device = resolve_device(args.device)?;
    let mut tokenizer = TokenizerOptions::default();
    recipe.apply_to_tokenizer(&mut tokenizer, |_| false);
    tokenizer.machine.device = args.device;
    let mut train = TransformerOptions::default();
    recipe.apply(&mut train, |_| false);
    train.machine.device = args.device;
    train.schedule.ep = advice::epochs(recipe, facts.images);
    if device == Device::Cpu {
        tokenizer.precision = None;
        train.fp16 = 0;
    } else if let Some(precision) = args.precision {
        tokenizer.precision = Some(precision);
        let (fp16, tf32) = in_reference_flags(precision);
        train.fp16 = fp16;
        train.machine.tf32 = tf32.unwrap_or(train.machine.tf32);
    }
    let (a, b) = (tokenizer.resolve(1)?, train.resolve(1)?);
    let dataset = Dataset::open(
        folder,
        &args.images,
        a.image_size,
        tokenizer.data.mid_reso,
        false,
    )?;
    let fit = |ac| if ac > 1 { " --fit" } else { "" };
    let time = time_tokenizer(&tokenizer, &dataset, TIMED, &stop)?;
    let first = expected(time, a.horizon(facts.images)?.max_it);
    let fit_first = fit(time.ac);
    let untrained = Vqvae::new(a.model()?, false)?;
    let time = time_transformer(&train, untrained, &dataset, TIMED, &stop)?;
    let second = expected(time, b.horizon(facts.images)?.max_it);
    let fit_second = fit(time.ac);
    let (name, given) = (recipe.name(), args.given());
    // `learn` leaves them out by itself.
    let skip = if has_bad { " --bad_images=skip" } else { "" };
    let size = args
        .size
        .map_or_else(String::new, |n| format!(" --size={n}"));
    let vocab = tokenizer.vocab;
    let folder = shell_word(folder);
    say!("")?;
    say!(
        "{}: everything at once, in a time that you give",
        for_whom(facts)
    )?;
    say!("  nextscale learn {folder}{size} --minutes=30{given}")?;
    say!("or one after the other")?;
    say!(
        "  nextscale train-tokenizer --recipe={name} --data_path={folder}{given}{skip}{fit_first} --out=tokenizer"
    )?;
    say!("      {first}")?;
    say!(
        "  nextscale train --recipe={name} --ep={} --data_path={folder}{given}{skip}{fit_second} --tokenizer=tokenizer/tokenizer.safetensors --out=model",
        train.schedule.ep
    )?;
    say!("      {second}")?;
    say!(
        "a transformer that knows nothing has a loss of {:.2}, the logarithm of {vocab} codes; what is below has been learnt",
        (vocab as f64).ln()
    )
}

/// Images of each class as a model would see them.
fn thumbnails(args: &Args, folder: &str, side: usize) -> Result<Picture> {
    let source = Dataset::open(folder, &args.images, side, 1.0, false)?.train;
    let transform = Transform::new(side, 1.0, false)?;
    let names = source.class_names();
    let mut rows = vec![Vec::new(); names.len().min(CLASSES)];
    let mut resizer = Resizer::default();
    for index in 0..source.len() {
        let Some(row) = rows.get_mut(source.label(index) as usize) else {
            continue;
        };
        if row.len() >= OF_EACH * transform.bytes() {
            continue;
        }
        // Which can't be read is told elsewhere.
        let Ok(image) = source.image(index) else {
            continue;
        };
        let start = row.len();
        row.resize(start + transform.bytes(), 0);
        transform.center(&image, &mut resizer, &mut row[start..])?;
    }
    let rows: Vec<(&str, &[u8])> = names
        .iter()
        .zip(&rows)
        .map(|(name, tiles)| (name.as_str(), &tiles[..]))
        .collect();
    Ok(labelled_rows(&rows, side))
}
