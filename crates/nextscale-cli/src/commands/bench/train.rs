//! The training steps.

use super::timing::{Bench, Pass};
use super::{Args, Source, Target, models, random_images};
use nextscale::Result;
use nextscale::train::tokenizer_trainer::{TokenizerSettings, TokenizerStep, TokenizerTrainer};
use nextscale::train::var_trainer::{TransformerStep, VarTrainer};
use nextscale_tensor::ops;
use std::time::Instant;

/// The transformer's training step, from images or from their tokens.
pub fn train(args: &Args, target: Target) -> Result<()> {
    let begun = Instant::now();
    let (vqvae, var, side) = models(args, target, (false, true))?;
    let batch = args.batch();
    let images = random_images(batch, side, target.0)?;
    let labels: Vec<i32> = (0..batch as i32).map(|i| i % 10).collect();
    let tokens = match args.from {
        Source::Images => None,
        // As a file of tokens gives them.
        Source::Tokens => {
            let maps = vqvae.tokenize(&images, &var.config.pyramid)?;
            Some(ops::concat_tokens(&maps.iter().collect::<Vec<_>>())?)
        }
    };
    let mut trainer = VarTrainer::new(vqvae, var, 0.0, 1)?;
    let bench = Bench::new(args, target, begun)?;
    // To drop a report is to wait for it.
    let mut unread = Vec::new();
    let from = [("from", args.from.name().into())];
    bench.run("train", batch, &from, |pass| {
        let plan = TransformerStep::whole(pass.number());
        let pending = match &tokens {
            None => trainer.step(&images, &labels, &plan)?,
            Some(rows) => trainer.step_rows(rows, &labels, &plan)?,
        };
        match pass {
            Pass::Timed(_) => pending.read().map(|_| ()),
            Pass::Ahead | Pass::Profiled => {
                unread.push(pending);
                Ok(())
            }
        }
    })
}

/// The tokenizer's training step.
pub fn train_tokenizer(args: &Args, target: Target) -> Result<()> {
    let begun = Instant::now();
    let (vqvae, _, side) = models(args, target, (true, false))?;
    let batch = args.batch();
    let images = random_images(batch, side, target.0)?;
    let mut trainer = TokenizerTrainer::new(
        vqvae,
        TokenizerSettings {
            seed: 1,
            ..TokenizerSettings::default()
        },
    )?;
    let bench = Bench::new(args, target, begun)?;
    let mut unread = Vec::new();
    bench.run("train-tokenizer", batch, &[], |pass| {
        let plan = TokenizerStep::usual(pass.number());
        let pending = trainer.step(&images, &plan)?;
        match pass {
            Pass::Timed(_) => trainer.read(pending).map(|_| ()),
            Pass::Ahead | Pass::Profiled => {
                unread.push(pending);
                Ok(())
            }
        }
    })
}
