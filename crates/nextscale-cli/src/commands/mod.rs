//! The subcommands, one file each.

mod bench;
mod check;
mod class_list;
mod completions;
mod convert;
mod doctor;
mod edit;
mod eval;
mod file_names;
mod folder_args;
mod images;
mod info;
mod learn;
mod machine;
mod man;
mod mask;
mod plan;
mod processes;
mod progress;
mod quickstart;
mod reconstruct;
mod record;
mod sample;
mod score;
mod sweep;
mod tokenize;
mod train;
mod train_features;
mod train_tokenizer;
mod turns;
mod verify;
mod weights_args;

use clap::Subcommand;
use nextscale::{Result, say};
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
    /// Look at a folder of pictures: counts, sizes, what is bad or there twice; suggest commands for this machine
    Check(check::Args),
    /// From a folder of pictures to samples in a given time: choose options, train both models, judge and draw
    Learn(learn::Args),
    /// Train the tokenizer (VQVAE) on a folder of images
    TrainTokenizer(train_tokenizer::Args),
    /// Train a classifier of a folder's own classes, whose features scores compare images by
    TrainFeatures(train_features::Args),
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
    /// Validation losses and accuracies of a transformer, by scale; or how likely every image is
    Eval(eval::Args),
    /// How good pictures are: FID, sFID, Inception score, precision and recall, by the protocols that papers use
    Score(score::Args),
    /// Say what this machine can compute on: cores, memory, GPUs, NVIDIA's libraries, and what is missing
    Doctor(doctor::Args),
    /// Say what a checkpoint is
    Info(info::Args),
    /// Convert checkpoints between .safetensors and the reference's .pth
    Convert(convert::Args),
    /// Time training, sampling, tokenizing and the data pipeline on this machine
    Bench(bench::Args),
    /// Say what a training takes on GPUs that need not be there: settings that fit, memory, time of a step, days
    Plan(plan::Args),
    /// Check this build against recorded numbers of the PyTorch reference
    Verify(verify::Args),
    /// Print the completions of all flags for a shell
    Completions(completions::Args),
    /// Print the manual page of a command, or write those of all
    Man(man::Args),
}

/// Runs a subcommand; the exit code is 0, 1 where a check did not pass, or that of a signal that stopped a training run before its end.
///
/// # Errors
/// Bad input or a failed run.
pub fn run(command: Command) -> Result<ExitCode> {
    let trains = matches!(
        command,
        Command::Train(_) | Command::TrainTokenizer(_) | Command::Quickstart(_) | Command::Learn(_)
    );
    if !trains {
        nextscale::run::signal::end_with_the_reader()?;
        nextscale::run::signal::end_cleanly()?;
    }
    match command {
        Command::Quickstart(a) => return quickstart::run(&a),
        Command::Check(a) => check::run(&a),
        Command::Learn(a) => return learn::run(&a),
        Command::TrainTokenizer(a) => return train_tokenizer::run(&a),
        Command::TrainFeatures(a) => train_features::run(&a),
        Command::Train(a) => return train::run(&a),
        Command::Sample(a) => return sample::run(&a),
        Command::Edit(a) => edit::run(&a),
        Command::Reconstruct(a) => return reconstruct::run(&a),
        Command::Tokenize(a) => return tokenize::run(&a),
        Command::Eval(a) => return eval::run(&a),
        Command::Score(a) => score::run(&a),
        Command::Doctor(a) => return doctor::run(&a),
        Command::Info(a) => info::run(&a),
        Command::Convert(a) => convert::run(&a),
        Command::Bench(a) => return bench::run(&a),
        Command::Plan(a) => plan::run(&a),
        Command::Verify(a) => return verify::run(&a),
        Command::Completions(a) => completions::run(&a),
        Command::Man(a) => man::run(&a),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The end of a training run: its result, and its exit code. One that a signal stopped says so by its code whether the result
/// can be printed or not: the terminal may be gone.
pub(crate) fn ended(result: &str, code: u8) -> Result<ExitCode> {
    let told = result.lines().try_for_each(|line| say!("{line}"));
    match told {
        Err(e) if code == 0 => Err(e),
        _ => Ok(ExitCode::from(code)),
    }
}

/// The command line's arguments as one text, for logs.
pub(crate) fn command_line() -> String {
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| word.to_string_lossy().into_owned());
    words.collect::<Vec<_>>().join(" ")
}
