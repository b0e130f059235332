//! NCCL's functions: what its codes mean, and its calls on one communicator, none of which comes after its end.

use crate::bindings::{MISSING, nccl as raw};
use crate::gpu::Gpu;
use crate::libraries::Library;
use crate::{Error, Result};
use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, mpsc};
use std::time::{Duration, Instant};

/// Codes that the library answers with (ncclResult_t).
mod code {
    pub const SUCCESS: u32 = 0;
    pub const IN_PROGRESS: u32 = 7;
}

/// The library's number for sums (ncclRedOp_t).
pub(super) const SUM: u32 = 0;

/// Most time that the end of a communicator may take: whoever ends one does not hang for a member that is lost.
const ENDING: Duration = Duration::from_secs(10);
/// How often a wait looks whether it is to go on.
const LOOK: Duration = Duration::from_millis(10);

/// An error of this room, as one line.
pub(super) fn error(text: impl std::fmt::Display) -> Error {
    Error::Device(format!("NCCL: {text}"))
}

/// A code of `function` in words.
pub(super) fn refusal(function: &str, code: u32) -> Error {
    if code == MISSING {
        let package = Library::Nccl.package();
        return error(format_args!(
            "the library found has no {function}; install {package}"
        ));
    }
    // SAFETY: takes any code and returns a string that is never freed, or null where there is no library.
    let meaning = unsafe { first_line(raw::ncclGetErrorString(code)) };
    // SAFETY: the library looks at no communicator for it; its buffer is never freed and always ends with a zero byte.
    let last = unsafe { first_line(raw::ncclGetLastError(std::ptr::null_mut())) };
    error(told(function, code, &meaning, &last))
}

fn told(function: &str, code: u32, meaning: &str, last: &str) -> String {
    let meaning = match meaning {
        "" => format!("code {code}"),
        some => some.to_owned(),
    };
    match last {
        "" => format!("{function}: {meaning}"),
        last => format!("{function}: {meaning}: {last}"),
    }
}

/// The first line of a text that says something; empty where there is none.
///
/// # Safety
/// The pointer is null or to a string with a zero byte at its end.
unsafe fn first_line(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let line = text.lines().map(str::trim).find(|l| !l.is_empty());
    line.unwrap_or_default().to_owned()
}

/// Refuses an environment in which the library's calls would not return.
pub(super) fn may_wait() -> Result<()> {
    match std::env::var("NCCL_COMM_BLOCKING") {
        Ok(v) if v.trim() == "1" => Err(error(
            "NCCL_COMM_BLOCKING is 1, with which a lost member is waited for without end; unset it",
        )),
        _ => Ok(()),
    }
}

/// A new identity; the library listens for members of that one in this process from now on.
pub(super) fn identity() -> Result<[u8; 128]> {
    let mut id = raw::Id([0; 128]);
    // SAFETY: points at an identity.
    match unsafe { raw::ncclGetUniqueId(&mut id) } {
        code::SUCCESS => Ok(id.0),
        code => Err(refusal("ncclGetUniqueId", code)),
    }
}

/// The library's handle of a communicator. It may be used from any thread, one at a time.
#[derive(Clone, Copy, Debug)]
struct Handle(raw::Comm);
// SAFETY: as above (NCCL's documentation, "Thread safety"); calls go through `Comm`'s mutex, or through the one thread that
// ends it.
unsafe impl Send for Handle {}

/// How far a communicator is.
#[derive(Debug)]
enum Life {
    /// In use; `None` on a dry GPU.
    Ready(Option<Handle>),
    /// Given up: the handle is gone or about to go.
    Aborted,
}

/// One communicator of the library.
#[derive(Debug)]
pub(super) struct Comm {
    gpu: &'static Gpu,
    life: Mutex<Life>,
    /// Its end did not come back in time: work of it may still be under way.
    stuck: AtomicBool,
}

impl Comm {
    /// One without a library, for a dry GPU.
    pub(super) fn dry(gpu: &'static Gpu) -> Self {
        Self {
            gpu,
            life: Mutex::new(Life::Ready(None)),
            stuck: AtomicBool::new(false),
        }
    }

