//! How long work takes on a GPU.

use crate::codes::Checked;
use crate::driver::event;
use crate::gpu::Gpu;
use crate::graph::StreamGuard;
use crate::{Error, Result};
use cudarc::driver::sys::{CUevent, CUevent_flags};

/// Milliseconds that the fastest of `runs` runs takes in the stream, after one that does not count.
///
/// # Errors
/// When a run fails.
pub fn fastest<E: From<Error>>(
    gpu: &'static Gpu,
    runs: usize,
    mut run: impl FnMut() -> Result<(), E>,
) -> Result<f32, E> {
    let _guard = StreamGuard::take();
    gpu.outside_capture("timing")?;
    gpu.bind()?;
    let new = || event::create(CUevent_flags::CU_EVENT_DEFAULT).doing("timing");
    let (from, to) = (new()?, new()?);
    let mut best = f32::INFINITY;
    let mut all = || -> Result<(), E> {
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

/// A moment in a GPU's stream: when everything that was asked for before it is done. On a dry GPU no time passes.
#[derive(Debug)]
pub struct Event {
    gpu: &'static Gpu,
    handle: CUevent,
}

impl Event {
    /// The moment after what was asked for so far.
    ///
    /// # Errors
    /// When the driver refuses, or the calling thread captures a graph.
    pub fn now(gpu: &'static Gpu) -> Result<Self> {
        let _guard = StreamGuard::take();
        gpu.outside_capture("timing")?;
        if gpu.is_dry() {
            let handle = std::ptr::null_mut();
            return Ok(Self { gpu, handle });
        }
        gpu.bind()?;
        let handle = event::create(CUevent_flags::CU_EVENT_DEFAULT).doing("timing")?;
        let this = Self { gpu, handle };
        // SAFETY: the event lives until the drop; the stream is never destroyed.
        unsafe { event::record(this.handle, gpu.stream()) }.doing("timing")?;
        Ok(this)
    }

    /// Milliseconds from this moment to a later one, for which it waits.
    ///
    /// # Errors
    /// When work before it failed.
    pub fn until(&self, later: &Self) -> Result<f64> {
        if self.gpu.is_dry() {
            return Ok(0.0);
        }
        self.gpu.bind()?;
        // SAFETY: both events were recorded and live until the end of the call.
        let ms = unsafe {
            event::synchronize(later.handle).doing("timing")?;
            event::elapsed(self.handle, later.handle).doing("timing")?
        };
        Ok(f64::from(ms))
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.gpu.is_dry() {
            return;
        }
        let _ = self.gpu.bind();
        // SAFETY: the handle is not used afterwards; the driver lets a record in flight finish.
        let _ = unsafe { event::destroy(self.handle) };
    }
}
