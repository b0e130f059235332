//! `nextscale convert`: checkpoints between formats.

use super::weights_args::WeightsArgs;
use nextscale::checkpoint::convert::{ConvertPart, convert};
use nextscale::{Result, say};
use std::path::PathBuf;

/// Flags of `convert`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// The checkpoint to read: .safetensors or .pth
    #[arg(value_name = "FROM")]
    input: PathBuf,
    /// The file to write; its ending (.safetensors or .pth) decides the format
    #[arg(value_name = "TO")]
    output: PathBuf,
    /// What to take out of a training checkpoint
    #[arg(long, value_enum, default_value_t = PartArg::All)]
    part: PartArg,
    #[command(flatten)]
    weights: WeightsArgs,
    /// Overwrite TO if it exists
    #[arg(long)]
    force: bool,
}

/// What of a training checkpoint is converted.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum PartArg {
    /// Everything
    All,
    /// The transformer's weights
    Var,
    /// The tokenizer's weights
    Vae,
}

pub fn run(args: &Args) -> Result<()> {
    super::images::may_write(&args.output, args.force)?;
    let part = match args.part {
        PartArg::All => ConvertPart::All,
        PartArg::Var => ConvertPart::Var,
        PartArg::Vae => ConvertPart::Vae,
    };
    let report = convert(&args.input, &args.output, part, args.weights.kind)?;
    say!(
        "{}: {} tensors, {:.1} MiB",
        args.output.display(),
        report.tensors,
        report.bytes as f64 / (1 << 20) as f64
    )?;
    if report.trainer {
        say!(
            "all of the training checkpoint, the optimizer's state included; --part=var takes the transformer's weights alone, --part=vae the tokenizer's"
        )?;
    }
    for note in &report.notes {
        say!("note: {note}")?;
    }
    Ok(())
}
