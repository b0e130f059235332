//! Remarks that belong to no run: a GPU that is passed over, a folder that can't be forced to disk.
//!
//! The library prints nothing. Who wants to know of them sets a listener; without one they are lost, and nothing depends on them.

use std::sync::OnceLock;

type Listener = Box<dyn Fn(&str) + Send + Sync>;

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Has `listener` called with each remark from now on, for the rest of the process: whether it is the first to ask for that. Others are
/// not heard.
pub fn on_remark(listener: impl Fn(&str) + Send + Sync + 'static) -> bool {
    LISTENER.set(Box::new(listener)).is_ok()
}

/// Makes a remark.
pub(crate) fn remark(text: &str) {
    if let Some(listener) = LISTENER.get() {
        listener(text);
    }
}
