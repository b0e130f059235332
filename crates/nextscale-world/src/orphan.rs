//! A process and the launcher that started it, over the socket that is its standard input.
//!
//! A process whose launcher was killed ends too, and does not keep a GPU for nobody: the socket's end is the launcher's. The
//! other way goes who is to blame for a failure, so that the launcher names that one and not who happened to end first.

use std::io::Read;
use std::sync::Arc;
use std::thread;

use crate::Error;
use crate::control::Shared;

/// Tells the launcher of a member that is lost.
pub(crate) fn blame(rank: usize) {
    let rank = rank as u64;
    let _ = rustix::io::write(rustix::stdio::stdin(), &rank.to_le_bytes());
}

/// Follows standard input to its end, and has the launcher told of a member that is lost.
pub(crate) fn watch(shared: &Arc<Shared>) {
    shared.lock().launched = true;
    let shared = shared.clone();
    thread::spawn(move || {
        let mut bytes = [0; 64];
        let mut stdin = std::io::stdin().lock();
        loop {
            match stdin.read(&mut bytes) {
                Ok(0) => break,
                Err(e) if e.kind() != std::io::ErrorKind::Interrupted => break,
                _ => {}
            }
        }
        let told = shared.lost(shared.rank, "the process that started it is gone");
        shared.leave(told, Error::Orphaned);
        // Time to end in order. One that hangs is ended.
        thread::sleep(shared.limits.silence);
        std::process::exit(1);
    });
}
