//! Norm, decision and update on a GPU: three passes, of which the last reads and writes everything once.

use super::{AdamW, Decay, Moments, Scaling, StepValues, StepsProgress};
use crate::params::{Exchange, Number};
use crate::{DType, Device, Error, GradBuffer, Params, Result, Tensor};
use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::{Arg, Gpu, Module, Work, kernels};
use std::ops::Range;

/// Elements whose squares one block adds.
const PART: usize = 16384;
/// Elements that share a factor on the weight decay: parameters begin at multiples of it.
const GROUP: usize = 16;
/// 32-bit words of the kernels' `State`.
const STATE: usize = 14;

/// A run of steps: its state, and the factor on the weight decay of every 16 parameters, with a sign where another process counts
/// their gradients.
#[derive(Debug)]
pub(super) struct DeviceSteps {
    state: Tensor,
    factors: Tensor,
}

fn one_block(threads: u32) -> Launch {
    Launch {
        grid: [1, 1, 1],
        threads,
        shared: 0,
    }
}

fn bits(x: f64) -> Arg<'static> {
    Arg::U64(x.to_bits())
}

/// 64-bit words as a tensor of halves of them.
fn to_words(words: &[u64]) -> Tensor {
    let halves: Vec<i32> = words
        .iter()
        .flat_map(|w| [*w as u32 as i32, (w >> 32) as u32 as i32])
        .collect();
    Tensor::from_i32([halves.len()], halves)
}

/// The other way, from wherever they are.
fn from_words<const N: usize>(x: &Tensor) -> Result<[u64; N]> {
    let here = x.to(Device::Cpu)?;
    let (pairs, _) = here.i32()?.as_chunks::<2>();
    let word = |p: &[i32; 2]| u64::from(p[0] as u32) | u64::from(p[1] as u32) << 32;
    let words: Vec<u64> = pairs.iter().map(word).collect();
    words
        .try_into()
        .map_err(|_| Error::Params("a state of another length".into()))
}

/// The squares' sums by part, two words each; of those alone that `factors`, where there are some, has without a sign.
fn sum_squares(grads: &Tensor, factors: Option<&Tensor>) -> Result<(Tensor, usize)> {
    let (gpu, n) = (grads.gpu()?, grads.numel());
    let parts = n.div_ceil(PART).max(1);
    let partial = Tensor::scratch(gpu, [2 * parts], DType::I32)?;
    let shape = Launch {
        grid: [parts, 1, 1],
        threads: 256,
        shared: 0,
    };
    let args = [
        grads.arg_of("optimizer", DType::F32)?,
        partial.arg()?,
        factors.map_or(Ok(Arg::Null), Tensor::arg)?,
        Arg::U64(n as u64),
    ];
    gpu.launch(&MODULE, "sum_squares", shape, &args)?;
    Ok((partial, parts))
}

/// The sum of the squares of all processes, each of which counts its own.
fn sum_squares_of_all(
    grads: &Tensor,
    factors: &Tensor,
    exchange: &dyn Exchange,
) -> Result<(Tensor, usize)> {
    let gpu = grads.gpu()?;
    let (partial, parts) = sum_squares(grads, Some(factors))?;
    let sum = Tensor::scratch(gpu, [2], DType::I32)?;
    let args = [partial.arg()?, sum.arg()?, Arg::Count(parts)];
    gpu.launch(&MODULE, "add_up", one_block(1024), &args)?;
    exchange.sum(Number::Gpu(&sum))?;
    Ok((sum, 1))
}

/// See [`super::grad_norm`].
pub(super) fn grad_norm(grads: &GradBuffer) -> Result<f64> {
    let grads = grads.tensor()?;
    let gpu = grads.gpu()?;
    let _scope = gpu.scope("gradient norm", || Work::moving(&[&grads]));
    let (partial, parts) = sum_squares(&grads, None)?;
    let norm = Tensor::scratch(gpu, [2], DType::I32)?;
    let args = [partial.arg()?, norm.arg()?, Arg::Count(parts)];
    gpu.launch(&MODULE, "grad_norm", one_block(1024), &args)?;
    let [norm] = from_words(&norm)?;
    Ok(f64::from_bits(norm))
}

/// A step's numbers, from the GPU.
pub(super) fn read(numbers: &Tensor) -> Result<StepValues> {
    let [norm, scale, skipped, updates] = from_words(numbers)?.map(f64::from_bits);
    Ok(StepValues {
        norm,
        scale,
        skipped: skipped != 0.0,
        updates: updates as u64,
    })
}

impl DeviceSteps {
    pub(super) fn new(
        gpu: &'static Gpu,
        len: usize,
        ranges: &[Decay],
        counts: impl Fn(&Range<usize>) -> bool,
        progress: StepsProgress,
    ) -> Result<Self> {
        let groups = len.div_ceil(GROUP).max(1);
        if gpu.is_dry() {
            // A model may be larger than this machine's memory.
            return Ok(Self {
                state: Tensor::scratch(gpu, [STATE], DType::I32)?,
                factors: Tensor::scratch(gpu, [groups], DType::F32)?,
            });
        }
        let mut factors = vec![f32::NAN; groups];
        for (range, factor) in ranges.iter().filter(|(r, _)| !r.is_empty()) {
            if !range.start.is_multiple_of(GROUP) {
                let what = format!(
                    "a range begins at {}, not at a multiple of {GROUP}",
                    range.start
                );
                return Err(Error::Params(what));
            }
            let factor = if counts(range) { *factor } else { -*factor };
            factors[range.start / GROUP..range.end.div_ceil(GROUP)].fill(factor);
        }
        let device = Device::Cuda(gpu.info().ordinal);
        let mut run = Self {
            state: Tensor::scratch(gpu, [STATE], DType::I32)?,
            factors: Tensor::from_vec([factors.len()], factors).to(device)?,
        };
        run.set(progress)?;
        Ok(run)
    }

