//! The list of the operators' kernels, so that all can be compiled together, and without running any.

use super::*;
use attention::cuda::modules as attention;
use nextscale_cuda::{MODULES, Module, compile};

/// The modules of all operators.
static OPERATORS: &[&Module] = &[
    &attention::FORWARD,
    &attention::BACKWARD,
    &attention::F32_64,
    &attention::BF16_64,
    &attention::F16_64,
    &attention::F32_128,
    &attention::BF16_128,
    &attention::F16_128,
    &adaptive_norm::cuda::MODULE,
    &add_table::cuda::MODULE,
    &arithmetic::cuda::MODULE,
    &average::cuda::MODULE,
    &concat_channels::cuda::MODULE,
    &concat_tokens::cuda::MODULE,
    &cross_entropy::MODULE,
    &dropout::cuda::MODULE,
    &gather_rows::cuda::MODULE,
    &group_norm::cuda::MODULE,
    &guided_sampling::MODULE,
    &histogram::cuda::MODULE,
    &image_loss::cuda::MODULE,
    &interpolate::cuda::MODULE,
    &linear::cuda::MODULE,
    &max_pool::cuda::MODULE,
    &nearest_code::cuda::MODULE,
    &optimizer::cuda::MODULE,
    &phi::cuda::MODULE,
    &pixels::cuda::MODULE,
    &residual_quantize::cuda::MODULE,
    &silu::cuda::MODULE,
    &spatial_attention::cuda::MODULE,
    &split_tokens::cuda::MODULE,
    &token_embedding::cuda::MODULE,
    &token_measures::MODULE,
    &unit_distance::cuda::MODULE,
    &upsample::cuda::MODULE,
];

/// Has the first kernels that are not in the cache bring all others, on all threads; otherwise each module is compiled when it is
/// first used. To be called before work for a GPU begins; calling it again does nothing.
pub fn compile_together() {
    compile::together(OPERATORS);
}

/// Every module of kernels that there is.
pub fn modules() -> impl Iterator<Item = &'static Module> {
    MODULES.iter().chain(OPERATORS).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use nextscale_cuda::{Arch, Library};
    use std::ffi::OsString;

    #[test]
    fn every_kernel_is_declared_as_its_source_has_it() {
        let mut count = 0;
        for module in modules() {
            module.check().unwrap();
            count += module.kernels.len();
        }
        assert!(count > 200, "{count} kernels");
    }

    #[test]
    fn the_first_kernels_that_are_compiled_bring_all() {
        let folder = nextscale_cuda::cache::folder();
        let Some(folder) = folder.filter(|_| Library::Nvrtc.is_there()) else {
            println!("skipped: no NVRTC, or no folder for what it makes");
            return;
        };
        compile_together();
        compile::load_or_compile(&silu::cuda::MODULE, Arch::LEAST).unwrap();
        let files = std::fs::read_dir(folder).unwrap();
        let files: Vec<_> = files.map(|f| f.unwrap().file_name()).collect();
        for module in modules() {
            let start = format!("{}-", module.name);
            let is_its = |f: &OsString| f.to_string_lossy().starts_with(&start);
            assert!(files.iter().any(is_its), "{} was not kept", module.name);
        }
    }
}
