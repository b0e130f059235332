//! What the driver's and the compiler's codes mean to a user.

use crate::Error;
use crate::bindings::MISSING;
use crate::driver::DriverError;
use cudarc::driver::sys::CUresult;
use cudarc::nvrtc::sys::nvrtcResult;

/// A driver's refusal in words: what was being done, what went wrong, what to do where that is known.
pub(crate) fn driver(doing: &str, e: &DriverError) -> Error {
    if is_full(e) {
        return Error::Memory(format!("{doing}: the GPU's memory is full"));
    }
    Error::Device(format!("{doing}: {}", meaning(e)))
}

/// Whether the driver has no memory left to give.
pub(crate) fn is_full(e: &DriverError) -> bool {
    e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY as u32
}

/// A code in words.
fn meaning(e: &DriverError) -> String {
    use CUresult as C;
    /// A newer driver may have codes that are not declared here.
    const KNOWN: [CUresult; 24] = [
        C::CUDA_ERROR_NO_DEVICE,
        C::CUDA_ERROR_INVALID_DEVICE,
        C::CUDA_ERROR_NO_BINARY_FOR_GPU,
        C::CUDA_ERROR_INVALID_IMAGE,
        C::CUDA_ERROR_INVALID_PTX,
        C::CUDA_ERROR_NOT_FOUND,
        C::CUDA_ERROR_INVALID_SOURCE,
        C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
        C::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE,
        C::CUDA_ERROR_STUB_LIBRARY,
        C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
        C::CUDA_ERROR_DEVICE_UNAVAILABLE,
        C::CUDA_ERROR_NOT_INITIALIZED,
        C::CUDA_ERROR_SYSTEM_NOT_READY,
        C::CUDA_ERROR_ECC_UNCORRECTABLE,
        C::CUDA_ERROR_ILLEGAL_ADDRESS,
        C::CUDA_ERROR_MISALIGNED_ADDRESS,
        C::CUDA_ERROR_ILLEGAL_INSTRUCTION,
        C::CUDA_ERROR_INVALID_PC,
        C::CUDA_ERROR_INVALID_ADDRESS_SPACE,
        C::CUDA_ERROR_HARDWARE_STACK_ERROR,
        C::CUDA_ERROR_LAUNCH_FAILED,
        C::CUDA_ERROR_LAUNCH_TIMEOUT,
        C::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
    ];
    const FAULT: &str = "start again from the last checkpoint, and report it if it happens again";
    if e.0 == MISSING {
        return "the NVIDIA driver is too old; install 525 or newer".into();
    }
    let Some(code) = KNOWN.into_iter().find(|c| *c as u32 == e.0) else {
        return format!("{}; nextscale doctor may say more", said(e));
    };
    match code {
        C::CUDA_ERROR_NO_DEVICE => "there is no NVIDIA GPU that the driver can use".into(),
        C::CUDA_ERROR_INVALID_DEVICE => "there is no GPU of that number".into(),
        C::CUDA_ERROR_NO_BINARY_FOR_GPU
        | C::CUDA_ERROR_INVALID_IMAGE
        | C::CUDA_ERROR_INVALID_PTX
        | C::CUDA_ERROR_NOT_FOUND
        | C::CUDA_ERROR_INVALID_SOURCE => {
            "a compiled kernel does not fit this GPU; delete the kernel cache (nextscale doctor names it) and try again"
                .into()
        }
        C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH | C::CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE => {
            "the NVIDIA driver and its kernel module are of different versions; restart the machine".into()
        }
        C::CUDA_ERROR_STUB_LIBRARY => {
            "the library found is a toolkit's stand-in for the driver; install the NVIDIA driver, 525 or newer".into()
        }
        C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            "the NVIDIA driver is too old; install 525 or newer".into()
        }
        C::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            "the GPU is taken by another process; wait for it or name another GPU with --device=cuda:N".into()
        }
        C::CUDA_ERROR_NOT_INITIALIZED | C::CUDA_ERROR_SYSTEM_NOT_READY => {
            "the NVIDIA driver does not start; nvidia-smi should say why".into()
        }
        C::CUDA_ERROR_ECC_UNCORRECTABLE => {
            "the GPU's memory has an error that can't be corrected; start again from the last checkpoint on another GPU"
                .into()
        }
        C::CUDA_ERROR_ILLEGAL_ADDRESS
        | C::CUDA_ERROR_MISALIGNED_ADDRESS
        | C::CUDA_ERROR_ILLEGAL_INSTRUCTION
        | C::CUDA_ERROR_INVALID_PC
        | C::CUDA_ERROR_INVALID_ADDRESS_SPACE
        | C::CUDA_ERROR_HARDWARE_STACK_ERROR
        | C::CUDA_ERROR_LAUNCH_FAILED => {
            format!("a kernel went wrong ({}); {FAULT}", said(e))
        }
        C::CUDA_ERROR_LAUNCH_TIMEOUT => {
            "a kernel took longer than the system allows; use a GPU that drives no display".into()
        }
        C::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => {
            format!("a kernel asks for more than this GPU has; {FAULT}")
        }
        _ => format!("{}; nextscale doctor may say more", said(e)),
    }
}

