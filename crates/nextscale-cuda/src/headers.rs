//! Pieces of CUDA C++ that kernels may begin with, beside `common.cuh`, which goes before every module by itself.

/// Copies from memory to shared memory that nobody waits for (`cp.async`).
pub const COPIES: &str = include_str!("copies.cuh");

/// Hopper's barriers, the engine that copies tiles, and [`TensorMap`](super::TensorMap) as kernels take it; goes behind [`COPIES`].
pub const HOPPER: &str = include_str!("hopper.cuh");
