//! Where checks compute, and what that means for their limits.

use nextscale::Result;
use nextscale::options::values::beside_training;
use nextscale_tensor::{DType, Device, Math, Precision, Tensor};

/// How many times farther off a GPU in float32 may be than a CPU: its sums are cut into other pieces.
const ON_A_GPU: f64 = 4.0;
/// How far off losses in half precision may be, as a share: of single passes, of a run's first steps and of its mean.
pub(super) const HALF_LOSSES: f64 = 1e-2;
/// The factor on the loss that keeps gradients in float16 from vanishing, where no optimizer's scale is at hand.
const FLOAT16_SCALE: f32 = 2048.0;

/// Where models compute and how precisely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Machine {
    /// The device.
    pub device: Device,
    /// The transformer's arithmetic.
    pub math: Math,
    /// The tokenizer's; its search for codes is exact whatever this is.
    pub tokenizer: Math,
}

impl Machine {
    /// The CPU.
    pub const CPU: Self = Self {
        device: Device::Cpu,
        math: Math::FULL,
        tokenizer: Math::FULL,
    };

    /// A device with the arithmetic of a training run. In float32 nothing is rounded to TF32.
    pub fn new(device: Device, precision: Precision) -> Self {
        Self {
            device,
            math: precision.beside(false),
            tokenizer: beside_training(precision).math(),
        }
    }

    /// Whether products are in half precision.
    pub(super) fn is_half(&self) -> bool {
        self.device.is_async() && self.math.operands.is_half()
    }

    /// The factor on limits.
    pub(super) fn slack(&self) -> f64 {
        if self.device.is_async() {
            ON_A_GPU
        } else {
            1.0
        }
    }

    /// What losses are multiplied by before a backward pass, and gradients are to be divided by.
    pub(super) fn loss_scale(&self) -> f32 {
        if self.is_half() && self.math.operands == DType::F16 {
            FLOAT16_SCALE
        } else {
            1.0
        }
    }

    /// Tensors on the device.
    pub(super) fn all(&self, tensors: &[Tensor]) -> Result<Vec<Tensor>> {
        tensors.iter().map(|t| Ok(t.to(self.device)?)).collect()
    }
}

/// A tensor on the CPU, float32 or integers.
pub(super) fn host(t: &Tensor) -> Result<Tensor> {
    Ok(t.to(Device::Cpu)?)
}
