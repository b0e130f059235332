//! The flags of every command that computes with a model.

use nextscale::device::device_of;
use nextscale::options::values::{DeviceChoice, precision_parser};
use nextscale::run::{init_threads, threads_of};
use nextscale::{Result, World, tell};
use nextscale_tensor::{Device, Math, Precision};

/// Where to compute and how precisely.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct MachineArgs {
    /// auto, cpu, cuda or cuda:N; auto takes a GPU where there is a usable one
    #[arg(long, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Precision of products on a GPU; without it bf16 to draw, tf32 to measure and tokenize
    #[arg(long, value_parser = precision_parser())]
    precision: Option<Precision>,
    /// Threads that compute on the CPU; 0: one for each core
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
}

impl MachineArgs {
    /// Takes the device and the threads into use; `usual` is the precision where none is asked for.
    pub fn start(&self, usual: Precision) -> Result<(Device, Math)> {
        self.start_in(&World::alone(), usual)
    }

    /// The same for one of several processes.
    pub fn start_in(&self, world: &World, usual: Precision) -> Result<(Device, Math)> {
        let device = device_of(self.device, world)?;
        init_threads(threads_of(world, self.threads))?;
        if world.is_first()
            && !device.is_async()
            && self.precision.is_some_and(|p| p != Precision::Fp32)
        {
            tell!("nextscale: the CPU computes in float32; --precision is for GPUs");
        }
        Ok((device, self.precision.unwrap_or(usual).math()))
    }

    /// The precision that products have on `device`.
    pub fn chosen(&self, device: Device, usual: Precision) -> Precision {
        if device.is_async() {
            self.precision.unwrap_or(usual)
        } else {
            Precision::Fp32
        }
    }
}
