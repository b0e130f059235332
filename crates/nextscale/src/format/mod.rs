//! Files of tensors: what they hold ([`StateDict`], [`HostTensor`]), the two formats, and how a file is written.
//!
//! [`safetensors`] is what nextscale writes; PyTorch's `.pth`, which the reference reads and writes, comes by the crate [`torch_pth`].
//! [`run_file`] is a training checkpoint as named parts. Every file is written whole or not at all ([`atomic`]). What tensors mean is
//! known beside each model (`state_dict.rs` there), and what a file is, in [`checkpoint`](crate::checkpoint).

pub mod atomic;
mod digest;
#[cfg(test)]
pub(crate) mod fixtures;
pub mod host;
pub mod npy;
pub mod npz;
pub mod outline;
pub(crate) mod pth;
pub mod run_file;
pub mod safetensors;
pub mod sniff;
pub mod state_dict;

pub use atomic::{clean_stale, write_atomic};
pub use digest::sha256_of;
pub use host::{HostDType, HostTensor};
pub use state_dict::StateDict;
