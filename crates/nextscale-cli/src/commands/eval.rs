//! `nextscale eval`: validation losses by scale, or the likelihood of every image.

mod likelihood;

use super::folder_args::FolderArgs;
use super::images::{pair, tell_all, tell_bad};
use super::machine::MachineArgs;
use super::processes::ProcessArgs;
use super::progress::progress;
use super::turns;
use super::weights_args::WeightsArgs;
use likelihood::LikelihoodArgs;
use nextscale::checkpoint::class_names::ModelClasses;
use nextscale::checkpoint::open::{OpenPair, open_pair};
use nextscale::console::counted;
use nextscale::data::LoaderConfig;
use nextscale::eval::{Measures, TeacherForcing, evaluate_likelihood, evaluate_losses};
use nextscale::memory::{self, Workload, advise};
use nextscale::model::vqvae::codes::Tokenizer;
use nextscale::options::FolderOptions;
use nextscale::options::values::BadImages;
use nextscale::run::Dataset;
use nextscale::{Error, Result, Share, Team, say};
use nextscale_tensor::Precision;
use nextscale_world::Limits;
use std::path::PathBuf;
use std::process::ExitCode;

/// Flags of `eval`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// The transformer: a training checkpoint or weights, .safetensors or .pth
    #[arg(long, value_name = "FILE")]
    model: PathBuf,
    /// The tokenizer, where the model's file does not hold it
    #[arg(long, value_name = "FILE")]
    tokenizer: Option<PathBuf>,
    // Where the model's file holds the names of its classes, a folder with some of them will do.
    #[command(flatten)]
    data: FolderArgs,
    /// Images are resized to this many times their final side before the centre crop
    #[arg(long, value_name = "X", default_value_t = 1.125)]
    mid_reso: f64,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// What happens to image files that can't be decoded
    #[arg(long, value_enum, default_value_t = BadImages::Fail)]
    bad_images: BadImages,
    #[command(flatten)]
    likelihood: LikelihoodArgs,
    #[command(flatten)]
    folder: FolderOptions,
    #[command(flatten)]
    weights: WeightsArgs,
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    processes: ProcessArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let limits = match args.likelihood.takes_long() {
        true => turns::limits(),
        false => Limits::default(),
    };
    args.processes.share_within(limits, |team| {
        let source = || pair(&args.model, args.tokenizer.as_deref());
        evaluate(args, team).map_err(|e| args.data.explain(e).of_weights(source()))
    })
}

fn evaluate(args: &Args, team: &Team) -> Result<()> {
    let world = &team.world;
    if args.batch == 0 {
        return Err(Error::input("--batch=0: expected at least 1"));
    }
    let likelihood = args.likelihood.asked()?;
    let (device, math) = args.machine.start_in(world, Precision::Tf32)?;
    let OpenPair {
        mut var,
        tokenizer: mut tok,
        class_names,
        canvas,
    } = open_pair(&args.model, args.tokenizer.as_deref(), args.weights.kind)?;
    let pyramid = var.config.pyramid.clone();
    let side = pyramid.finest().0 * tok.vqvae.config.downsample();
    let folder = args.folder.or_as(canvas);
    let mut data = Dataset::open(args.data.path(), &folder, side, args.mid_reso, false)?;
    let known = ModelClasses {
        file: &args.model.display().to_string(),
        names: class_names.as_deref(),
        count: var.config.classes,
    };
    let present = data.label_as(&known, args.data.path())?;
    if world.is_first() && present < known.count {
        say!(
            "{present} of the model's {}",
            counted(known.count, "class", "classes")
        )?;
    }
    var.to_device(device, math)?;
    tok.vqvae.to_device(device, math)?;
    let tokenizer = Tokenizer::from(tok.vqvae);
    let model = TeacherForcing {
        tokenizer: &tokenizer,
        var: &var,
    };
    if world.is_first() {
        tell_all(&data.remarks);
    }
    let config = LoaderConfig {
        bad_images: args.bad_images.into(),
        share: Share::from(world),
        ..LoaderConfig::default()
    };
    let workload = || Workload::Evaluate {
        var: &var.config,
        vqvae: tokenizer.config(),
        math,
    };
    memory::check(device, "batch", args.batch.min(data.val.len()), workload())?;
    let mut loader = data.val_loader(args.batch, config)?;
    let own = data.val.len().div_ceil(world.size());
    let mut seen = progress(own, world.is_first());
    let chance = (var.config.vocab as f64).ln();
    let full = |e| advise(e, device, "batch", args.batch, workload());
    if let Some(asked) = likelihood {
        let classes = asked.classes(var.config.classes, &*data.val, team)?;
        let found = evaluate_likelihood(model, &mut loader, side, &classes, team, &mut seen)
            .map_err(full)?;
        tell_bad(&loader.bad_images());
        found.check()?;
        return match world.is_first() {
            true => asked.report(&found, &*data.val, chance),
            false => Ok(()),
        };
    }
    let m = evaluate_losses(model, &mut loader, side, team, &mut seen).map_err(full)?;
    tell_bad(&loader.bad_images());
    m.check()?;
    if !world.is_first() {
        return Ok(());
    }
    report(&m, pyramid.scales(), chance)
}

fn report(m: &Measures, scales: &[(usize, usize)], chance: f64) -> Result<()> {
    say!("scale    tokens      loss  accuracy")?;
    for (k, (h, w)) in scales.iter().enumerate() {
        say!(
            "{:<7} {:>7}  {:>8.4}  {:>6.2} %",
            format!("{h}x{w}"),
            m.tokens.get(k).copied().unwrap_or(0),
            m.loss_of(k).unwrap_or(f64::NAN),
            m.acc_of(k).unwrap_or(f64::NAN)
        )?;
    }
    say!(
        "{:<7} {:>7}  {:>8.4}  {:>6.2} %",
        "all",
        m.tokens.iter().sum::<u64>(),
        m.loss_mean(),
        m.acc_mean()
    )?;
    say!(
        "a model that knows nothing has {chance:.4}; this one is {:.1} % below",
        100.0 * (1.0 - m.loss_mean() / chance)
    )
}
