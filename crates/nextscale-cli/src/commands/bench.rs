//! `nextscale bench`: how fast this machine is at it. Every figure is a median over steps after a warm-up.

use super::machine::Machine;
use nextscale::data::LoaderConfig;
use nextscale::generate::{BatchSampler, Noise, SampleOptions, Sampler};
use nextscale::model::Pyramid;
use nextscale::model::var::{InitScales, Var, VarConfig};
use nextscale::model::vqvae::{Vqvae, VqvaeConfig};
use nextscale::train::device::Arithmetic;
use nextscale::train::flags::parse_pn;
use nextscale::train::progressive::Stage;
use nextscale::train::session::{BUILTIN_SHAPES, Dataset};
use nextscale::train::tokenizer_trainer::{TokenizerStep, TokenizerTrainer};
use nextscale::train::var_trainer::{StepPlan, VarTrainer};
use nextscale::{Error, Result};
use nextscale_tensor::cpu::gemm::pack::{Rows, Transposed};
use nextscale_tensor::cpu::gemm::{Plain, gemm};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Device, Math, Tensor, ops};
use serde_json::json;
use std::time::Instant;

/// Flags of `bench`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// What to time
    #[arg(value_enum)]
    what: What,
    /// Sizes: small (tokenizer ch 32, 128 codes, depth 2, 64 px) or wide (ch 160, 4096 codes, depth 4, 256 px)
    #[arg(long, value_enum, default_value_t = Preset::Small)]
    preset: Preset,
    /// Depth of the transformer, instead of the preset's
    #[arg(long, value_name = "N")]
    depth: Option<usize>,
    /// Base width of the tokenizer, instead of the preset's
    #[arg(long, value_name = "N")]
    ch: Option<usize>,
    /// Side lengths of the token maps, instead of the preset's
    #[arg(long, value_name = "LIST")]
    pn: Option<String>,
    /// Images at once, instead of the preset's (16 and 1; sampling 4)
    #[arg(long, value_name = "N")]
    bs: Option<usize>,
    /// Timed steps
    #[arg(long, value_name = "N", default_value_t = 12)]
    steps: usize,
    /// Images for `data`: a folder, or builtin:shapes
    #[arg(long, value_name = "DIR", default_value = BUILTIN_SHAPES)]
    data_path: String,
    /// Threads that read images for `data`; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    workers: usize,
    #[command(flatten)]
    machine: Machine,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The transformer's training step: tokenize, forward, backward, AdamW
    Train,
    /// The tokenizer's training step
    TrainTokenizer,
    /// Greedy sampling, decoder included, as a captured graph on a GPU
    Sample,
    /// Images to tokens
    Tokenize,
    /// Decoding, resizing and cropping images
    Data,
    /// Matrix products of the sizes that models have
    Ops,
}

/// Sizes that are measured against PyTorch in docs/benchmarks.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Preset {
    /// Tokenizer ch 32 with 128 codes, depth-2 transformer, 64 px
    Small,
    /// Tokenizer ch 160 with 4096 codes, depth-4 transformer, 256 px
    Wide,
}

pub fn run(args: &Args) -> Result<()> {
    if args.steps == 0 || args.bs == Some(0) {
        return Err(Error::input("--steps and --bs must be at least 1"));
    }
    let usual = match args.what {
        What::TrainTokenizer => Arithmetic::Tf32,
        _ => Arithmetic::Bf16,
    };
    let place = args.machine.start(usual)?;
    match args.what {
        What::Train => train(args, place),
        What::TrainTokenizer => train_tokenizer(args, place),
        What::Sample => sample(args, place),
        What::Tokenize => tokenize(args, place),
        What::Data => data(args),
        What::Ops => products(args),
    }
}

/// Where to compute and how precisely.
type Place = (Device, Math);

