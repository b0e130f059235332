//! The CUDA room: everything that talks to the NVIDIA driver and its libraries, and the only room with `unsafe`.
//!
//! Nothing is linked: the libraries are looked for at run time ([`libraries`]), and a machine without them runs on the
//! CPU. Kernels are CUDA C++ kept beside their operator; NVRTC compiles them for the GPU at hand and the result is kept on
//! disk ([`mod@compile`]). Memory comes from a pool ([`pool`]) so that a steady state never asks the driver. A kernel is
//! launched through its declared signature ([`kernel`]), and all work of a GPU goes to one stream, in order.

#![allow(unsafe_code)]

pub mod compile;
pub mod gpu;
pub mod kept;
pub mod kernel;
pub mod libraries;
pub mod matmul;
pub mod pool;
pub mod tensor;

mod error;
#[cfg(test)]
mod tests;

use crate::ops;

pub use compile::{Arch, compile};
pub use gpu::{Gpu, GpuInfo, count};
pub use kernel::{Arg, Kernel, Module};
pub use libraries::{Found, Library};
pub use pool::DeviceBuffer;

/// Every module of kernels, so that all can be compiled without running any.
pub fn modules() -> &'static [&'static Module] {
    static ALL: &[&Module] = &[
        &kernel::MEMORY,
        &ops::linear::cuda::MODULE,
        &ops::adaptive_norm::cuda::MODULE,
        &ops::silu::cuda::MODULE,
        &ops::add_table::cuda::MODULE,
        &ops::token_embedding::cuda::MODULE,
        &ops::gather_rows::cuda::MODULE,
        &ops::optimizer::cuda::MODULE,
    ];
    ALL
}
