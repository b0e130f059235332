//! The flags of `train`: names and defaults as the reference has them, and nextscale's own.
//!
//! [`TrainOptions`] is what was asked for, [`Plan`](super::plan::Plan) (through
//! [`TrainOptions::resolve`]) what follows from it for a given number of processes.

use std::path::PathBuf;

use clap::{ArgAction, Args, FromArgMatches};
use serde::{Deserialize, Serialize};

use super::device::TokenizerPrecision;
use super::flags::{BadImages, DeviceChoice, option_as_text, parse_bool, path_as_text};
use super::recipes::Recipe;
use super::reference_flags;

/// The flags of `train`. Every field is the flag of the same name.
///
/// On a command line use [`TrainArgs`], which also applies `--recipe`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, Args)]
#[serde(default, deny_unknown_fields)]
#[command(rename_all = "snake_case")]
pub struct TrainOptions {
    /// Folder with train/CLASS/* and val/CLASS/*, or builtin:shapes for the images that come with the program
    #[arg(long, value_name = "DIR", help_heading = "Data")]
    pub data_path: Option<String>,
    /// Learn from a file of `nextscale tokenize` instead of images; it brings the codebook, crops and mirroring
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    #[serde(serialize_with = "option_as_text")]
    pub tokens: Option<PathBuf>,
    /// Tokens of validation images; without it runs with --tokens do not evaluate
    #[arg(long, value_name = "FILE", help_heading = "Data")]
    #[serde(serialize_with = "option_as_text")]
    pub val_tokens: Option<PathBuf>,
    /// Name of the run in its logs
    #[arg(long, value_name = "NAME", default_value_t = Self::default().exp_name, help_heading = "Output")]
    pub exp_name: String,
    /// Flags of a published model, for those that are not given: d16, d20, d24, d30 or d36-s
    #[arg(long, value_enum, help_heading = "Model")]
    pub recipe: Option<Recipe>,
    /// Output folder; a run continues from the checkpoint that it finds there
    #[arg(long, alias = "local_out_dir_path", value_name = "DIR", default_value_os_t = Self::default().out, help_heading = "Output")]
    #[serde(serialize_with = "path_as_text")]
    pub out: PathBuf,
    /// Weights of the tokenizer (VQVAE): .safetensors or the published .pth; with --tokens it may be left out, and is needed again to sample
    #[arg(long, value_name = "FILE", help_heading = "Model")]
    #[serde(serialize_with = "option_as_text")]
    pub tokenizer: Option<PathBuf>,
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is one
    #[arg(long, default_value_t = Self::default().device, help_heading = "Machine")]
    pub device: DeviceChoice,
    /// Threads that compute on the CPU; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = Self::default().threads, help_heading = "Machine")]
    pub threads: usize,

