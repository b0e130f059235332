//! What the driver's and the compiler's codes mean to a user.

use crate::Error;
use cudarc::driver::DriverError;
use cudarc::driver::sys::CUresult;

/// A driver's refusal in words: what was being done, what went wrong, what to do where that is known.
pub(super) fn driver(doing: &str, e: &DriverError) -> Error {
    let why = match e.0 {
        CUresult::CUDA_ERROR_NO_DEVICE => "there is no NVIDIA GPU that the driver can use".into(),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            "the GPU's memory is full; use a smaller batch or more accumulation steps (--ac)".into()
        }
        CUresult::CUDA_ERROR_INVALID_DEVICE => "there is no GPU of that number".into(),
        CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | CUresult::CUDA_ERROR_INVALID_IMAGE => {
            "a compiled kernel does not fit this GPU; delete the kernel cache and try again".into()
        }
        CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH
        | CUresult::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the NVIDIA driver and its kernel module are of different versions; restart the machine"
                .into()
        }
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => "the GPU is taken by another process".into(),
        _ => match e.error_string() {
            Ok(text) => text.to_string_lossy().into_owned(),
            Err(_) => "the driver gives no reason".into(),
        },
    };
    Error::Device(format!("{doing}: {why}"))
}

/// Turns a driver's result into ours.
pub(super) trait Checked<T> {
    /// Adds what was being done.
    fn doing(self, what: &str) -> crate::Result<T>;
}

impl<T> Checked<T> for Result<T, DriverError> {
    fn doing(self, what: &str) -> crate::Result<T> {
        self.map_err(|e| driver(what, &e))
    }
}
