//! Batches that a thread of their own reads while others are looked at.

use crate::score::PictureBatch;
use crate::{Error, Result};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

/// Windows that wait at most.
const AHEAD: usize = 3;

/// Pictures that are read at a time, in batches of one size each.
type Window = Vec<PictureBatch>;

/// What a thread reads.
#[derive(Debug)]
pub struct ReadAhead {
    windows: Receiver<Result<Window>>,
    thread: Option<JoinHandle<()>>,
}

impl ReadAhead {
    /// Starts the thread; `read` gives pictures away until that says no.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(
        read: impl FnOnce(&mut dyn FnMut(Window) -> bool) -> Result<()> + Send + 'static,
    ) -> Result<Self> {
        let (sender, windows) = sync_channel(AHEAD);
        let work = move || {
            let told = read(&mut |window| sender.send(Ok(window)).is_ok());
            if let Err(e) = told {
                // Where nobody listens any more nobody wants to know.
                let _ = sender.send(Err(e));
            }
        };
        let thread = std::thread::Builder::new()
            .name("pictures".into())
            .spawn(work)
            .map_err(|e| Error::failed(format!("no thread can be started: {e}")))?;
        Ok(Self {
            windows,
            thread: Some(thread),
        })
    }

    /// The next pictures; waits until they are read.
    ///
    /// # Errors
    /// What the thread found.
    pub fn window(&mut self) -> Result<Option<Window>> {
        if let Ok(window) = self.windows.recv() {
            return window.map(Some);
        }
        // A thread that broke off is no end of the pictures.
        match self.thread.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(Error::failed("the thread that reads pictures broke off")),
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_breaks_off_is_no_end() {
        let mut whole = ReadAhead::start(|give| {
            give(Vec::new());
            Ok(())
        })
        .unwrap();
        assert_eq!(whole.window().unwrap(), Some(Vec::new()));
        assert_eq!(whole.window().unwrap(), None);
        assert_eq!(whole.window().unwrap(), None);
        let mut broken = ReadAhead::start(|give| {
            give(Vec::new());
            panic!("as in a decoder");
        })
        .unwrap();
        assert!(broken.window().is_ok());
        assert!(
            broken
                .window()
                .unwrap_err()
                .to_string()
                .contains("broke off")
        );
        let mut failed = ReadAhead::start(|_| Err(Error::input("a.png: is damaged"))).unwrap();
        assert!(failed.window().unwrap_err().to_string().contains("a.png"));
    }
}
