//! `nextscale edit`: redraw a part of an image.

mod results;

use super::class_list::one_class;
use super::images::{
    Loaded, check_parent, check_picture, in_range, is_folder, load, looks_like_a_file, may_write,
    open_folder, pair,
};
use super::machine::MachineArgs;
use super::mask;
use super::record::Origin;
use super::weights_args::WeightsArgs;
use nextscale::checkpoint::class_names::ModelClasses;
use nextscale::checkpoint::open::{OpenPair, open_pair};
use nextscale::data::{Aspect, Canvas};
use nextscale::format::sha256_of;
use nextscale::generate::{Edit, Noise, Region, SampleOptions, Sampler, Seam, Selected};
use nextscale::memory::{self, Workload, advise};
use nextscale::model::Pyramid;
use nextscale::options::CanvasOptions;
use nextscale::pictures::{PictureFormat, check_grid};
use nextscale::{Error, Result, tell};
use nextscale_tensor::Precision;
use nextscale_tensor::ops;
use results::{Flags, Mask, Results};
use std::path::PathBuf;

/// Results that one picture holds.
const MOST_RESULTS: usize = 256;
/// Results that a folder holds.
const MOST_FILES: usize = 1 << 16;
/// Which part of an image's side --keep_original blends over, where nothing is said.
const FEATHER: usize = 32;

/// Flags of `edit`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// The transformer: a training checkpoint or weights, .safetensors or .pth
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The tokenizer, where the model's file does not hold it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// The image to start from
    #[arg(long, value_name = "FILE")]
    image: PathBuf,
    #[command(flatten)]
    canvas: CanvasOptions,
    /// What to do: redraw inside the region (inpaint, or reclass with another --class), or around it (outpaint)
    #[arg(long, value_enum, default_value_t = Mode::Inpaint)]
    mode: Mode,
    /// The region as x0,y0,x1,y1 in shares of the width and height of the square that the image becomes
    #[arg(long, value_name = "X0,Y0,X1,Y1", conflicts_with = "mask")]
    r#box: Option<String>,
    /// The region as a picture: white is in it, black is not. A picture of 0 and 1 is read as black and white, and one of a
    /// single colour with an alpha channel by that: opaque is in the region
    #[arg(long, value_name = "FILE")]
    mask: Option<PathBuf>,
    /// Class to draw: a name, as the model's file or the folders under --data_path have it, or a number from 0 on; without it no class
    /// (no guidance towards one)
    #[arg(long, value_name = "CLASS", visible_alias = "classes")]
    class: Option<String>,
    /// A data folder whose class folders give names to the classes where the model's file does not, or builtin:shapes
    #[arg(long, value_name = "DIR")]
    data_path: Option<String>,
    /// Different results to draw
    #[arg(long, value_name = "N", default_value_t = 4)]
    count: usize,
    /// Guidance: 0 none, larger values follow the class more strictly
    #[arg(long, value_name = "X", default_value_t = 3.0)]
    cfg: f32,
    /// Draw from the k likeliest codes; 0: from all
    #[arg(long, value_name = "N", default_value_t = 900)]
    top_k: usize,
    /// Draw from the likeliest codes that make up this probability; 0: from all
    #[arg(long, value_name = "X", default_value_t = 0.95)]
    top_p: f32,
    /// Seed
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Put the image's own pixels back outside the region, with a soft edge around it
    #[arg(long)]
    keep_original: bool,
    /// Pixels around the region over which --keep_original goes from what was drawn to the image's own; 0: none; without it 1/32 of the
    /// side
    #[arg(long, value_name = "N", requires = "keep_original")]
    feather: Option<usize>,
    /// Output: a picture ending in .png, .jpg or .webp with the source, its reconstruction, then the results; or a folder for a PNG
    /// file a result. PNG files say how they were drawn
    #[arg(long, value_name = "PATH", default_value = "edit.png")]
    out: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    machine: MachineArgs,
}

