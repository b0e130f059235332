//! A run's losses in half precision from the weights that the run in float32 has at every step. A run of its own soon has other
//! weights, because rounding grows from step to step; here what half precision does to each loss stands alone.

use super::{Context, Variant, steps, tokenizer_of};
use crate::machine::Machine;
use nextscale::Result;
use nextscale::train::var_trainer::VarTrainer;
use nextscale_tensor::{Math, Tensor};

/// The losses of both runs, step by step.
pub(super) struct Losses {
    /// Of the run in float32.
    pub(super) full: Vec<f64>,
    /// In half precision, each from the weights that `full` had before the step.
    pub(super) half: Vec<f64>,
}

/// Repeats `count` steps over the batches. `None` without a tokenizer.
pub(super) fn losses(
    context: &Context<'_>,
    variant: &Variant<'_>,
    (maps, labels): (&[Vec<Tensor>], &[Vec<i32>]),
    count: usize,
    smoothing: f64,
) -> Result<Option<Losses>> {
    let in_float32 = in_float32(variant);
    let (Some(mut full), Some(mut half)) = (
        trainer(context, &in_float32, smoothing)?,
        trainer(context, variant, smoothing)?,
    ) else {
        return Ok(None);
    };
    let mut losses = Losses {
        full: Vec::with_capacity(count),
        half: Vec::with_capacity(count),
    };
    for it in 0..count {
        for info in full.var.params.infos() {
            let values = full.var.params.export(&info.name)?;
            half.var.params.import(&info.name, &values)?;
        }
        let i = it % maps.len();
        let plan = steps::plan(it as u64, &context.hyper);
        let step = |t: &mut VarTrainer| t.step_tokens(&maps[i], &labels[i], &plan)?.read();
        losses.half.push(step(&mut half)?.loss);
        losses.full.push(step(&mut full)?.loss);
    }
    Ok(Some(losses))
}

fn in_float32<'v>(variant: &Variant<'v>) -> Variant<'v> {
    Variant {
        machine: Machine {
            math: Math::FULL,
            ..variant.machine
        },
        ..*variant
    }
}

/// The loss of a run's first step in float32 with so much label smoothing.
pub(super) fn first_loss(
    context: &Context<'_>,
    variant: &Variant<'_>,
    (maps, labels): (&[Tensor], &[i32]),
    smoothing: f64,
) -> Result<Option<f64>> {
    let Some(mut t) = trainer(context, &in_float32(variant), smoothing)? else {
        return Ok(None);
    };
    let step = t.step_tokens(maps, labels, &steps::plan(0, &context.hyper))?;
    Ok(Some(step.read()?.loss))
}

fn trainer(
    context: &Context<'_>,
    variant: &Variant<'_>,
    smoothing: f64,
) -> Result<Option<VarTrainer>> {
    let var = variant.build(true)?;
    let Ok(vqvae) = tokenizer_of(context, &var)? else {
        return Ok(None);
    };
    let mut trainer = VarTrainer::new(vqvae, var, smoothing as f32, 0)?;
    trainer.opt = context.hyper.optimizer(&trainer.var)?;
    Ok(Some(trainer))
}
