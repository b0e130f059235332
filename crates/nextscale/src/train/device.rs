//! What a run computes on, and how precisely.

use super::flags::DeviceChoice;
use super::plan::Precision;
use crate::{Error, Result, tell};
use nextscale_tensor::cuda::{self, Gpu, Library};
use nextscale_tensor::{DType, Device, Math};
use serde::{Deserialize, Serialize};

/// The device that a choice comes to on this machine: with `auto` the first GPU that can be used, else the processor. A
/// GPU that is there and can't be used is told of on the error stream, and what slows one down that is used.
///
/// # Errors
/// When a GPU is asked for and can't be used, or NEXTSCALE_WITHOUT is not understood.
pub fn resolve_device(choice: DeviceChoice) -> Result<Device> {
    Library::check_left_out().map_err(Error::input)?;
    let device = match choice {
        DeviceChoice::Cpu => Device::Cpu,
        DeviceChoice::Cuda(number) => {
            let number = number.unwrap_or(0);
            usable(number).map_err(|why| Error::input(format!("--device={choice}: {why}")))?;
            Device::Cuda(number)
        }
        DeviceChoice::Auto => {
            let (device, passed_over) = automatic();
            for why in passed_over {
                tell!("nextscale: not used: {why}");
            }
            device
        }
    };
    if device != Device::Cpu && !Library::Cudnn.is_there() {
        tell!(
            "nextscale: most convolutions take a slower way: {}",
            Library::Cudnn.missing()
        );
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
        cuda::kept::folder().is_some_and(|f| f.read_dir().is_ok_and(|mut d| d.next().is_some()));
    if kept {
        return Ok(());
    }
    Library::Nvrtc.required().map_err(text)
}

/// Arithmetic of products on a GPU, as flags name it. Sums are float32 in all of them; a processor computes in float32
/// whatever is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum Arithmetic {
    /// Float32 throughout
    Fp32,
    /// Float32 rounded to TF32 in products
    Tf32,
    /// bfloat16
    Bf16,
    /// float16
    Fp16,
}

impl Arithmetic {
    /// As operators take it.
    pub fn math(self) -> Math {
        let (operands, tf32) = match self {
            Self::Fp32 => (DType::F32, false),
            Self::Tf32 => (DType::F32, true),
            // What stays in float32 beside half precision needs no more than TF32.
            Self::Bf16 => (DType::Bf16, true),
            Self::Fp16 => (DType::F16, true),
        };
        Math { operands, tf32 }
    }
}

/// Arithmetic of the tokenizer while it or a transformer is trained. The search for codes is exact float32 in all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
#[value(rename_all = "lowercase")]
pub enum TokenizerPrecision {
    /// Float32 throughout
    Fp32,
    /// Float32 rounded to TF32 in products
    Tf32,
    /// bfloat16
    Bf16,
}

impl TokenizerPrecision {
    /// As operators take it.
    pub fn math(self) -> Math {
        match self {
            Self::Fp32 => Arithmetic::Fp32,
            Self::Tf32 => Arithmetic::Tf32,
            Self::Bf16 => Arithmetic::Bf16,
        }
        .math()
    }
}

impl Precision {
    /// The transformer's arithmetic; `tf32` is for what stays in float32.
    pub fn math(self, tf32: bool) -> Math {
        let operands = match self {
            Self::Float32 => DType::F32,
            Self::Float16 => DType::F16,
            Self::BFloat16 => DType::Bf16,
        };
        Math { operands, tf32 }
    }

    /// What `--fp16` stands for: 0 float32, 1 float16, 2 bfloat16.
    ///
    /// # Errors
    /// One line for another number.
    pub fn of_flag(fp16: u8) -> Result<Self> {
        match fp16 {
            0 => Ok(Self::Float32),
            1 => Ok(Self::Float16),
            2 => Ok(Self::BFloat16),
            n => Err(Error::input(format!(
                "--fp16={n}: expected 0 (float32), 1 (float16) or 2 (bfloat16)"
            ))),
        }
    }

    /// The tokenizer's arithmetic: the one asked for, else bfloat16 beside a transformer in half precision and float32,
    /// by `tf32` rounded, beside one in float32.
    pub fn tokenizer(self, asked: Option<TokenizerPrecision>, tf32: bool) -> TokenizerPrecision {
        asked.unwrap_or(match (self, tf32) {
            (Self::Float16 | Self::BFloat16, _) => TokenizerPrecision::Bf16,
            (Self::Float32, true) => TokenizerPrecision::Tf32,
            (Self::Float32, false) => TokenizerPrecision::Fp32,
        })
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
            e.exit_code() == 2 && text.starts_with("--device=cuda:63: "),
            "{text}"
        );
        assert!(!text.contains('\n'));
        let (device, passed_over) = automatic();
        assert!(device == Device::Cpu || matches!(device, Device::Cuda(_)));
        assert!(passed_over.len() <= cuda::count());
    }

    #[test]
    fn the_tokenizer_follows_the_run() {
        use TokenizerPrecision::{Bf16, Fp32, Tf32};
        assert_eq!(Precision::Float16.tokenizer(None, false), Bf16);
        assert_eq!(Precision::Float32.tokenizer(None, true), Tf32);
        assert_eq!(Precision::Float32.tokenizer(None, false), Fp32);
        assert_eq!(Precision::BFloat16.tokenizer(Some(Fp32), true), Fp32);
        assert_eq!(Precision::Float32.math(false), Math::FULL);
        assert!(Precision::of_flag(3).is_err());
        assert_eq!(Bf16.math().operands, DType::Bf16);
    }
}