    /// Begins to make one; returns when all members are there, or with the error of `look`, which is asked time and again.
    pub(super) fn start(
        gpu: &'static Gpu,
        id: &[u8; 128],
        [rank, size]: [i32; 2],
        look: impl FnMut() -> Result<()>,
    ) -> Result<Self> {
        const NAME: &str = "ncclCommInitRankConfig";
        gpu.bind()?;
        // The library writes here from a thread of its own, so the place stays.
        let place: &'static AtomicPtr<c_void> = Box::leak(Box::default());
        let mut config = raw::Config::NON_BLOCKING;
        let id = raw::Id(*id);
        // SAFETY: the GPU's context is current; the place for the handle is never freed, the settings are read during the call.
        let code =
            unsafe { raw::ncclCommInitRankConfig(place.as_ptr(), size, id, rank, &mut config) };
        let handle = place.load(Ordering::Acquire);
        if handle.is_null() {
            return Err(match code {
                code::SUCCESS | code::IN_PROGRESS => error(format_args!("{NAME}: no communicator")),
                code => refusal(NAME, code),
            });
        }
        let comm = Self {
            gpu,
            life: Mutex::new(Life::Ready(Some(Handle(handle)))),
            stuck: AtomicBool::new(false),
        };
        match comm.settle(NAME, code, look) {
            Ok(()) => Ok(comm),
            Err(e) => {
                comm.abort();
                Err(e)
            }
        }
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// One call on the handle, which lives as long as it takes; success on a dry GPU.
    fn with(&self, call: impl FnOnce(raw::Comm) -> u32) -> Result<u32> {
        match *self.life() {
            Life::Ready(Some(handle)) => Ok(call(handle.0)),
            Life::Ready(None) => Ok(code::SUCCESS),
            Life::Aborted => Err(error("the communicator was aborted")),
        }
    }

    /// How it goes, as the library's code.
    fn state(&self) -> Result<u32> {
        self.with(asked)
    }

    /// Succeeds unless it was aborted or the library found it broken.
    pub(super) fn check(&self) -> Result<()> {
        match self.state()? {
            code::SUCCESS | code::IN_PROGRESS => Ok(()),
            code => Err(refusal("ncclCommGetAsyncError", code)),
        }
    }

    /// Asks for something and returns when it is in the stream.
    ///
    /// # Errors
    /// The library's, or that the communicator was aborted, also meanwhile.
    pub(super) fn ask(&self, function: &str, call: impl FnOnce(raw::Comm) -> u32) -> Result<()> {
        self.gpu.bind()?;
        let code = self.with(call)?;
        self.settle(function, code, || Ok(()))
    }

    /// The same of several calls that the library is to make one of.
    pub(super) fn ask_together(
        &self,
        calls: impl IntoIterator<Item = impl FnOnce(raw::Comm) -> u32>,
    ) -> Result<()> {
        self.gpu.bind()?;
        let code = self.with(|comm| {
            // SAFETY: takes nothing; ended below, in the same thread.
            let mut refused = unsafe { raw::ncclGroupStart() };
            for call in calls {
                if refused == code::SUCCESS {
                    let answer = call(comm);
                    if answer != code::IN_PROGRESS {
                        refused = answer;
                    }
                }
            }
            // SAFETY: ends what was begun above.
            let ended = unsafe { raw::ncclGroupEnd() };
            if refused == code::SUCCESS {
                ended
            } else {
                refused
            }
        })?;
        self.settle("ncclGroupEnd", code, || Ok(()))
    }

    /// Waits until `function`, which answered with a code, is through.
    fn settle(
        &self,
        function: &str,
        mut code: u32,
        mut look: impl FnMut() -> Result<()>,
    ) -> Result<()> {
        let begun = Instant::now();
        let mut looked = begun;
        loop {
            match code {
                code::SUCCESS => return Ok(()),
                code::IN_PROGRESS => {}
                other => return Err(refusal(function, other)),
            }
            if looked.elapsed() >= LOOK {
                look()?;
                looked = Instant::now();
            }
            pause(begun.elapsed());
            code = self.state()?;
        }
    }

    /// Gives it up, once; work of it that is under way on the GPU ends.
    pub(super) fn abort(&self) {
        let life = std::mem::replace(&mut *self.life(), Life::Aborted);
        if let Life::Ready(Some(handle)) = life {
            self.end(handle, |comm| {
                // SAFETY: nobody else has the handle any more.
                unsafe { raw::ncclCommAbort(comm) };
            });
        }
    }

    /// Ends it when all members are done with it, or gives it up.
    pub(super) fn finish(&self) {
        let life = std::mem::replace(&mut *self.life(), Life::Aborted);
        if let Life::Ready(Some(handle)) = life {
            self.end(handle, |comm| {
                let begun = Instant::now();
                // SAFETY: nobody else has the handle any more.
                let mut code = unsafe { raw::ncclCommFinalize(comm) };
                while code == code::IN_PROGRESS && begun.elapsed() < ENDING / 2 {
                    pause(begun.elapsed());
                    code = asked(comm);
                }
                // SAFETY: as above; it is not used afterwards.
                unsafe {
                    match code {
                        code::SUCCESS => raw::ncclCommDestroy(comm),
                        _ => raw::ncclCommAbort(comm),
                    }
                };
            });
        }
    }

    /// Runs what ends it in a thread that may be left behind.
    fn end(&self, handle: Handle, how: impl FnOnce(raw::Comm) + Send + 'static) {
        let (done, over) = mpsc::channel();
        let gpu = self.gpu;
        let ending = std::thread::Builder::new().spawn(move || {
            let handle = handle;
            if gpu.bind().is_ok() {
                how(handle.0);
                let _ = done.send(());
            }
        });
        if ending.is_err() || over.recv_timeout(ENDING).is_err() {
            self.stuck.store(true, Ordering::Relaxed);
        }
    }

    /// Whether work of it may go on for ever.
    pub(super) fn is_stuck(&self) -> bool {
        self.stuck.load(Ordering::Relaxed)
    }
}

impl Drop for Comm {
    fn drop(&mut self) {
        self.abort();
    }
}

/// What the library says of a communicator that lives.
fn asked(comm: raw::Comm) -> u32 {
    let mut state = code::SUCCESS;
    // SAFETY: the caller's communicator lives; the pointer is to a live number.
    match unsafe { raw::ncclCommGetAsyncError(comm, &mut state) } {
        code::SUCCESS => state,
        code => code,
    }
}

/// Lets time pass: little at first, as most calls are through within microseconds.
pub(super) fn pause(waited: Duration) {
    match waited.as_micros() {
        ..500 => std::thread::yield_now(),
        500..50_000 => std::thread::sleep(Duration::from_micros(50)),
        _ => std::thread::sleep(Duration::from_millis(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_in_one_line() {
        let text = refusal("ncclAllReduce", 5).to_string();
        assert!(text.starts_with("device: NCCL: ncclAllReduce: "), "{text}");
        assert!(!text.contains('\n') && text.len() > 30, "{text}");
        let text = refusal("ncclAllReduce", MISSING).to_string();
        assert!(
            text.contains("has no ncclAllReduce") && text.contains("nccl-cu"),
            "{text}"
        );
        assert_eq!(told("f", 9, "", ""), "f: code 9");
        assert_eq!(told("f", 9, "bad", "why"), "f: bad: why");
    }

    #[test]
    fn texts_of_several_lines_become_their_first() {
        for (text, want) in [
            (c"\n  net.cc:7 no route \n more", "net.cc:7 no route"),
            (c"", ""),
            (c" \n", ""),
        ] {
            // SAFETY: a string that lives.
            assert_eq!(unsafe { first_line(text.as_ptr()) }, want);
        }
        // SAFETY: null is allowed.
        assert_eq!(unsafe { first_line(std::ptr::null()) }, "");
    }
}
