//! Moving average of weights: a ← a + (1 − d)·(w − a) over flat buffers, gaps included (Polyak and Juditsky 1992).
//!
//! With d = 0 the average becomes the weights, bit for bit. No gradient: weights are not a function of their average.

mod cpu;
pub(crate) mod cuda;
#[cfg(test)]
mod tests;

use crate::{Device, Error, GradBuffer, Params, Result, Tensor};

/// Moves `average` towards the parameters, those that this process updates, of which it keeps the share `decay` (0 to 1) of itself. Nothing waits for a GPU.
///
/// # Errors
/// When the buffer is of another model or on another device, or the GPU refuses.
pub fn average(average: &mut GradBuffer, params: &Params, decay: f64) -> Result<()> {
    if average.len() != params.flat_len() || average.device() != params.device() {
        return Err(Error::Params("an average of another model".into()));
    }
    let share = (1.0 - decay) as f32;
    for range in params.updated() {
        match params.device() {
            Device::Cpu => cpu::average(
                &mut average.cpu_mut()?[range.clone()],
                &params.flat()?[range],
                share,
            ),
            Device::Cuda(_) => {
                let part = |t: &Tensor| t.narrow(range.start, range.len());
                cuda::average(&part(&average.tensor()?)?, &part(&params.whole())?, share)?;
            }
        }
    }
    Ok(())
}
