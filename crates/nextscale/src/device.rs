//! What a run computes on, and how precisely.

use crate::options::values::DeviceChoice;
use crate::remark::remark;
use crate::{Error, Result, World};
use nextscale_tensor::Device;
use nextscale_tensor::cuda::{self, Gpu, Library};

/// The device that a choice comes to on this machine: with `auto` the first GPU that can be used, else the CPU. A
/// GPU that is there and can't be used is remarked on ([`on_remark`](crate::on_remark)), and what slows one down that is used.
///
/// # Errors
/// When a GPU is asked for and can't be used, or NEXTSCALE_WITHOUT is not understood.
pub fn resolve_device(choice: DeviceChoice) -> Result<Device> {
    Library::check_left_out().map_err(Error::input)?;
    let device = match choice {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Cuda(number) => {
            let number = number.unwrap_or(0);
            usable(number).map_err(|why| Error::field("device", choice, why))?;
            Device::Cuda(number)
        }
        DeviceChoice::Auto => {
            let (device, passed_over) = automatic();
            for why in passed_over {
                remark(&format!("not used: {why}"));
            }
            device
        }
    };
    if device != Device::Cpu && !Library::Cudnn.is_there() {
        let why = Library::Cudnn.missing();
        remark(&format!("most convolutions take a slower way: {why}"));
    }
    Ok(device)
}

/// The device of one of several processes: each on a machine has a GPU of its own, by its number there.
///
/// # Errors
/// As [`resolve_device`], and where there are more processes than GPUs.
pub fn device_of(choice: DeviceChoice, world: &World) -> Result<Device> {
    let (local, own) = (world.local_size(), world.local_rank());
    let gpus = cuda::count();
    let own = match choice {
        _ if world.size() == 1 => choice,
        DeviceChoice::Auto if gpus > 0 => DeviceChoice::Cuda(Some(own)),
        DeviceChoice::Cuda(None) => DeviceChoice::Cuda(Some(own)),
        DeviceChoice::Cuda(Some(_)) if local > 1 => {
            let why = format!("{local} processes can't share one GPU; give `device`=cuda");
            return Err(Error::field("device", choice, why));
        }
        _ => choice,
    };
    if let DeviceChoice::Cuda(Some(_)) = own
        && local > gpus
        && gpus > 0
    {
        let why = format!(
            "{local} processes on {} need as many GPUs, and it has {gpus}; start fewer, or give `device`=cpu",
            world.host(world.rank())
        );
        return Err(Error::field("device", choice, why));
    }
    resolve_device(own)
}

/// What `auto` comes to, and why GPUs before it are passed over.
pub fn automatic() -> (Device, Vec<String>) {
    let mut passed_over = Vec::new();
    for number in 0..cuda::count() {
        match usable(number) {
            Ok(()) => return (Device::Cuda(number), passed_over),
            Err(why) => passed_over.push(why),
        }
    }
    (Device::Cpu, passed_over)
}

/// Whether models can run on the GPU of this number; else why not, in one line.
fn usable(number: usize) -> Result<(), String> {
    let text = |e: cuda::Error| match e {
        cuda::Error::Device(text) => text,
        other => other.to_string(),
    };
    Library::Driver.required().map_err(text)?;
    // Age before libraries: what can't help need not be installed.
    Gpu::get(number).map_err(text)?;
    Library::CublasLt.required().map_err(text)?;
    // Kernels that were compiled before do without the compiler; which are missing shows when they are called.
    let kept =
        cuda::cache::folder().is_some_and(|f| f.read_dir().is_ok_and(|mut d| d.next().is_some()));
    if kept {
        return Ok(());
    }
    Library::Nvrtc.required().map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_not_there_is_refused_in_one_line() {
        assert_eq!(resolve_device(DeviceChoice::Cpu).unwrap(), Device::Cpu);
        let choice = DeviceChoice::Cuda(Some(63));
        let e = resolve_device(choice).unwrap_err();
        let text = e.to_string();
        assert!(
            e.exit_code() == 2 && text.starts_with("`device`=cuda:63: "),
            "{text}"
        );
        assert!(!text.contains('\n'));
        let (device, passed_over) = automatic();
        assert!(device == Device::Cpu || matches!(device, Device::Cuda(_)));
        assert!(passed_over.len() <= cuda::count());
    }
}