/// Models of the sizes asked for, with random weights: they do not change the amount of work.
fn models(
    args: &Args,
    (device, math): Place,
    trainable: (bool, bool),
) -> Result<(Vqvae, Var, usize)> {
    let (ch, vocab, depth, pn) = match args.preset {
        Preset::Small => (32, 128, 2, "1_2_3_4"),
        Preset::Wide => (160, 4096, 4, "256"),
    };
    let pyramid = Pyramid::square(&parse_pn(args.pn.as_deref().unwrap_or(pn))?)?;
    let side = pyramid.finest().0 * 16;
    let config = VqvaeConfig {
        ch: args.ch.unwrap_or(ch),
        vocab,
        ..VqvaeConfig::published(pyramid.clone())
    };
    let mut vqvae = Vqvae::new(config, trainable.0)?;
    vqvae.init(1)?;
    let config = VarConfig {
        vocab,
        ..VarConfig::of_depth(args.depth.unwrap_or(depth), 10, pyramid)
    };
    let mut var = Var::new(config, trainable.1)?;
    let scales = InitScales {
        hd: 1.0,
        alng: 0.1,
        ..InitScales::default()
    };
    var.init(scales, 1)?;
    vqvae.to_device(device, math)?;
    var.to_device(device, math)?;
    Ok((vqvae, var, side))
}

fn random_images(batch: usize, side: usize, device: Device) -> Result<Tensor> {
    let mut s = Stream::new(1, Purpose::Test, 0, 0);
    let n = batch * side * side * 3;
    let values = (0..n).map(|_| 2.0 * s.uniform() - 1.0).collect();
    Ok(Tensor::from_vec([batch, side, side, 3], values).to(device)?)
}

/// Runs `step` twice to warm up, then `steps` times; prints the median with what goes with it.
fn time(
    args: &Args,
    (device, math): Place,
    name: &str,
    images: usize,
    mut step: impl FnMut(u64) -> Result<()>,
) -> Result<()> {
    let mut ms = Vec::new();
    for i in 0..args.steps + 2 {
        let start = Instant::now();
        step(i as u64)?;
        if let Some(gpu) = device.gpu()? {
            gpu.synchronize()?;
        }
        if i >= 2 {
            ms.push(1e3 * start.elapsed().as_secs_f64());
        }
    }
    ms.sort_by(f64::total_cmp);
    let median = ms[ms.len() / 2];
    let preset = format!("{:?}", args.preset).to_lowercase();
    let gpu = device.gpu()?;
    let line = json!({
        "bench": name,
        "preset": preset,
        "device": device.to_string(),
        "operands": gpu.map(|_| math.operands.name()),
        "batch": images,
        "threads": rayon_threads(),
        "steps": ms.len(),
        "median_ms": round(median),
        "min_ms": round(ms[0]),
        "images_per_s": round(images as f64 / median * 1e3),
        "peak_rss_mib": peak_rss_mib(),
        "peak_gpu_mib": gpu.map(|g| g.usage().peak >> 20),
    });
    println!("{line}");
    Ok(())
}

fn round(x: f64) -> f64 {
    (x * 10.0).round() / 10.0
}

fn rayon_threads() -> usize {
    nextscale::compute_threads()
}

/// Largest resident size of this process so far, where the system tells.
fn peak_rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}

fn train(args: &Args, place: Place) -> Result<()> {
    let (vqvae, var, side) = models(args, place, (false, true))?;
    let batch = args.bs.unwrap_or(match args.preset {
        Preset::Small => 16,
        Preset::Wide => 1,
    });
    let images = random_images(batch, side, place.0)?;
    let labels: Vec<i32> = (0..batch as i32).map(|i| i % 10).collect();
    let mut trainer = VarTrainer::new(vqvae, var, 0.0, 1)?;
    time(args, place, "train", batch, |it| {
        let plan = StepPlan {
            it,
            lr: 1e-4,
            wd: 0.05,
            clip: Some(2.0),
            accumulate: 1,
            update: true,
            stage: Stage::ALL,
        };
        trainer.step(&images, &labels, &plan)?.read().map(|_| ())
    })
}

