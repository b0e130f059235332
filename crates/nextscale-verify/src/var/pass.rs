//! One forward and backward pass of a transformer over a recorded batch.

use crate::machine::{Machine, host};
use crate::recorded::{Recorded, split_tokens};
use nextscale::Result;
use nextscale::model::ForwardPass;
use nextscale::model::var::{DropPath, Var};
use nextscale_tensor::{Cx, GradBuffer, Tape, Tensor, ops};
use std::cell::RefCell;
use std::collections::HashMap;

/// Class labels, targets and the teacher-forcing input.
#[derive(Clone)]
pub(crate) struct Batch {
    pub(crate) labels: Vec<i32>,
    /// \[B, L\].
    pub(crate) targets: Tensor,
    /// \[B, L − first, Cvae\]; `None` where the first scale is all.
    pub(crate) input: Option<Tensor>,
}

impl Batch {
    /// Reads `labels` (after class dropout, where that is recorded), `gt_BL` and `x_BLCv_wo_first_l`.
    pub(crate) fn read(file: &Recorded, var: &Var) -> Result<Self> {
        let c = &var.config;
        let after = "labels_after_drop";
        let key = if file.has(after) { after } else { "labels" };
        let labels = file.ints(key, c.classes + 1)?;
        let (b, total) = (labels.len(), c.pyramid.total());
        let expect = |name: &str, want: &[usize]| {
            let found = file.shape(name)?;
            if found == want {
                Ok(())
            } else {
                Err(file.bad(name, format!("has the shape {found:?}, expected {want:?}")))
            }
        };
        expect("gt_BL", &[b, total])?;
        let targets = Tensor::from_i32([b, total], file.ints("gt_BL", c.vocab)?);
        let rest = total - c.pyramid.len_of(0);
        let input = if rest == 0 {
            None
        } else {
            expect("x_BLCv_wo_first_l", &[b, rest, c.cvae])?;
            Some(file.tensor("x_BLCv_wo_first_l")?)
        };
        Ok(Self {
            labels,
            targets,
            input,
        })
    }

    /// The targets as one map \[B, l\] a scale.
    pub(crate) fn maps(&self, var: &Var) -> Vec<Tensor> {
        let p = &var.config.pyramid;
        let lengths: Vec<usize> = (0..p.count()).map(|k| p.len_of(k)).collect();
        self.targets
            .i32()
            .map(|t| split_tokens(t, &lengths))
            .unwrap_or_default()
    }

    /// The batch cut after scale `last`.
    pub(crate) fn cut(&self, var: &Var, last: usize) -> Result<Self> {
        let p = &var.config.pyramid;
        let (end, first, total) = (p.range(last).end, p.len_of(0), p.total());
        let b = self.labels.len();
        let targets: Vec<i32> = self
            .targets
            .i32()?
            .chunks_exact(total)
            .flat_map(|row| row[..end].iter().copied())
            .collect();
        let input = match &self.input {
            Some(w) if end > first => {
                let c = w.shape().last();
                let rows = w.f32()?.chunks_exact((total - first) * c);
                let cut: Vec<f32> = rows
                    .flat_map(|r| r[..(end - first) * c].iter().copied())
                    .collect();
                Some(Tensor::from_vec([b, end - first, c], cut))
            }
            _ => None,
        };
        Ok(Self {
            labels: self.labels.clone(),
            targets: Tensor::from_i32([b, end], targets),
            input,
        })
    }

    /// The same batch with other labels.
    pub(crate) fn labelled(&self, labels: Vec<i32>) -> Self {
        Self {
            labels,
            ..self.clone()
        }
    }
}

/// What a pass is to do beside the plain thing.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// Label smoothing.
    pub(crate) smoothing: f32,
    /// Factors of stochastic depth.
    pub(crate) drop_path: Option<&'a DropPath>,
    /// The last scale of a cut sequence, and the factor on its weights.
    pub(crate) newest: Option<(usize, f32)>,
    /// What the loss is multiplied by before the backward pass; `None` takes what the transformer's arithmetic needs.
    pub(crate) scale: Option<f32>,
}

/// What a pass gave.
pub(crate) struct Pass {
    /// Named intermediate results.
    pub(crate) seen: HashMap<String, Tensor>,
    /// Cost of every token, with smoothing.
    pub(crate) ce: Vec<f32>,
    /// Their extents \[B, L\].
    pub(crate) costs: [usize; 2],
    /// The loss.
    pub(crate) loss: f32,
    /// Gradients, `scale` times as large.
    pub(crate) grads: GradBuffer,
    /// What they were multiplied by.
    pub(crate) scale: f32,
    /// Their norm, without the factor.
    pub(crate) grad_norm: f64,
}

impl Pass {
    /// Runs forward and backward over all of `batch`.
    pub(crate) fn run(var: &Var, batch: &Batch, options: &Options<'_>) -> Result<Self> {
        let pyramid = &var.config.pyramid;
        let active = options.newest.map_or(pyramid.count(), |(k, _)| k + 1);
        let seen = RefCell::new(HashMap::new());
        let probe = |name: &str, value: &Tensor| {
            seen.borrow_mut().insert(name.to_owned(), value.detach());
        };
        let tape = Tape::new();
        let run = ForwardPass {
            cx: Cx::on(&tape).with(var.math),
            probe: Some(&probe),
        };
        let machine = Machine {
            device: var.device(),
            math: var.math,
            tokenizer: var.math,
        };
        let scale = options.scale.unwrap_or_else(|| machine.loss_scale());
        let input = batch.input.as_ref().map(|w| w.to(machine.device));
        let input = input.transpose()?;
        let targets = batch.targets.to(machine.device)?;
        let labels = var.labels(&batch.labels)?;
        let logits = var.forward(&run, &labels, input.as_ref(), active, options.drop_path)?;
        // Weights stay 1/L of the whole sequence when it is cut.
        let mut weights = vec![1.0 / pyramid.total() as f32; batch.targets.shape().last()];
        if let Some((k, factor)) = options.newest {
            weights[pyramid.range(k)]
                .iter_mut()
                .for_each(|w| *w *= factor);
        }
        let out = ops::cross_entropy(&run.cx, logits, &targets, &weights, options.smoothing)?;
        let mut grads = var.params.buffer()?;
        tape.backward(&out.loss, scale, Some((&var.params, &mut grads)), &[])?;
        Ok(Self {
            ce: host(&out.smoothed)?.f32()?.to_vec(),
            costs: [batch.labels.len(), batch.targets.shape().last()],
            loss: out.loss.scalar()?,
            grad_norm: ops::grad_norm(&grads)? / f64::from(scale),
            scale,
            grads,
            seen: seen.into_inner(),
        })
    }
}