    pub(super) fn progress(&self) -> Result<StepsProgress> {
        let [scale, growth, backoff, interval, tracker, updates, scaled] = from_words(&self.state)?;
        let scaling = (scaled != 0).then_some(Scaling {
            scale: f64::from_bits(scale),
            growth_factor: f64::from_bits(growth),
            backoff_factor: f64::from_bits(backoff),
            growth_interval: interval,
            growth_tracker: tracker,
        });
        Ok(StepsProgress { updates, scaling })
    }

    pub(super) fn set(&mut self, to: StepsProgress) -> Result<()> {
        let s = to.scaling.unwrap_or(Scaling {
            scale: 1.0,
            growth_factor: 1.0,
            backoff_factor: 1.0,
            growth_interval: 1,
            growth_tracker: 0,
        });
        let words = to_words(&[
            s.scale.to_bits(),
            s.growth_factor.to_bits(),
            s.backoff_factor.to_bits(),
            s.growth_interval,
            s.growth_tracker,
            to.updates,
            u64::from(to.scaling.is_some()),
        ]);
        self.state = words.to(self.factors.device())?;
        Ok(())
    }

    pub(super) fn seed(&self, accumulate: usize) -> Result<Tensor> {
        let gpu = self.state.gpu()?;
        let y = Tensor::scratch(gpu, [1], DType::F32)?;
        let args = [self.state.arg()?, y.arg()?, Arg::Count(accumulate)];
        gpu.launch(&MODULE, "seed", one_block(1), &args)?;
        Ok(y)
    }

    /// One step; the numbers as [`read`] takes them.
    pub(super) fn step(
        &self,
        params: &mut Params,
        buffers: &Moments<'_>,
        hyper: &AdamW,
    ) -> Result<Tensor> {
        params.must_be_free()?;
        let sharding = params.sharding().cloned();
        let flat = params.whole();
        let (gpu, n) = (flat.gpu()?, flat.numel());
        let grads = buffers.grads.tensor()?;
        let (m, v) = (buffers.exp_avg.tensor()?, buffers.exp_avg_sq.tensor()?);
        if [&grads, &m, &v].iter().any(|t| t.numel() != n) {
            let what = "gradients or moments of another model";
            return Err(Error::Params(what.into()));
        }
        let scope = gpu.scope("optimizer", || {
            // Weights and moments are read and written; so are gradients, read once more before for their norm, on which
            // every update depends.
            let all = Work::moving(&[&flat, &flat, &m, &m, &v, &v, &grads, &grads, &grads]);
            params.half().iter().fold(all, |all, h| all.and(&[h]))
        });
        let (partial, parts) = match &sharding {
            None => sum_squares(&grads, None)?,
            Some(s) => sum_squares_of_all(&grads, &self.factors, s.exchange())?,
        };
        let decision = Tensor::scratch(gpu, [4], DType::I32)?;
        let numbers = Tensor::scratch(gpu, [8], DType::I32)?;
        let args = [
            partial.arg()?,
            self.state.arg()?,
            decision.arg()?,
            numbers.arg()?,
            Arg::Count(parts),
            Arg::I32(i32::from(hyper.clip.is_some())),
            bits(hyper.clip.unwrap_or(0.0)),
            bits(hyper.lr),
            bits(hyper.beta1),
            bits(hyper.beta2),
        ];
        gpu.launch(&MODULE, "decide", one_block(1024), &args)?;
        let half = params.half();
        let copy = half.as_ref().map_or(DType::F32, Tensor::dtype);
        let update = |part: &Range<usize>| {
            let of = |t: &Tensor| t.narrow(part.start, part.len());
            let (p, g, m, v) = (of(&flat)?, of(&grads)?, of(&m)?, of(&v)?);
            let half = half.as_ref().map(of).transpose()?;
            let groups = part.len().div_ceil(GROUP);
            let factors = self.factors.narrow(part.start / GROUP, groups)?;
            let args = [
                p.arg_of("optimizer", DType::F32)?,
                g.arg()?,
                m.arg_of("optimizer", DType::F32)?,
                v.arg_of("optimizer", DType::F32)?,
                half.as_ref().map_or(Ok(Arg::Null), Tensor::arg)?,
                factors.arg()?,
                decision.arg()?,
                Arg::U64(part.len() as u64),
                bits(hyper.lr * hyper.weight_decay),
                Arg::F32(hyper.beta1 as f32),
                Arg::F32((1.0 - hyper.beta1) as f32),
                Arg::F32(hyper.beta2 as f32),
                Arg::F32((1.0 - hyper.beta2) as f32),
                Arg::F32(hyper.eps as f32),
            ];
            let shape = Launch::pass(gpu, part.len().div_ceil(8));
            Ok::<_, Error>(gpu.launch(&MODULE, ("adamw", copy), shape, &args)?)
        };
        let Some(sharding) = &sharding else {
            update(&(0..n))?;
            return Ok(numbers);
        };
        // The weights of a part are on their way to the others while the next part is updated.
        for part in params.parts().filter(|part| !part.is_empty()) {
            update(&part)?;
            sharding.publish(&part, &flat, half.as_ref())?;
        }
        drop(scope);
        sharding.published(&flat, half.as_ref())?;
        Ok(numbers)
    }
}

/// The optimizer's kernels.
pub(crate) static MODULE: Module = Module {
    name: "optimizer",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        sum_squares: "pppu";
        add_up: "ppi";
        grad_norm: "ppi";
        decide: "ppppiiuuuu";
        seed: "ppi";
        adamw: "pppppppuufffff" for f32 bf16 f16;
    },
};
