//! NVIDIA GPUs: everything that talks to the driver and its libraries, with `unsafe`, behind a safe interface. It knows buffers,
//! types of elements and extents as numbers, and no tensors.
//!
//! Nothing is linked: the libraries are looked for at run time ([`libraries`]), and a machine without them only finds that it
//! has no GPU. Kernels are CUDA C++ kept beside whoever needs them; NVRTC compiles them for the GPU at hand and the result is kept
//! on disk ([`mod@compile`]). Memory comes from a pool ([`pool`]), so that a steady state never asks the driver. A kernel is
//! launched through its declared signature ([`kernel`]), and all work of a GPU goes to one stream, in order.
//!
//! A kernel's source is trusted as `unsafe` code is: a launch checks that buffers are the GPU's and arguments those declared, not
//! what the kernel does with them.

#![allow(unsafe_code)]

pub mod cache;
pub mod ceilings;
pub mod compile;
pub mod conv;
pub mod dry;
pub mod dtype;
pub mod gpu;
pub mod graph;
pub mod headers;
pub mod kernel;
pub mod libraries;
pub mod matmul;
pub mod nccl;
pub mod pinned;
pub mod pool;
pub mod profile;
pub mod tensor_map;
pub mod timing;
pub mod upload;
pub mod work;

mod bindings;
mod codes;
mod constants;
mod declared;
mod driver;
mod error;
mod gapped;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;

pub use ceilings::Ceilings;
pub use compile::{Arch, compile};
pub use dtype::{DType, Math, Precision};
pub use error::{Error, Result};
pub use gpu::{Gpu, GpuInfo, count};
pub use graph::Graph;
pub use kernel::{Arg, Kernel, MOST_COUNT, Module, Name};
pub use libraries::{Found, Library};
pub use matmul::DevicePtr;
pub use nccl::{Communicator, UniqueId};
pub use pinned::HostCopy;
pub use pool::{DeviceBuffer, gib};
pub use profile::{Profile, Row, Scope};
pub use tensor_map::TensorMap;
pub use upload::CopyStream;
pub use work::{Stored, Work};

/// The modules of kernels of this crate itself.
pub static MODULES: [&Module; 4] = [
    &kernel::MEMORY,
    &conv::MODULE,
    &conv::TILES,
    &conv::WEIGHT_TILES,
];

/// The example of the README is right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
