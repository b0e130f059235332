//! A run's losses in half precision from the weights that the run in float32 has at every step. A run of its own soon has other
//! weights, because rounding grows from step to step; here what half precision does to each loss stands alone.

use super::{Context, Variant, steps, tokenizer_of};
use crate::Result;
use crate::train::var_trainer::VarTrainer;
use crate::verify::machine::Machine;
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
    maps: &[Vec<Tensor>],
    labels: &[Vec<i32>],
    count: usize,
) -> Result<Option<Losses>> {
    let in_float32 = Variant {
        machine: Machine {
            math: Math::FULL,
            ..variant.machine
        },
        ..*variant
    };
    let (Some(mut full), Some(mut half)) =
        (trainer(context, &in_float32)?, trainer(context, variant)?)
    else {
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

fn trainer(context: &Context<'_>, variant: &Variant<'_>) -> Result<Option<VarTrainer>> {
    let var = variant.build(true)?;
    let Ok(vqvae) = tokenizer_of(context, &var)? else {
        return Ok(None);
    };
    let mut trainer = VarTrainer::new(vqvae, var, 0.0, 0)?;
    trainer.opt = context.hyper.optimizer(&trainer.var)?;
    Ok(Some(trainer))
}
