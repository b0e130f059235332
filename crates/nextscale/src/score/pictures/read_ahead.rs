//! Batches that a thread of their own reads while others are looked at.

use crate::score::PictureBatch;
use crate::{Error, Result};
use std::sync::mpsc::{Receiver, sync_channel};

/// Batches that wait at most.
const AHEAD: usize = 3;

/// What a thread reads.
#[derive(Debug)]
pub struct ReadAhead {
    batches: Receiver<Result<PictureBatch>>,
}

impl ReadAhead {
    /// Starts the thread; `read` gives batches away until that says no.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        read: impl FnOnce(&mut dyn FnMut(PictureBatch) -> bool) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (sender, batches) = sync_channel(AHEAD);
        let work = move || {
            let told = read(&mut |batch| sender.send(Ok(batch)).is_ok());
            if let Err(e) = told {
                // Where nobody listens any more nobody wants to know.
                let _ = sender.send(Err(e));
            }
        };
        std::thread::Builder::new()
            .name("pictures".into())
            .spawn(work)
            .map_err(|e| Error::failed(format!("no thread can be started: {e}")))?;
        Ok(Self { batches })
    }

    /// The next batch; waits until it is read.
    ///
    /// # Errors
    /// What the thread found.
    pub fn batch(&mut self) -> Result<Option<PictureBatch>> {
        self.batches.recv().ok().transpose()
    }
}
