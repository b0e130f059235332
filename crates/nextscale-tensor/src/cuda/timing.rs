//! How long work takes on a GPU.

use super::error::Checked;
use super::gpu::Gpu;
use super::graph::Turn;
use crate::Result;
use cudarc::driver::result::event;
use cudarc::driver::sys::CUevent_flags;

/// Milliseconds that the fastest of `runs` runs takes in the stream, after one that does not count.
///
/// # Errors
/// When a run fails.
pub fn fastest(gpu: &'static Gpu, runs: usize, mut run: impl FnMut() -> Result<()>) -> Result<f32> {
    let _turn = Turn::take();
    gpu.outside_capture("timing")?;
    gpu.bind()?;
    let event = || event::create(CUevent_flags::CU_EVENT_DEFAULT).doing("timing");
    let (from, to) = (event()?, event()?);
    let mut best = f32::INFINITY;
    let mut all = || -> Result<()> {
        for i in 0..=runs {
            // SAFETY: both events live until the end of this function; the stream is never destroyed.
            unsafe {
                event::record(from, gpu.stream()).doing("timing")?;
                run()?;
                event::record(to, gpu.stream()).doing("timing")?;
                event::synchronize(to).doing("timing")?;
                let time = event::elapsed(from, to).doing("timing")?;
                best = if i == 0 { best } else { best.min(time) };
            }
        }
        Ok(())
    };
    let done = all();
    // SAFETY: nothing waits for them any more.
    unsafe {
        event::destroy(from).doing("timing")?;
        event::destroy(to).doing("timing")?;
    }
    done.map(|()| best)
}