/// Results that are drawn at once.
const AT_ONCE: usize = 8;

/// Which side of the region is drawn anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    /// Inside, as what surrounds it suggests
    Inpaint,
    /// Outside
    Outpaint,
    /// Inside, as the class given
    Reclass,
}

pub fn run(args: &Args) -> Result<()> {
    edit(args).map_err(|e| e.of_weights(pair(&args.model, args.tokenizer.as_deref())))
}

fn edit(args: &Args) -> Result<()> {
    in_range("cfg", f64::from(args.cfg), 0.0..=1000.0)?;
    in_range("top_p", f64::from(args.top_p), 0.0..=1.0)?;
    if args.count == 0 {
        return Err(Error::input("--count=0: expected at least 1"));
    }
    let to_folder = is_folder(&args.out)
        || PictureFormat::of(&args.out).is_none() && !looks_like_a_file(&args.out);
    let (most, why) = match to_folder {
        true => (MOST_FILES, ""),
        false => (MOST_RESULTS, ", as all are in one picture"),
    };
    if args.count > most {
        return Err(Error::input(format!(
            "--count={}: it must be at most {most}{why}",
            args.count
        )));
    }
    if args.mode == Mode::Reclass && args.class.is_none() {
        return Err(Error::input("--mode=reclass needs --class"));
    }
    if !to_folder {
        check_picture(&args.out)?;
        may_write(&args.out, args.force)?;
        check_parent(&args.out)?;
    }
    let usual = Precision::Bf16;
    let (device, math) = args.machine.start(usual)?;
    let (tokenizer, kind) = (args.tokenizer.as_deref(), args.weights.kind);
    let opened = open_pair(&args.model, tokenizer, kind)?;
    let precision = args.machine.chosen(device, usual);
    let files = (args.model.as_path(), tokenizer);
    let origin = Origin::of(&opened, files, kind, (device, precision))?;
    let OpenPair {
        mut var,
        tokenizer: mut tok,
        class_names,
        canvas,
    } = opened;
    var.to_device(device, math)?;
    tok.vqvae.to_device(device, math)?;
    let pyramid = &var.config.pyramid;
    let (h, w) = pyramid.finest();
    if h != w {
        return Err(Error::input("edit works on square images"));
    }
    let side = h * tok.vqvae.config.downsample();
    let (label, names) = match &args.class {
        Some(class) => {
            let known = ModelClasses {
                file: &args.model.display().to_string(),
                names: class_names.as_deref(),
                count: var.config.classes,
            };
            one_class(class, args.data_path.as_deref(), &known)?
        }
        None => (var.no_class(), None),
    };
    let all = args.count + 2;
    if !to_folder {
        check_grid(&args.out, all, side, all, "a smaller --count")?;
    }
    let canvas = args.canvas.or_as(canvas).chosen();
    let Loaded {
        tensor: image,
        pixels,
        remarks,
    } = load(&args.image, side, 1.0, canvas)?;
    for remark in remarks {
        tell!("--image={}: {remark}", args.image.display());
    }
    let region = region(args, side, canvas.aspect)?;
    check_region(args, &region, pyramid)?;
    let options = SampleOptions {
        cfg: args.cfg,
        top_k: args.top_k,
        top_p: args.top_p,
        more_smooth: false,
        noise: Noise::Seed(args.seed),
    };
    let workload = || Workload::Sample {
        var: &var.config,
        vqvae: &tok.vqvae.config,
        math,
        options: &options,
    };
    memory::check(device, "count", args.count.min(AT_ONCE), workload())?;
    let (back, tokens) = tok.vqvae.reconstruct(&image.to(device)?, pyramid)?;
    let feather = args.feather.unwrap_or((side / FEATHER).max(1));
    let seam = args
        .keep_original
        .then(|| Seam::around(&region, (side, side), feather));
    let edit = Edit {
        source: tokens,
        region,
    };
    let sampler = Sampler {
        var: &var,
        vqvae: &tok.vqvae,
    };
    let class = args.class.is_some().then_some(label);
    let flags = args.flags(class, seam.is_some().then_some(feather), canvas)?;
    if to_folder {
        open_folder(&args.out, args.force)?;
    }
    let mut results = Results::new(&args.out, to_folder, side, flags, origin, names);
    if !to_folder {
        results.begin(&pixels, &ops::to_pixels(&ops::to_unit_range(&back)?)?);
    }
    for first in (0..args.count).step_by(AT_ONCE) {
        let labels = vec![label; AT_ONCE.min(args.count - first)];
        let drawn = sampler.draw(&labels, first as u64, &options, Some(&edit), None);
        let drawn = drawn.map_err(|e| advise(e, device, "count", labels.len(), workload()))?;
        let mut drawn = drawn.pixels()?;
        for image in drawn.chunks_exact_mut(pixels.len()) {
            if let Some(seam) = &seam {
                seam.put_back(image, &pixels)?;
            }
            results.take(image)?;
        }
    }
    results.finish(args.count)
}

