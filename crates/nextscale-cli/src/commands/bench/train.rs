//! The training steps.

use super::timing::{Bench, Pass};
use super::{Args, Source, Target, models, random_images};
use nextscale::train::gradients::GradientSum;
use nextscale::train::tokenizer_trainer::{TokenizerSettings, TokenizerStep, TokenizerTrainer};
use nextscale::train::var_trainer::{TransformerStep, VarTrainer};
use nextscale::{Result, World};
use nextscale_tensor::ops;
use std::sync::Arc;
use std::time::Instant;

/// The transformer's training step, from images or from their tokens.
pub fn train(args: &Args, target: Target, world: &World) -> Result<()> {
    let begun = Instant::now();
    let (vqvae, mut var, side) = models(args, target, (false, true))?;
    let sum = GradientSum::new(world, target.0)?;
    if args.zero == 1 && world.size() > 1 {
        var.params.share_out(Arc::new(sum.clone()))?;
    }
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
    trainer.sum = sum;
    let bench = Bench::new(args, target, begun)?.among(world);
    // To drop a report is to wait for it.
    let mut unread = Vec::new();
    let more = [
        ("from", args.from.name().into()),
        ("zero", u8::from(args.zero == 1 && world.size() > 1).into()),
        ("recompute", args.recompute.into()),
    ];
    bench.run("train", batch, &more, |pass| {
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
pub fn train_tokenizer(args: &Args, target: Target, world: &World) -> Result<()> {
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
    trainer.sum = GradientSum::new(world, target.0)?;
    let bench = Bench::new(args, target, begun)?.among(world);
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
