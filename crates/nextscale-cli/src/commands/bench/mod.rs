//! `nextscale bench`: how fast this machine is at it. Every figure is a median over steps after a warm-up.

mod data;
mod gpu_products;
mod products;
mod sample;
mod table;
mod timing;
mod tokenize;
mod train;

use super::machine::MachineArgs;
use super::processes::ProcessArgs;
use clap::ArgAction;
use nextscale::model::Pyramid;
use nextscale::model::var::{InitScales, Var, VarConfig};
use nextscale::model::vqvae::{Vqvae, VqvaeConfig};
use nextscale::options::values::{parse_bool, parse_pn};
use nextscale::run::BUILTIN_SHAPES;
use nextscale::{Error, Result, World};
use nextscale_tensor::Precision;
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Device, Math, Tensor};
use std::process::ExitCode;

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
    /// One adaptive norm that all blocks of the transformer share, as the published model for 512 px has it
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = false)]
    saln: bool,
    /// Base width of the tokenizer, instead of the preset's
    #[arg(long, value_name = "N")]
    ch: Option<usize>,
    /// Side lengths of the token maps, instead of the preset's
    #[arg(long, value_name = "LIST")]
    pn: Option<String>,
    /// Images at once, in every process, instead of the preset's (16 and 1; sampling 4)
    #[arg(long, value_name = "N")]
    bs: Option<usize>,
    /// What `train` starts from: images, or their tokens as a cache of tokens has them
    #[arg(long, value_enum, default_value_t = Source::Images)]
    from: Source,
    /// In `train`, of every Nth block, or of all, keep only what goes in, and run it again for its gradients; 0: none
    #[arg(long, value_name = "N", num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = 0)]
    recompute: usize,
    /// In `train` with several processes: 1 shares weights and moments out to them as `train --zero=1` does
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=1), default_value_t = 0)]
    zero: u8,
    /// Guidance of `sample`
    #[arg(long, value_name = "X", default_value_t = 1.5)]
    cfg: f32,
    /// `sample` draws from the k likeliest codes; 0: from all; 1: always the likeliest
    #[arg(long, value_name = "N", default_value_t = 1)]
    top_k: usize,
    /// `sample` draws from the likeliest codes that make up this probability; 0: from all
    #[arg(long, value_name = "X", default_value_t = 0.0)]
    top_p: f32,
    /// On a GPU, where the time goes; operators without it
    #[arg(long, value_enum)]
    table: Option<table::Detail>,
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
    machine: MachineArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

/// What is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum What {
    /// The transformer's training step: tokenize, forward, backward, AdamW
    Train,
    /// The tokenizer's training step
    TrainTokenizer,
    /// Sampling, greedy without --top_k, decoder included; a captured graph on a GPU
    Sample,
    /// Images to tokens and the transformer's input, as in a training step
    Tokenize,
    /// Decoding, resizing and cropping images
    Data,
    /// Matrix products of the sizes that models have; on a GPU convolutions too
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

/// What a training step starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Source {
    /// Images: the tokenizer is part of the step
    Images,
    /// Tokens: the transformer's input is made of them
    Tokens,
}

impl Source {
    fn name(self) -> &'static str {
        match self {
            Self::Images => "images",
            Self::Tokens => "tokens",
        }
    }
}

impl Args {
    /// Images at once, of everything but sampling and data.
    fn batch(&self) -> usize {
        self.bs.unwrap_or(match self.preset {
            Preset::Small => 16,
            Preset::Wide => 1,
        })
    }
}

impl What {
    /// Whether several processes can do it together.
    fn is_shared(self) -> bool {
        matches!(self, Self::Train | Self::TrainTokenizer)
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if args.steps == 0 || args.bs == Some(0) {
        return Err(Error::input("--steps and --bs must be at least 1"));
    }
    const MOST: usize = 1 << 20;
    for (flag, n) in [
        ("steps", args.steps),
        ("bs", args.bs.unwrap_or(1)),
        ("workers", args.workers),
    ] {
        if n > MOST {
            return Err(Error::input(format!(
                "--{flag}={n}: it must be at most {MOST}"
            )));
        }
    }
    if args.processes.is_given() && !args.what.is_shared() {
        return Err(Error::input(
            "only the training steps of both models are timed with several processes; leave out what asks for more than one",
        ));
    }
    if args.what.is_shared() {
        return args.processes.share(|team| bench(args, &team.world));
    }
    bench(args, &World::alone())?;
    Ok(ExitCode::SUCCESS)
}

fn bench(args: &Args, world: &World) -> Result<()> {
    let usual = match args.what {
        What::TrainTokenizer => Precision::Tf32,
        _ => Precision::Bf16,
    };
    let target = args.machine.start_in(world, usual)?;
    match args.what {
        What::Train => train::train(args, target, world),
        What::TrainTokenizer => train::train_tokenizer(args, target, world),
        What::Sample => sample::sample(args, target),
        What::Tokenize => tokenize::tokenize(args, target),
        What::Data => data::data(args),
        What::Ops => match target.0.gpu()? {
            Some(gpu) => gpu_products::products(args, gpu, target),
            None => products::products(args),
        },
    }
}

/// Where to compute and how precisely.
type Target = (Device, Math);

/// Base width, codes, depth and scales of the preset.
fn presets(args: &Args) -> (usize, usize, usize, &'static str) {
    match args.preset {
        Preset::Small => (32, 128, 2, "1_2_3_4"),
        Preset::Wide => (160, 4096, 4, "256"),
    }
}

/// Models of the sizes asked for, with random weights: they do not change the amount of work.
fn models(
    args: &Args,
    (device, math): Target,
    trainable: (bool, bool),
) -> Result<(Vqvae, Var, usize)> {
    let (ch, vocab, depth, pn) = presets(args);
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
        shared_aln: args.saln,
        ..VarConfig::of_depth(args.depth.unwrap_or(depth), 10, pyramid)
    };
    let mut var = Var::new(config, trainable.1)?;
    var.recompute = args.recompute;
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

/// Normal random numbers, to fill factors of products with.
pub(super) fn numbers() -> Vec<f32> {
    let mut s = Stream::new(1, Purpose::Test, 0, 0);
    (0..1 << 20).map(|_| s.normal()).collect()
}
