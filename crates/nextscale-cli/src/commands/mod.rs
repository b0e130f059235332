//! The subcommands, one file each.

mod bench;
mod convert;
mod edit;
mod eval;
mod images;
mod info;
mod quickstart;
mod reconstruct;
mod sample;
mod tokenize;
mod train;
mod train_tokenizer;

use clap::Subcommand;
use nextscale::Result;
use std::process::ExitCode;

/// What to do.
#[derive(Subcommand)]
#[allow(
    clippy::large_enum_variant,
    reason = "made once, from the command line"
)]
pub enum Command {
    /// Try everything on built-in data: train small models, evaluate them, draw images
    Quickstart(quickstart::Args),
    /// Train the tokenizer (VQVAE) on a folder of images
    TrainTokenizer(train_tokenizer::Args),
    /// Train the transformer (VAR) on a folder of images with a trained tokenizer
    Train(train::Args),
    /// Draw images with a trained transformer
    Sample(sample::Args),
    /// Redraw a part of an image: in-paint, out-paint, or change the class inside a mask
    Edit(edit::Args),
    /// Send images through the tokenizer and back; measure what is lost
    Reconstruct(reconstruct::Args),
    /// Write the tokens of a folder of images to a file
    Tokenize(tokenize::Args),
    /// Validation losses and accuracies of a transformer, by scale
    Eval(eval::Args),
    /// Say what a checkpoint is
    Info(info::Args),
    /// Convert checkpoints between .safetensors and the reference's .pth
    Convert(convert::Args),
    /// Time training, sampling, tokenizing and the data pipeline on this machine
    Bench(bench::Args),
}

/// Runs a subcommand; the exit code is 0, or 1 where a check did not pass.
///
/// # Errors
/// Bad input or a failed run.
pub fn run(command: Command) -> Result<ExitCode> {
    match command {
        Command::Quickstart(a) => quickstart::run(&a),
        Command::TrainTokenizer(a) => train_tokenizer::run(&a),
        Command::Train(a) => train::run(&a),
        Command::Sample(a) => sample::run(&a),
        Command::Edit(a) => edit::run(&a),
        Command::Reconstruct(a) => reconstruct::run(&a),
        Command::Tokenize(a) => tokenize::run(&a),
        Command::Eval(a) => eval::run(&a),
        Command::Info(a) => info::run(&a),
        Command::Convert(a) => convert::run(&a),
        Command::Bench(a) => bench::run(&a),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The command line's arguments as one text, for logs.
pub(crate) fn command_line() -> String {
    std::env::args().skip(1).collect::<Vec<_>>().join(" ")
}
