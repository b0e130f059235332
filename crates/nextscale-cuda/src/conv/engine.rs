//! An engine of cuDNN at work, with what it needs around it: operands with channels as it wants them, and what it does not do
//! itself behind it.

use super::around::{self, Added};
use super::cudnn::{Handle, Plan};
use super::describe::{FusedOp, id};
use super::{Call, Convolution, Gpu, Pass};
use crate::graph::Uses;
use crate::matmul::DevicePtr;
use crate::pool::DeviceBuffer;
use crate::{DType, Error, Result};

/// What an engine fuses with the convolution, and what type it writes.
#[derive(Clone, Debug)]
pub(super) struct Fusion {
    pub(super) epilogue: Vec<FusedOp>,
    pub(super) result: DType,
}

/// The convolution with as many channels as engines want them: in eights for half precision, else in fours.
pub(super) fn padded(c: &Convolution) -> Convolution {
    let step = if c.element == DType::F32 { 4 } else { 8 };
    Convolution {
        inputs: c.inputs.next_multiple_of(step),
        outputs: c.outputs.next_multiple_of(step),
        ..*c
    }
}

/// An engine at work.
pub(super) struct Engine<'a> {
    pub(super) gpu: &'static Gpu,
    /// `None` in a dry run.
    pub(super) plan: Option<(&'a Handle, &'a Plan)>,
    pub(super) fusion: &'a Fusion,
}

impl Engine<'_> {
    pub(super) fn go(&self, c: &Convolution, pass: Pass, call: &Call<'_>) -> Result<()> {
        match pass {
            Pass::Forward => self.forward(c, call),
            Pass::Data => self.data_gradient(c, call),
            Pass::Weights => self.weight_gradient(c, call),
        }
    }

    fn scratch(&self, n: usize, element: DType) -> Result<DeviceBuffer> {
        DeviceBuffer::new(self.gpu, n * element.bytes())
    }

    /// A copy with other rows or more channels; `None` where they are the same.
    fn widened(
        &self,
        ptr: DevicePtr<'_>,
        element: DType,
        from: around::Extent,
        to: around::Extent,
    ) -> Result<Option<DeviceBuffer>> {
        if from == to {
            return Ok(None);
        }
        let copy = self.scratch(to.0 * to.1, element)?;
        let target = DevicePtr(&copy, 0);
        around::repack(self.gpu, element.bytes(), ptr, from, target, to)?;
        Ok(Some(copy))
    }

    fn run(&self, pointers: &[(i64, DevicePtr<'_>)]) -> Result<()> {
        let uses = Uses::of(self.gpu);
        let at = |(id, p): &(i64, DevicePtr<'_>)| Ok((*id, uses.address(p.0, p.1, 0)?));
        let addresses = pointers.iter().map(at).collect::<Result<Vec<_>>>()?;
        match self.plan {
            // SAFETY: `Gpu::conv_forward` and its like checked the operands' lengths, and copies are as long as the padded
            // convolution that the plan was made for.
            Some((handle, plan)) => unsafe { plan.run(self.gpu, handle, &addresses) },
            None => Ok(()),
        }
    }

    fn forward(&self, c: &Convolution, call: &Call<'_>) -> Result<()> {
        let (p, e) = (padded(c), c.element);
        let (rows, taps) = (c.y_rows(), c.taps());
        let x = self.widened(call.x, e, (c.x_rows(), c.inputs), (c.x_rows(), p.inputs))?;
        let w = self.widened(
            call.w,
            e,
            (c.outputs * taps, c.inputs),
            (p.outputs * taps, p.inputs),
        )?;
        let mut pointers = vec![(id::X, or(&x, call.x)), (id::W, or(&w, call.w))];
        let mut left = Added {
            bias: call.bias,
            residual: call.residual,
        };
        let has = |op| self.fusion.epilogue.contains(&op);
        let (mut rounded, mut wide) = (None, None);
        if has(FusedOp::Bias) || has(FusedOp::RoundedBias) {
            let mut element = DType::F32;
            let mut bias = left.bias.take().ok_or_else(lost)?;
            if has(FusedOp::RoundedBias) && e != DType::F32 {
                element = e;
                let copy = &*rounded.insert(self.scratch(c.outputs, e)?);
                around::round(self.gpu, bias, DevicePtr(copy, 0), e, c.outputs)?;
                bias = DevicePtr(copy, 0);
            }
            let (from, to) = ((1, c.outputs), (1, p.outputs));
            if let Some(copy) = self.widened(bias, element, from, to)? {
                bias = DevicePtr(wide.insert(copy), 0);
            }
            pointers.push((id::BIAS, bias));
        }
        if has(FusedOp::Residual) {
            pointers.push((id::RESIDUAL, left.residual.take().ok_or_else(lost)?));
        }
        let cropped = if p.outputs == c.outputs {
            None
        } else {
            Some(self.scratch(rows * p.outputs, self.fusion.result)?)
        };
        let y = or(&cropped, call.y);
        pointers.push((id::Y, y));
        self.run(&pointers)?;
        if cropped.is_some() || left.bias.is_some() || left.residual.is_some() {
            let from = (y, self.fusion.result, p.outputs);
            around::epilogue(self.gpu, from, left, (call.y, e), (rows, c.outputs))?;
        }
        Ok(())
    }

    fn data_gradient(&self, c: &Convolution, call: &Call<'_>) -> Result<()> {
        let (p, e) = (padded(c), c.element);
        let (rows, taps) = (c.y_rows(), c.taps());
        let dy = self.widened(call.y, e, (rows, c.outputs), (rows, p.outputs))?;
        let w = self.widened(
            call.w,
            e,
            (c.outputs * taps, c.inputs),
            (p.outputs * taps, p.inputs),
        )?;
        let wide = if p.inputs == c.inputs {
            None
        } else {
            Some(self.scratch(c.x_rows() * p.inputs, e)?)
        };
        let dx = or(&wide, call.x);
        self.run(&[
            (id::Y, or(&dy, call.y)),
            (id::W, or(&w, call.w)),
            (id::X, dx),
        ])?;
        if wide.is_some() {
            let (from, to) = ((c.x_rows(), p.inputs), (c.x_rows(), c.inputs));
            around::repack(self.gpu, e.bytes(), dx, from, call.x, to)?;
        }
        Ok(())
    }

    fn weight_gradient(&self, c: &Convolution, call: &Call<'_>) -> Result<()> {
        let (p, e) = (padded(c), c.element);
        let (rows, taps) = (c.y_rows(), c.taps());
        let x = self.widened(call.x, e, (c.x_rows(), c.inputs), (c.x_rows(), p.inputs))?;
        let dy = self.widened(call.y, e, (rows, c.outputs), (rows, p.outputs))?;
        let dw = self.scratch(p.weights(), self.fusion.result)?;
        let dw = DevicePtr(&dw, 0);
        self.run(&[
            (id::X, or(&x, call.x)),
            (id::Y, or(&dy, call.y)),
            (id::W, dw),
        ])?;
        let to = (c.outputs * taps, c.inputs);
        around::add_cropped(self.gpu, dw, self.fusion.result, p.inputs, call.w, to)
    }
}

fn or<'a>(own: &'a Option<DeviceBuffer>, ptr: DevicePtr<'a>) -> DevicePtr<'a> {
    own.as_ref().map_or(ptr, |b| DevicePtr(b, 0))
}

fn lost() -> Error {
    Error::Device("convolution: the plan is for other operands".into())
}
