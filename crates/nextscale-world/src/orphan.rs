//! A process whose launcher was killed ends too, and does not keep a GPU for nobody.
//!
//! The launcher holds the other end of standard input, which nothing else uses. Its end is the launcher's.

use std::io::Read;
use std::sync::Arc;
use std::thread;

use crate::Error;
use crate::control::Shared;

/// Follows standard input to its end.
pub(crate) fn watch(shared: &Arc<Shared>) {
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
