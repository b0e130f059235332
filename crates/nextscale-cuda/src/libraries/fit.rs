//! Which of the libraries found can be used.

use super::{Found, Handle, Library, Version};

/// The least CUDA version that is worked with.
pub(super) const LEAST_CUDA: u32 = 12;
/// The least version of cuDNN.
const LEAST_CUDNN: u32 = 9;
/// The least version of NCCL, whose communicators can be waited for without blocking.
const LEAST_NCCL: (u32, u32) = (2, 14);

/// A library's version as it states it.
pub(super) fn version(library: Library, handle: &Handle) -> Option<Version> {
    let parts = |v: u32| (v / 10_000, v % 10_000 / 100, v % 100);
    // cuDNN before 9 and NCCL before 2.9: major numbers stood for thousands.
    let older_parts = |v: u32| match v {
        ..10_000 => (v / 1000, v % 1000 / 100, v % 100),
        _ => parts(v),
    };
    match library {
        Library::Driver => {
            written(handle, "cuDriverGetVersion").map(|v| (v / 1000, v % 1000 / 10, 0))
        }
        Library::Nvrtc => {
            type Both = unsafe extern "C" fn(*mut i32, *mut i32) -> u32;
            let (mut major, mut minor) = (0, 0);
            // SAFETY: the function has this type in NVIDIA's headers; the integers live through the call.
            let code = unsafe { handle.get::<Both>("nvrtcVersion").ok()?(&mut major, &mut minor) };
            (code == 0).then_some((major as u32, minor as u32, 0))
        }
        Library::CublasLt => whole(handle, "cublasLtGetVersion").map(parts),
        Library::Cudnn => whole(handle, "cudnnGetVersion").map(older_parts),
        Library::Nccl => written(handle, "ncclGetVersion").map(older_parts),
    }
}

/// A version that a function returns.
fn whole(handle: &Handle, name: &str) -> Option<u32> {
    // SAFETY: the function has this type in NVIDIA's headers.
    unsafe {
        let f = handle.get::<unsafe extern "C" fn() -> usize>(name).ok()?;
        Some(f() as u32)
    }
}

/// A version that a function writes.
fn written(handle: &Handle, name: &str) -> Option<u32> {
    let mut v = 0;
    // SAFETY: the function has this type in NVIDIA's headers; the integer lives through the call.
    let code = unsafe {
        let f = handle
            .get::<unsafe extern "C" fn(*mut i32) -> u32>(name)
            .ok()?;
        f(&mut v)
    };
    (code == 0).then_some(v as u32)
}

/// Why a library can't be used beside this driver, if so.
pub(super) fn refusal(library: Library, found: &Found, driver: Option<Version>) -> Option<String> {
    // The version of CUDA that it is of.
    let cuda = match library {
        Library::Driver | Library::Nccl => None,
        Library::Nvrtc | Library::CublasLt => found.version.map(|(major, ..)| major),
        Library::Cudnn => whole(&found.handle, "cudnnGetCudartVersion").map(|v| v / 1000),
    };
    let at = found.path.display().to_string();
    judge(library, (found.version, cuda), driver).map(|why| format!("{at} is {why}"))
}

/// The rule: versions of CUDA from 12 up to the driver's, of cuDNN from 9, and of NCCL from 2.14.
fn judge(
    library: Library,
    (version, cuda): (Option<Version>, Option<u32>),
    driver: Option<Version>,
) -> Option<String> {
    let name = library.name();
    let told = version.map_or(String::new(), |(major, minor, _)| {
        format!(" {major}.{minor}")
    });
    if library == Library::Cudnn && version.is_none_or(|(major, ..)| major < LEAST_CUDNN) {
        return Some(format!(
            "{name}{told}, and version {LEAST_CUDNN} or newer is needed"
        ));
    }
    if library == Library::Nccl
        && version.is_none_or(|(major, minor, _)| (major, minor) < LEAST_NCCL)
    {
        let (major, minor) = LEAST_NCCL;
        return Some(format!(
            "{name}{told}, and version {major}.{minor} or newer is needed"
        ));
    }
    let cuda = cuda?;
    if cuda < LEAST_CUDA {
        return Some(format!(
            "{name}{told} of CUDA {cuda}, and CUDA {LEAST_CUDA} or newer is needed"
        ));
    }
    let (major, minor, _) = driver?;
    (cuda > major).then(|| {
        format!("{name}{told} of CUDA {cuda}, and the driver serves CUDA {major}.{minor} only")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_newer_than_the_driver_is_refused() {
        let judged = |library, version: Version, cuda, driver| {
            judge(library, (Some(version), Some(cuda)), driver)
        };
        let (old, new) = (Some((12, 4, 0)), Some((13, 0, 0)));
        for library in [Library::Nvrtc, Library::CublasLt] {
            assert_eq!(judged(library, (12, 9, 0), 12, old), None);
            assert_eq!(judged(library, (12, 9, 0), 12, new), None);
            assert_eq!(judged(library, (13, 5, 0), 13, new), None);
            assert_eq!(judged(library, (13, 5, 0), 13, None), None);
            let why = judged(library, (13, 5, 0), 13, old).unwrap();
            assert!(why.contains("13.5") && why.contains("12.4"), "{why}");
            assert!(judged(library, (11, 8, 0), 11, old).is_some());
        }
        assert_eq!(judged(Library::Cudnn, (9, 1, 0), 12, old), None);
        assert!(judged(Library::Cudnn, (9, 12, 0), 13, old).is_some());
        let why = judged(Library::Cudnn, (8, 9, 7), 12, new).unwrap();
        assert!(
            why.contains("cuDNN 8.9") && why.contains("9 or newer"),
            "{why}"
        );
    }

    #[test]
    fn an_old_nccl_is_refused() {
        let judged = |version| judge(Library::Nccl, (version, None), Some((12, 4, 0)));
        assert_eq!(judged(Some((2, 14, 0))), None);
        assert_eq!(judged(Some((2, 28, 9))), None);
        let why = judged(Some((2, 13, 4))).unwrap();
        assert!(
            why.contains("NCCL 2.13") && why.contains("2.14 or newer"),
            "{why}"
        );
        assert!(judged(Some((2, 8, 4))).is_some() && judged(None).is_some());
    }

    #[test]
    fn packages_fit_the_driver() {
        for library in [
            Library::Nvrtc,
            Library::CublasLt,
            Library::Cudnn,
            Library::Nccl,
        ] {
            assert!(library.package_for(Some(12)).contains("-cu12"));
            assert!(!library.package_for(Some(13)).contains("cu12"));
        }
    }
}
