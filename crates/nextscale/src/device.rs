//! What a run computes on, and how precisely.

use crate::options::values::DeviceChoice;
use crate::remark::remark;
use crate::{Error, Result};
use nextscale_tensor::cuda::{self, Gpu, Library};
use nextscale_tensor::{Device, Precision};

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
            usable(number).map_err(|why| Error::input(format!("`device`={choice}: {why}")))?;
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

/// Precision of a training run's products: what `--fp16` stands for, 0 float32, or TF32 where it may be, 1 float16, 2 bfloat16.
///
/// # Errors
/// One line for another number.
pub fn training_precision(fp16: u8, tf32: bool) -> Result<Precision> {
    match fp16 {
        0 if tf32 => Ok(Precision::Tf32),
        0 => Ok(Precision::Fp32),
        1 => Ok(Precision::Fp16),
        2 => Ok(Precision::Bf16),
        n => Err(Error::input(format!(
            "`fp16`={n}: use 0 (float32), 1 (float16) or 2 (bfloat16)"
        ))),
    }
}

/// The tokenizer's precision where none is asked for: bfloat16 beside a transformer in half precision, else the transformer's.
pub fn beside_training(transformer: Precision) -> Precision {
    match transformer {
        Precision::Fp16 => Precision::Bf16,
        other => other,
    }
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

    #[test]
    fn the_tokenizer_follows_the_run() {
        use Precision::{Bf16, Fp16, Fp32, Tf32};
        let both = |fp16, tf32| {
            let own = training_precision(fp16, tf32).unwrap();
            (own, beside_training(own))
        };
        assert_eq!(both(1, false), (Fp16, Bf16));
        assert_eq!(both(2, true), (Bf16, Bf16));
        assert_eq!(both(0, true), (Tf32, Tf32));
        assert_eq!(both(0, false), (Fp32, Fp32));
        assert!(training_precision(3, true).is_err());
    }
}