fn train_tokenizer(args: &Args, place: Place) -> Result<()> {
    let (vqvae, _, side) = models(args, place, (true, false))?;
    let batch = args.bs.unwrap_or(match args.preset {
        Preset::Small => 16,
        Preset::Wide => 1,
    });
    let images = random_images(batch, side, place.0)?;
    let mut trainer = TokenizerTrainer::new(vqvae, (0.9, 0.95), (0.2, 1.0), 1)?;
    time(args, place, "train-tokenizer", batch, |it| {
        let plan = TokenizerStep {
            it,
            lr: 1e-4,
            wd: 0.0,
            clip: Some(2.0),
        };
        let late = trainer.step(&images, &plan)?;
        trainer.read(late).map(|_| ())
    })
}

fn sample(args: &Args, place: Place) -> Result<()> {
    let (vqvae, var, _) = models(args, place, (false, false))?;
    let batch = args.bs.unwrap_or(4);
    let sampler = Sampler {
        var: &var,
        vqvae: &vqvae,
    };
    let labels: Vec<i32> = (0..batch as i32).map(|i| i % 10).collect();
    let options = SampleOptions {
        cfg: 1.5,
        top_k: 1,
        top_p: 0.0,
        more_smooth: false,
        noise: Noise::Seed(0),
    };
    let mut batches = BatchSampler::new(sampler, options, batch);
    time(args, place, "sample", batch, |_| {
        let drawn = batches.draw(&labels, 0)?;
        nextscale_tensor::ops::to_pixels(&drawn.images).map(|_| ())?;
        Ok(())
    })
}

fn tokenize(args: &Args, place: Place) -> Result<()> {
    let (vqvae, var, side) = models(args, place, (false, false))?;
    let batch = args.bs.unwrap_or(match args.preset {
        Preset::Small => 16,
        Preset::Wide => 1,
    });
    let images = random_images(batch, side, place.0)?;
    time(args, place, "tokenize", batch, |_| {
        vqvae.tokenize(&images, &var.config.pyramid).map(|_| ())
    })
}

fn data(args: &Args) -> Result<()> {
    let side = match args.preset {
        Preset::Small => 64,
        Preset::Wide => 256,
    };
    let set = Dataset::open(&args.data_path, side, 1.125, false)?;
    let batch = args.bs.unwrap_or(32);
    let config = LoaderConfig {
        workers: args.workers,
        ..LoaderConfig::default()
    };
    let mut loader = set.train_loader(batch, (0, 0), config)?;
    // Batches come in bursts: one step is several of them.
    let per_step = (256 / batch).max(1);
    let place = (Device::Cpu, Math::FULL);
    time(args, place, "data", batch * per_step, |_| {
        for _ in 0..per_step {
            let b = loader.next_batch()?;
            ops::from_pixels([b.len(), side, side, 3], &b.images)?;
        }
        Ok(())
    })
}

/// Matrix products of the tokenizer's convolutions and the transformer's layers, as (rows, columns, inner).
const PRODUCTS: [(&str, usize, usize, usize); 6] = [
    ("conv 160 at 256 px", 65536, 160, 1440),
    ("conv 320 at 64 px", 4096, 320, 2880),
    ("conv 640 at 16 px", 256, 640, 5760),
    ("conv 32 at 64 px x16", 65536, 32, 288),
    ("fc1 of width 256", 680, 1024, 256),
    ("fc1 of width 1024", 680, 4096, 1024),
];

fn products(args: &Args) -> Result<()> {
    println!("{:<22} {:>10} {:>12}", "product", "x.wT", "aT.b  GFLOP/s");
    for (name, m, n, k) in PRODUCTS {
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; n * k]);
        let mut c = vec![0.0f32; m * n];
        let mut rate = [0.0f64; 2];
        for (i, rate) in rate.iter_mut().enumerate() {
            let mut times = Vec::new();
            for _ in 0..args.steps {
                let start = Instant::now();
                let size = (m, n, k);
                if i == 0 {
                    let b = Transposed::new(&b, k);
                    gemm(size, &Rows::new(&a, k), &b, &mut c, false, &Plain);
                } else {
                    let b = Rows::new(&b, n);
                    gemm(size, &Transposed::new(&a, m), &b, &mut c, false, &Plain);
                }
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            *rate = 2e-9 * (m * n * k) as f64 / times[times.len() / 2];
        }
        println!("{name:<22} {:>10.1} {:>12.1}", rate[0], rate[1]);
    }
    Ok(())
}
