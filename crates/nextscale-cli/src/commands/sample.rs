//! `nextscale sample`: draw images.

use super::class_list::class_list;
use super::images::{in_range, pair};
use super::machine::MachineArgs;
use super::processes::ProcessArgs;
use super::turns::{self, Turns};
use super::weights_args::WeightsArgs;
use nextscale::checkpoint::class_names::ModelClasses;
use nextscale::checkpoint::open::{OpenPair, open_pair};
use nextscale::generate::{BatchSampler, Noise, SampleOptions, Sampler};
use nextscale::memory::{self, Workload, advise};
use nextscale::model::state::fingerprint;
use nextscale::pictures::{GridFile, NpzImages, Picture, PictureFormat, check_grid, grid};
use nextscale::{Error, Result, Team, say};
use nextscale_tensor::Precision;
use nextscale_tensor::ops;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Images of a class at most: what more would take is no file or folder anybody keeps.
const MOST_OF_A_CLASS: usize = 1 << 16;

/// Flags of `sample`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// The transformer: a training checkpoint or weights, .safetensors or .pth
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The tokenizer, where the model's file does not hold it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    /// Classes, separated by commas: names, as the model's file or the folders under --data_path have them, or numbers from 0 on (a
    /// class whose name is a number goes by its name); a name with a comma in double quotes: '"a, x",b'. Without it one image
    /// of each
    #[arg(long, value_name = "LIST")]
    classes: Option<String>,
    /// A data folder whose class folders give names to the classes where the model's file does not, or builtin:shapes
    #[arg(long, value_name = "DIR")]
    data_path: Option<String>,
    /// Images of each class
    #[arg(long, value_name = "N", default_value_t = 1)]
    per_class: usize,
    /// Guidance: 0 none, larger values follow the class more strictly
    #[arg(long, value_name = "X", default_value_t = 1.5)]
    cfg: f32,
    /// Draw from the k likeliest codes; 0: from all; 1: always the likeliest
    #[arg(long, value_name = "N", default_value_t = 900)]
    top_k: usize,
    /// Draw from the likeliest codes that make up this probability; 0: from all
    #[arg(long, value_name = "X", default_value_t = 0.96)]
    top_p: f32,
    /// Seed; image number n of a seed is drawn with the same numbers whatever --batch is
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Blend codes for smoother pictures
    #[arg(long)]
    more_smooth: bool,
    /// Images drawn at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// Output: a folder for PNG files, or a file ending in .png, .jpg or .webp (one grid) or .npz (all images, as FID tools read them)
    #[arg(long, value_name = "PATH", default_value = "samples")]
    out: PathBuf,
    /// Also write the picture after every scale (to a folder of PNG files only)
    #[arg(long)]
    scales: bool,
    /// Images a row of the grid; 0: as many as there are of a class, or 8
    #[arg(long, value_name = "N", default_value_t = 0)]
    columns: usize,
    /// Overwrite existing files
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

/// Where the images go.
enum Sink {
    Folder(PathBuf),
    Grid(Box<GridFile>),
    /// A picture that is made at once when all tiles are there.
    Picture(Whole),
    Npz(Box<NpzImages>),
}

/// Tiles of a picture in the making.
struct Whole {
    path: PathBuf,
    tiles: Vec<u8>,
    side: usize,
    columns: usize,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    args.processes.share_within(turns::limits(), |team| {
        let source = || pair(&args.model, args.tokenizer.as_deref());
        sample(args, team).map_err(|e| e.of_weights(source()))
    })
}

fn sample(args: &Args, team: &Team) -> Result<()> {
    let world = &team.world;
    in_range("cfg", f64::from(args.cfg), 0.0..=1000.0)?;
    in_range("top_p", f64::from(args.top_p), 0.0..=1.0)?;
    if args.batch == 0 || args.per_class == 0 {
        return Err(Error::input("--batch and --per_class must be at least 1"));
    }
    if args.per_class > MOST_OF_A_CLASS {
        return Err(Error::input(format!(
            "--per_class={}: it must be at most {MOST_OF_A_CLASS}",
            args.per_class
        )));
    }
    let (device, math) = args.machine.start_in(world, Precision::Bf16)?;
    let OpenPair {
        mut var,
        tokenizer: mut tok,
        class_names,
    } = open_pair(&args.model, args.tokenizer.as_deref(), args.weights.kind)?;
    if world.size() > 1 {
        let [model, tokenizer] = [&var.params, &tok.vqvae.params].map(fingerprint);
        team.compare([
            (
                "`model`",
                format!("with weights {} and {}", model?, tokenizer?),
            ),
            ("`classes`", format!("{:?}", args.classes)),
            ("`per_class`", args.per_class.to_string()),
            ("`cfg`", args.cfg.to_string()),
            ("`top_k`", args.top_k.to_string()),
            ("`top_p`", args.top_p.to_string()),
            ("`seed`", args.seed.to_string()),
            ("`more_smooth`", args.more_smooth.to_string()),
            ("`batch`", args.batch.to_string()),
            ("`scales`", args.scales.to_string()),
        ])?;
    }
    var.to_device(device, math)?;
    tok.vqvae.to_device(device, math)?;
    let known = ModelClasses {
        file: &args.model.display().to_string(),
        names: class_names.as_deref(),
        count: var.config.classes,
    };
    let labels = parse_classes(args, &known)?;
    let (h, w) = var.config.pyramid.finest();
    let step = tok.vqvae.config.downsample();
    let (height, width) = (h * step, w * step);
    let options = SampleOptions {
        cfg: args.cfg,
        top_k: args.top_k,
        top_p: args.top_p,
        more_smooth: args.more_smooth,
        noise: Noise::Seed(args.seed),
    };
    let workload = || Workload::Sample {
        var: &var.config,
        vqvae: &tok.vqvae.config,
        math,
        options: &options,
    };
    memory::check(device, "batch", args.batch.min(labels.len()), workload())?;
    // What comes out is the first process's to write.
    let mut sink = match world.is_first() {
        true => Some(open_sink(args, labels.len(), (height, width))?),
        false => None,
    };
    let sampler = Sampler {
        var: &var,
        vqvae: &tok.vqvae,
    };
    let mut batches = BatchSampler::new(sampler, options.clone(), args.batch);
    let digits = labels.len().to_string().len();
    let size = (width, height);
    let each = width * height * 3;
    let mut turns = Turns::new(world, labels.len().div_ceil(args.batch));
    // Whole batches in turn: they are those of one process.
    let own = labels.chunks(args.batch).enumerate();
    let mut own = own.skip(world.rank()).step_by(world.size());
    while !turns.are_over() {
        let mut made = None;
        if let Some((b, batch)) = own.next() {
            let first = (b * args.batch) as u64;
            let mut steps = Vec::new();
            let mut watch =
                |_: usize, _: &nextscale_tensor::Tensor, f: &nextscale_tensor::Tensor| {
                    steps.extend(ops::to_pixels(&sampler.image(f)?)?);
                    Ok(())
                };
            let drawn = if args.scales {
                sampler.draw(batch, first, &options, None, Some(&mut watch))
            } else {
                batches.draw(batch, first)
            };
            let drawn = drawn.map_err(|e| advise(e, device, "batch", args.batch, workload()))?;
            let mut pixels = drawn.pixels()?;
            pixels.append(&mut steps);
            made = Some(pixels);
        }
        turns.next(made, &mut |b, made| {
            let first = b * args.batch;
            let batch = &labels[first..labels.len().min(first + args.batch)];
            // The pictures, and behind them those after every scale.
            let whole = each * batch.len();
            if made.len() < whole || !made.len().is_multiple_of(whole) {
                return Err(Error::failed(
                    "another process drew other pictures; give all of them the same files and flags",
                ));
            }
            let mut frames = made.chunks_exact(whole);
            let pixels = frames.next().unwrap_or_default();
            let name = |i: usize| format!("{:0digits$}_class{}", first + i, batch[i]);
            match &mut sink {
                Some(Sink::Folder(dir)) => {
                    for (i, image) in pixels.chunks_exact(each).enumerate() {
                        save(&dir.join(format!("{}.png", name(i))), image, size)?;
                    }
                    for (k, pixels) in frames.enumerate() {
                        for (i, image) in pixels.chunks_exact(each).enumerate() {
                            save(&dir.join(format!("{}_scale{k}.png", name(i))), image, size)?;
                        }
                    }
                    Ok(())
                }
                Some(Sink::Grid(file)) => file.append(pixels),
                Some(Sink::Picture(whole)) => {
                    whole.tiles.extend_from_slice(pixels);
                    Ok(())
                }
                Some(Sink::Npz(file)) => file.append(pixels),
                None => Ok(()),
            }
        })?;
    }
    sink.map_or(Ok(()), |sink| finish(sink, labels.len()))
}

fn save(path: &Path, rgb: &[u8], (width, height): (usize, usize)) -> Result<()> {
    Picture {
        width,
        height,
        rgb: rgb.to_vec(),
    }
    .save(path)
}

fn finish(sink: Sink, n: usize) -> Result<()> {
    match sink {
        Sink::Folder(dir) => say!("{n} images in {}", dir.display())?,
        Sink::Grid(file) => {
            let path = file.finish()?;
            say!("{n} images in {}", path.display())?;
        }
        Sink::Picture(whole) => {
            grid(&whole.tiles, whole.side, whole.columns).save(&whole.path)?;
            say!("{n} images in {}", whole.path.display())?;
        }
        Sink::Npz(file) => {
            let path = file.finish()?;
            say!("{n} images in {}", path.display())?;
        }
    }
    Ok(())
}

fn open_sink(args: &Args, n: usize, (height, width): (usize, usize)) -> Result<Sink> {
    let ending = args.out.extension().and_then(|e| e.to_str());
    let ending = ending.map(str::to_ascii_lowercase);
    let picture = PictureFormat::of(&args.out);
    let folder = is_folder(&args.out);
    match ending.as_deref().filter(|_| !folder) {
        Some("png" | "jpg" | "jpeg" | "webp" | "npz") => {
            super::images::may_write(&args.out, args.force)?;
            if args.scales {
                return Err(Error::input(format!(
                    "--scales writes many files; give --out a folder, not {}",
                    args.out.display()
                )));
            }
            if let Some(format) = picture {
                // Found out now rather than after the drawing.
                let folder = args.out.parent().filter(|p| !p.as_os_str().is_empty());
                if let Some(folder) = folder.filter(|f| !f.is_dir()) {
                    return Err(Error::input(format!(
                        "--out={}: there is no folder {}",
                        args.out.display(),
                        folder.display()
                    )));
                }
                if width != height {
                    return Err(Error::input(
                        "a grid needs square images; write to a folder",
                    ));
                }
                let columns = match args.columns {
                    0 if args.per_class > 1 => args.per_class,
                    0 => 8,
                    n => n,
                };
                if format != PictureFormat::Png {
                    let advice = "a name ending in .png, a folder, or other --columns";
                    check_grid(&args.out, n, width, columns, advice)?;
                    return Ok(Sink::Picture(Whole {
                        path: args.out.clone(),
                        tiles: Vec::new(),
                        side: width,
                        columns,
                    }));
                }
                let file = GridFile::create(&args.out, n, width, columns)?;
                Ok(Sink::Grid(Box::new(file)))
            } else {
                Ok(Sink::Npz(Box::new(NpzImages::create(
                    &args.out, n, height, width,
                )?)))
            }
        }
        _ if !folder && looks_like_a_file(&args.out) => Err(Error::input(format!(
            "--out={}: give a name ending in .png, .jpg, .webp or .npz, or a folder (with / at its end, where its name has a dot)",
            args.out.display()
        ))),
        _ => {
            let taken = args
                .out
                .read_dir()
                .is_ok_and(|mut entries| entries.next().is_some());
            if taken && !args.force {
                return Err(Error::input(format!(
                    "--out={}: the folder is not empty; choose another one or add --force",
                    args.out.display()
                )));
            }
            std::fs::create_dir_all(&args.out).map_err(Error::io(&args.out))?;
            Ok(Sink::Folder(args.out.clone()))
        }
    }
}

/// Whether `out` is a folder, or to be one by the slash at its end.
fn is_folder(out: &Path) -> bool {
    out.as_os_str().as_encoded_bytes().ends_with(b"/") || out.is_dir()
}

/// Whether a name seems to mean a file: a short word with a letter stands behind its last dot. (`run-1.5` and `.samples` are folders like
/// others.)
fn looks_like_a_file(out: &Path) -> bool {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_end_matches([' ', '.']);
    name.rsplit_once('.').is_some_and(|(_, ending)| {
        let short = ending.len() <= 5 || ending.eq_ignore_ascii_case("safetensors");
        let word = ending.chars().all(char::is_alphanumeric);
        short && word && ending.chars().any(char::is_alphabetic)
    })
}

/// The label of every image to draw.
fn parse_classes(args: &Args, known: &ModelClasses<'_>) -> Result<Vec<i32>> {
    let wanted = class_list(args.classes.as_deref(), args.data_path.as_deref(), known)?;
    Ok(wanted
        .iter()
        .flat_map(|&l| std::iter::repeat_n(l, args.per_class))
        .collect())
}