    /// Compilation of the tokenizer in the reference; accepted, there is nothing to switch
    #[arg(long, value_name = "N", default_value_t = Self::default().vfast, help_heading = "Accepted for compatibility")]
    pub vfast: u8,
    /// Compilation of the transformer in the reference; accepted, there is nothing to switch
    #[arg(long, value_name = "N", default_value_t = Self::default().tfast, help_heading = "Accepted for compatibility")]
    pub tfast: u8,
    /// Fused AdamW; accepted, it always is
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().afuse, help_heading = "Accepted for compatibility")]
    pub afuse: bool,
    /// Fused operators; accepted, they always are
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().fuse, help_heading = "Accepted for compatibility")]
    pub fuse: bool,

    /// Blocks of the transformer; its width is 64 for each
    #[arg(long, value_name = "N", default_value_t = Self::default().depth, help_heading = "Model")]
    pub depth: usize,
    /// Side lengths of the token maps: 256, 512, 1024 or a list such as 1_2_3_4
    #[arg(long, value_name = "LIST", default_value_t = Self::default().pn, help_heading = "Model")]
    pub pn: String,
    /// Image pixels along a side of one token
    #[arg(long, value_name = "N", default_value_t = Self::default().patch_size, help_heading = "Model")]
    pub patch_size: usize,
    /// One adaptive norm shared by all blocks
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().saln, help_heading = "Model")]
    pub saln: bool,
    /// Queries and keys of unit length in attention
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().anorm, help_heading = "Model")]
    pub anorm: bool,
    /// Standard deviation of the initial weights; negative: from the width
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = Self::default().ini, help_heading = "Model")]
    pub ini: f64,
    /// Factor on the head's initial weight
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = Self::default().hd, help_heading = "Model")]
    pub hd: f64,
    /// Factor on the initial weights of the adaptive norms
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = Self::default().aln, help_heading = "Model")]
    pub aln: f64,
    /// The same for the rows that gate the branches
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = Self::default().alng, help_heading = "Model")]
    pub alng: f64,

    /// Precision: 0 float32 or TF32, 1 float16 with a loss scale, 2 bfloat16
    #[arg(long, value_name = "0|1|2", default_value_t = Self::default().fp16, help_heading = "Machine")]
    pub fp16: u8,
    /// TF32 in float32 matrix products on GPUs
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().tf32, help_heading = "Machine")]
    pub tf32: bool,
    /// Precision of the tokenizer on a GPU; without it bf16 with --fp16=1 or 2, else as --tf32 says
    #[arg(long, value_enum, help_heading = "Machine")]
    pub tokenizer_precision: Option<TokenizerPrecision>,
    /// Learning rate for 256 images a step; it is scaled with the batch
    #[arg(long, value_name = "X", default_value_t = Self::default().tblr, help_heading = "Optimization")]
    pub tblr: f64,
    /// Weight decay at the start
    #[arg(long, value_name = "X", default_value_t = Self::default().twd, help_heading = "Optimization")]
    pub twd: f64,
    /// Weight decay at the end; 0: the same as at the start
    #[arg(long, value_name = "X", default_value_t = Self::default().twde, help_heading = "Optimization")]
    pub twde: f64,
    /// Largest global norm of the gradients; 0 or less: no limit
    #[arg(long, value_name = "X", allow_negative_numbers = true, default_value_t = Self::default().tclip, help_heading = "Optimization")]
    pub tclip: f64,
    /// Label smoothing
    #[arg(long, value_name = "X", default_value_t = Self::default().ls, help_heading = "Optimization")]
    pub ls: f64,
    /// Images in a step, over all processes and accumulated iterations
    #[arg(long, value_name = "N", default_value_t = Self::default().bs, help_heading = "Optimization")]
    pub bs: usize,
    /// Iterations whose gradients are accumulated into one step
    #[arg(long, value_name = "N", default_value_t = Self::default().ac, help_heading = "Optimization")]
    pub ac: usize,
    /// Where memory is too small for --bs: raise --ac until the images of an iteration fit, and keep --bs
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = Self::default().fit, help_heading = "Optimization")]
    pub fit: bool,
    /// Epochs
    #[arg(long, value_name = "N", default_value_t = Self::default().ep, help_heading = "Optimization")]
    pub ep: usize,
    /// Epochs of warm-up; 0: a fiftieth of all
    #[arg(long, value_name = "X", default_value_t = Self::default().wp, help_heading = "Optimization")]
    pub wp: f64,
    /// Learning rate at the first iteration as a share of its peak
    #[arg(long, value_name = "X", default_value_t = Self::default().wp0, help_heading = "Optimization")]
    pub wp0: f64,
    /// Learning rate at the last iteration as a share of its peak
    #[arg(long, value_name = "X", default_value_t = Self::default().wpe, help_heading = "Optimization")]
    pub wpe: f64,
    /// How the learning rate falls: cos, lin, lin0, lin00, linT (such as lin0.3) or exp
    #[arg(long, value_name = "NAME", default_value_t = Self::default().sche, help_heading = "Optimization")]
    pub sche: String,
    /// Optimizer: adamw (adam is the same)
    #[arg(long, value_name = "NAME", default_value_t = Self::default().opt, help_heading = "Optimization")]
    pub opt: String,
    /// Progressive training: the share of the run at which all scales take part; 0: from the start
    #[arg(long, value_name = "X", default_value_t = Self::default().pg, help_heading = "Optimization")]
    pub pg: f64,
    /// Progressive training: the highest scale at the start, counted from 0
    #[arg(long, value_name = "N", default_value_t = Self::default().pg0, help_heading = "Optimization")]
    pub pg0: usize,
    /// Progressive training: epochs over which a new scale's loss weight rises; 0: a 300th of all
    #[arg(long, value_name = "X", default_value_t = Self::default().pgwp, help_heading = "Optimization")]
    pub pgwp: f64,
    /// Seed of all random draws; without it one is drawn and logged
    #[arg(long, value_name = "N", help_heading = "Optimization")]
    pub seed: Option<u64>,

    /// Images are resized to this many times their final side before the crop
    #[arg(long, value_name = "X", default_value_t = Self::default().mid_reso, help_heading = "Data")]
    pub mid_reso: f64,
    /// Mirror half of the training images
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, default_value_t = Self::default().hflip, help_heading = "Data")]
    pub hflip: bool,
    /// Threads that read images; 0 or less: chosen from the number of cores
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = Self::default().workers, help_heading = "Data")]
    pub workers: i64,
    /// What to do with an image that can't be read: name it and take another one (skip), or stop (fail)
    #[arg(long, value_enum, default_value_t = Self::default().bad_images, help_heading = "Data")]
    pub bad_images: BadImages,

    /// Save and stop after this many optimizer steps of the whole run; the same command continues it
    #[arg(long, value_name = "STEPS", help_heading = "Output")]
    pub stop_after: Option<u64>,
    /// Evaluate (and save) after every so many epochs; 0: only after the last
    #[arg(long, value_name = "EPOCHS", default_value_t = Self::default().eval_every, help_heading = "Output")]
    pub eval_every: u64,
    /// Save a checkpoint every so many optimizer steps; 0: only with evaluations and at the end
    #[arg(long, value_name = "STEPS", default_value_t = Self::default().save_every, help_heading = "Output")]
    pub save_every: u64,
    /// Checkpoints to go on from that are kept: the last one and those before it, NAME.1.safetensors and so on
    #[arg(long, value_name = "N", default_value_t = Self::default().keep, help_heading = "Output")]
    pub keep: usize,
    /// Write a line into steps.jsonl every so many optimizer steps; 0: none
    #[arg(long, value_name = "STEPS", default_value_t = Self::default().log_every, help_heading = "Output")]
    pub log_every: u64,
    /// No progress on the terminal
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = Self::default().quiet, help_heading = "Output")]
    pub quiet: bool,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            data_path: None,
            tokens: None,
            val_tokens: None,
            exp_name: "text".to_owned(),
            recipe: None,
            out: PathBuf::from("local_output"),
            tokenizer: None,
            device: DeviceChoice::Auto,
            threads: 0,
            vfast: 0,
            tfast: 0,
            afuse: true,
            fuse: true,
            depth: 16,
            pn: "256".to_owned(),
            patch_size: 16,
            saln: false,
            anorm: true,
            ini: -1.0,
            hd: 0.02,
            aln: 0.5,
            alng: 1e-5,
            fp16: 0,
            tf32: true,
            tokenizer_precision: None,
            tblr: 1e-4,
            twd: 0.05,
            twde: 0.0,
            tclip: 2.0,
            ls: 0.0,
            bs: 768,
            ac: 1,
            fit: false,
            ep: 250,
            wp: 0.0,
            wp0: 0.005,
            wpe: 0.01,
            sche: "lin0".to_owned(),
            opt: "adamw".to_owned(),
            pg: 0.0,
            pg0: 4,
            pgwp: 0.0,
            seed: None,
            mid_reso: 1.125,
            hflip: false,
            workers: 0,
            bad_images: BadImages::Fail,
            stop_after: None,
            eval_every: 10,
            save_every: 0,
            keep: 2,
            log_every: 10,
            quiet: false,
        }
    }
}

/// [`TrainOptions`] as read from a command line: `--recipe` has filled the flags that were not given, and the reference's other
/// flags are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainArgs {
    /// The flags.
    pub options: TrainOptions,
    /// A line for each flag that was given and does nothing.
    pub does_nothing: Vec<String>,
}

impl Args for TrainArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        reference_flags::add(TrainOptions::augment_args(command))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        reference_flags::add(TrainOptions::augment_args_for_update(command))
    }
}

impl FromArgMatches for TrainArgs {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut options = TrainOptions::from_arg_matches(matches)?;
        if let Some(recipe) = options.recipe {
            recipe.apply(&mut options, |flag| {
                matches.value_source(flag) == Some(clap::parser::ValueSource::CommandLine)
            });
        }
        Ok(Self {
            options,
            does_nothing: reference_flags::told(matches),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.does_nothing = reference_flags::told(matches);
        self.options.update_from_arg_matches(matches)
    }
}
