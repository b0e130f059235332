//! The GPU side: all of [`nextscale_cuda`], and dry GPUs as devices.

pub use nextscale_cuda::*;

/// Dry runs on devices: [`nextscale_cuda::dry`] says what they are.
pub mod dry {
    use crate::Device;
    use crate::cpu::pool::recycle;
    pub use nextscale_cuda::dry::*;

    /// A new dry GPU like `like`.
    pub fn device(like: &nextscale_cuda::GpuInfo) -> Device {
        Device::Cuda(gpu(like).info().ordinal)
    }

    /// A new dry CPU: what passes in float32 take of it is what they take on [`Device::Cpu`].
    pub fn cpu() -> Device {
        let rules = Recycling {
            most: recycle::most,
            keeps: recycle::keeps,
        };
        Device::Cuda(nextscale_cuda::dry::cpu(rules).info().ordinal)
    }
}