/// What the driver itself says; nothing can be asked where there is no driver.
fn said(e: &DriverError) -> String {
    if !crate::Library::Driver.is_there() {
        return "there is no driver".into();
    }
    e.said()
        .unwrap_or_else(|| "the driver gives no reason".into())
}

/// The compiler's refusal to start, in words.
pub(crate) fn compiler(code: u32) -> &'static str {
    use nvrtcResult as N;
    let known = [
        N::NVRTC_ERROR_OUT_OF_MEMORY,
        N::NVRTC_ERROR_INVALID_OPTION,
        N::NVRTC_ERROR_BUILTIN_OPERATION_FAILURE,
    ];
    let code = known.into_iter().find(|c| *c as u32 == code);
    match code {
        Some(N::NVRTC_ERROR_OUT_OF_MEMORY) => "the machine's memory is full",
        Some(N::NVRTC_ERROR_INVALID_OPTION) => {
            "it does not know this GPU; a newer NVRTC does (nextscale doctor says which fits the driver)"
        }
        Some(N::NVRTC_ERROR_BUILTIN_OPERATION_FAILURE) => {
            "parts of it are missing; install it anew"
        }
        _ => "it does not start; install it anew",
    }
}

/// Turns a driver's result into ours.
pub(crate) trait Checked<T> {
    /// Adds what was being done.
    fn doing(self, what: &str) -> crate::Result<T>;
}

impl<T> Checked<T> for Result<T, DriverError> {
    fn doing(self, what: &str) -> crate::Result<T> {
        self.map_err(|e| driver(what, &e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_come_in_words() {
        use CUresult as C;
        for code in [
            C::CUDA_ERROR_INVALID_VALUE,
            C::CUDA_ERROR_OUT_OF_MEMORY,
            C::CUDA_ERROR_NOT_INITIALIZED,
            C::CUDA_ERROR_NO_DEVICE,
            C::CUDA_ERROR_INVALID_DEVICE,
            C::CUDA_ERROR_INVALID_IMAGE,
            C::CUDA_ERROR_NO_BINARY_FOR_GPU,
            C::CUDA_ERROR_ECC_UNCORRECTABLE,
            C::CUDA_ERROR_UNSUPPORTED_PTX_VERSION,
            C::CUDA_ERROR_ILLEGAL_ADDRESS,
            C::CUDA_ERROR_LAUNCH_FAILED,
            C::CUDA_ERROR_LAUNCH_TIMEOUT,
            C::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
            C::CUDA_ERROR_DEVICE_UNAVAILABLE,
            C::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH,
            C::CUDA_ERROR_UNKNOWN,
        ] {
            let e = driver("testing", &DriverError(code as u32));
            let text = e.to_string();
            assert!(text.starts_with("device: testing: "), "{text}");
            assert!(
                !text.contains("CUDA_ERROR") && !text.contains('\n'),
                "{text}"
            );
            assert!(text.len() > "device: testing: ".len() + 10, "{text}");
            let full = code == C::CUDA_ERROR_OUT_OF_MEMORY;
            assert_eq!(matches!(e, Error::Memory(_)), full);
        }
        for code in [
            nvrtcResult::NVRTC_ERROR_OUT_OF_MEMORY,
            nvrtcResult::NVRTC_ERROR_INTERNAL_ERROR,
        ] {
            assert!(!compiler(code as u32).contains("NVRTC"));
        }
    }
}
