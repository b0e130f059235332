//! The CUDA room: everything that talks to the NVIDIA driver and its libraries, with `unsafe`.
//!
//! Nothing is linked: the libraries are looked for at run time ([`libraries`]), and a machine without them runs on the
//! CPU. Kernels are CUDA C++ kept beside their operator; NVRTC compiles them for the GPU at hand and the result is kept on
//! disk ([`mod@compile`]). Memory comes from a pool ([`pool`]) so that a steady state never asks the driver. A kernel is
//! launched through its declared signature ([`kernel`]), and all work of a GPU goes to one stream, in order.

#![allow(unsafe_code)]

pub mod ceilings;
pub mod compile;
pub mod conv;
pub mod dry;
pub mod gpu;
pub mod graph;
pub mod kept;
pub mod kernel;
pub mod libraries;
pub mod matmul;
pub mod pinned;
pub mod pool;
pub mod profile;
pub mod tensor;
pub mod tensor_map;
pub mod timing;
pub mod upload;
pub mod work;

mod bindings;
mod constants;
mod driver;
mod error;
#[cfg(test)]
mod graph_tests;
#[cfg(test)]
mod limit_tests;
#[cfg(test)]
mod tests;

use crate::ops;

pub use ceilings::Ceilings;
pub use compile::{Arch, compile};
pub use gpu::{Gpu, GpuInfo, count};
pub use graph::Graph;
pub use kernel::{Arg, Kernel, Module};
pub use libraries::{Found, Library};
pub use pool::{DeviceBuffer, gib};
pub use profile::{Profile, Row};
pub use tensor_map::TensorMap;
pub use work::{Rate, Work};

/// Every module of kernels, so that all can be compiled without running any.
pub fn modules() -> &'static [&'static Module] {
    use ops::attention::cuda::modules as attention;
    static ALL: &[&Module] = &[
        &kernel::MEMORY,
        &conv::MODULE,
        &conv::TILES,
        &conv::WEIGHT_TILES,
        &attention::FORWARD,
        &attention::BACKWARD,
        &attention::F32_64,
        &attention::BF16_64,
        &attention::F16_64,
        &attention::F32_128,
        &attention::BF16_128,
        &attention::F16_128,
        &ops::adaptive_norm::cuda::MODULE,
        &ops::add_table::cuda::MODULE,
        &ops::arithmetic::cuda::MODULE,
        &ops::concat_tokens::cuda::MODULE,
        &ops::cross_entropy::MODULE,
        &ops::dropout::cuda::MODULE,
        &ops::gather_rows::cuda::MODULE,
        &ops::group_norm::cuda::MODULE,
        &ops::guided_sampling::MODULE,
        &ops::histogram::cuda::MODULE,
        &ops::image_loss::cuda::MODULE,
        &ops::interpolate::cuda::MODULE,
        &ops::linear::cuda::MODULE,
        &ops::nearest_code::cuda::MODULE,
        &ops::optimizer::cuda::MODULE,
        &ops::phi::cuda::MODULE,
        &ops::pixels::cuda::MODULE,
        &ops::residual_quantize::cuda::MODULE,
        &ops::silu::cuda::MODULE,
        &ops::spatial_attention::cuda::MODULE,
        &ops::split_tokens::cuda::MODULE,
        &ops::token_embedding::cuda::MODULE,
        &ops::token_measures::MODULE,
        &ops::upsample::cuda::MODULE,
    ];
    ALL
}