impl Args {
    /// The flags that decide the pixels.
    fn flags(&self, class: Option<i32>, feather: Option<usize>, canvas: Canvas) -> Result<Flags> {
        let mode = clap::ValueEnum::to_possible_value(&self.mode);
        let mask = match &self.mask {
            Some(file) => Some(Mask {
                file: file.display().to_string(),
                sha256: sha256_of(file)?,
            }),
            None => None,
        };
        Ok(Flags {
            image: self.image.display().to_string(),
            image_sha256: sha256_of(&self.image)?,
            canvas,
            mode: mode.map_or_else(String::new, |m| m.get_name().to_owned()),
            r#box: self.r#box.clone(),
            mask,
            class,
            count: self.count,
            seed: self.seed,
            cfg: self.cfg,
            top_k: self.top_k,
            top_p: self.top_p,
            keep_original: self.keep_original,
            feather,
        })
    }
}

/// Refuses a region that changes nothing, and tells of one that keeps nothing: at a model's few tokens either comes easily.
fn check_region(args: &Args, region: &Region, pyramid: &Pyramid) -> Result<()> {
    let flag = match (&args.mask, &args.r#box) {
        (Some(mask), _) => format!("--mask={}", mask.display()),
        (None, corners) => format!("--box={}", corners.as_deref().unwrap_or_default()),
    };
    match region.selected(pyramid) {
        Selected::Nothing => {
            let (h, w) = pyramid.finest();
            Err(Error::input(format!(
                "{flag}: it selects nothing to draw anew: a token is drawn anew where half of its area or more is selected, and the \
                 finest of this model's are 1/{w} of the width and 1/{h} of the height; select more{}",
                match args.mode {
                    Mode::Outpaint => " (--mode=outpaint draws what lies outside)",
                    _ => "",
                }
            )))
        }
        Selected::Everything => {
            tell!("{flag}: it selects the whole image");
            Ok(())
        }
        Selected::Part => Ok(()),
    }
}

fn region(args: &Args, side: usize, aspect: Aspect) -> Result<Region> {
    let outside = args.mode == Mode::Outpaint;
    if let Some(mask) = &args.mask {
        let values = mask::read(mask, side, outside, aspect)?;
        return Region::from_mask(side, side, values);
    }
    let Some(text) = &args.r#box else {
        return Err(Error::input(
            "give the region with --box=x0,y0,x1,y1 or --mask=FILE",
        ));
    };
    let numbers: Option<Vec<f64>> = text.split(',').map(|n| n.trim().parse().ok()).collect();
    match numbers.as_deref() {
        Some(&[x0, y0, x1, y1]) => Region::rectangle((x0, y0, x1, y1), outside),
        _ => Err(Error::input(format!(
            "--box={text}: expected four numbers x0,y0,x1,y1 such as 0.25,0.25,0.75,0.75"
        ))),
    }
}
