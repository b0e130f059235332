//! `nextscale check`: what a folder of pictures is like, and what to do with it on this machine.

use nextscale::advice::{
    self, Facts, describe, expected, for_whom, time_tokenizer, time_transformer,
};
use nextscale::data::{Aspect, Canvas, ImageSource, Look, Resizer, Survey, Transform};
use nextscale::device::resolve_device;
use nextscale::memory::{Workload, known};
use nextscale::model::Pyramid;
use nextscale::model::vqvae::Vqvae;
use nextscale::options::precision::in_reference_flags;
use nextscale::options::values::{DeviceChoice, precision_parser};
use nextscale::options::{FolderOptions, Recipe, TokenizerOptions, TransformerOptions};
use nextscale::pictures::labelled_rows;
use nextscale::run::{Dataset, StopSignal, init_threads};
use nextscale::{Error, Result, say};
use nextscale_tensor::cuda::gib;
use nextscale_tensor::{Device, Precision};
use std::path::PathBuf;
use std::sync::Arc;
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
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Folder of images: CLASS/*, or train/CLASS/* and val/CLASS/*, or images of one class, or tar or Parquet shards; or builtin:shapes
    #[arg(value_name = "FOLDER", required_unless_present = "data_path")]
    folder: Option<String>,
    /// The same
    #[arg(long, value_name = "DIR", conflicts_with = "folder", hide = true)]
    data_path: Option<String>,
    /// Side of the images that are to be made: 32, 64, 128 or 256; without it what goes with the images and the machine
    #[arg(long, value_name = "PIXELS")]
    size: Option<usize>,
    /// Write a picture of images as a model would see them, a class a row: .png, .jpg or .webp
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
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
    init_threads(args.threads)?;
    let folder = args.folder.as_ref().or(args.data_path.as_ref());
    let folder = folder.map_or("", String::as_str);
    let recipe = args.recipe()?;
    // Sizes are those of the images, whatever becomes of them.
    let as_they_are = FolderOptions {
        aspect: Aspect::Crop,
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
        thumbnails(args, &raw, side)?.save(path)?;
        say!("{:<NAME$} {}", "picture", path.display())?;
    }
    match args.only_look {
        true => Ok(()),
        false => suggest(args, folder, &facts, recipe),
    }
}

impl Args {
    fn recipe(&self) -> Result<Option<Recipe>> {
        let Some(size) = self.size else {
            return Ok(None);
        };
        let found = Recipe::SMALL.into_iter().find(|r| r.side() == Some(size));
        found
            .map(Some)
            .ok_or_else(|| Error::field("size", size, "give 32, 64, 128 or 256"))
    }

    /// The flags of the folder that were given, as they are written.
    fn given(&self) -> String {
        let o = &self.images;
        let mut words = String::new();
        let mut add = |flag: &str, value: Option<String>| {
            if let Some(value) = value {
                words.push_str(&format!(" --{flag}={value}"));
            }
        };
        add(
            "val_path",
            o.val_path.as_ref().map(|p| p.display().to_string()),
        );
        add("val_share", o.val_share.map(|x| x.to_string()));
        add("background", o.background.map(|b| b.to_string()));
        add("aspect", (o.aspect == Aspect::Pad).then(|| "pad".into()));
        words
    }
}

/// Commands for these images and this machine, with what they take.
fn suggest(args: &Args, folder: &str, facts: &Facts, recipe: Recipe) -> Result<()> {
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
    let vqvae = a.model()?;
    let var = train.model(&vqvae, dataset.classes(), Pyramid::square(&b.patch_nums)?);
    let of_tokenizer = Workload::TrainTokenizer {
        vqvae: &vqvae,
        math: a.precision.math(),
        settings: a.settings(),
    };
    let of_transformer = Workload::Train {
        var: &var,
        vqvae: &vqvae,
        from_tokens: false,
        math: [b.math, b.tokenizer_precision.math()],
        ema: None,
        recompute: 0,
        shares: 1,
    };
    let need = |workload, batch| -> Result<Option<String>> {
        let Some((_, estimate)) = known(device, workload)? else {
            return Ok(None);
        };
        Ok(Some(format!(
            "about {}",
            gib(estimate.need(batch)?.bytes())
        )))
    };
    let memory = [need(of_tokenizer, a.batch)?, need(of_transformer, b.batch)?];
    let time = time_tokenizer(&tokenizer, &dataset, TIMED, &stop)?;
    let [of_tokenizer, of_transformer] = memory;
    let steps = a.horizon(facts.images)?.max_it;
    let first = expected(of_tokenizer, time, steps);
    let time = time_transformer(&train, Vqvae::new(vqvae, false)?, &dataset, TIMED, &stop)?;
    let second = expected(of_transformer, time, b.horizon(facts.images)?.max_it);
    let (name, given) = (recipe.name(), args.given());
    let vocab = tokenizer.vocab;
    say!("")?;
    say!(
        "{}: everything at once, in a time that you give",
        for_whom(facts)
    )?;
    say!("  nextscale learn {folder} --minutes=30{given}")?;
    say!("or one after the other")?;
    say!(
        "  nextscale train-tokenizer --recipe={name} --data_path={folder}{given} --out=tokenizer"
    )?;
    say!("      {first}")?;
    say!(
        "  nextscale train --recipe={name} --ep={} --data_path={folder}{given} --tokenizer=tokenizer/tokenizer.safetensors --out=model",
        train.schedule.ep
    )?;
    say!("      {second}")?;
    say!(
        "a transformer that knows nothing has a loss of {:.2}, the logarithm of {vocab} codes; what is below has been learnt",
        (vocab as f64).ln()
    )
}

/// Images of each class as a model would see them.
fn thumbnails(args: &Args, raw: &Dataset, side: usize) -> Result<nextscale::pictures::Picture> {
    let source: Arc<dyn ImageSource> = match raw.train.is_stored() {
        true => Arc::new(Canvas::new(
            Arc::clone(&raw.train),
            args.images.background(),
            args.images.aspect,
        )),
        false => Arc::clone(&raw.train),
    };
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
