//! Finding NVIDIA's libraries where users have them: on the loader's path, in a CUDA toolkit, or in Python packages.
//!
//! A library is taken that the driver serves: code of NVRTC 13 does not load on a driver of CUDA 12. Folders that
//! NEXTSCALE_CUDA_PATH names come first. What NEXTSCALE_WITHOUT names, such as `cuDNN` or `cuDNN,NCCL`, is done without, as
//! if it were not installed.

mod fit;
mod places;

use libloading::os::unix::{Library as Handle, RTLD_GLOBAL, RTLD_NOW};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// A library that this program can make use of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Library {
    /// The driver's own library.
    Driver,
    /// The run-time compiler.
    Nvrtc,
    /// Matrix products.
    CublasLt,
    /// Convolutions.
    Cudnn,
    /// Collectives among GPUs.
    Nccl,
}

/// A library that was found; it stays open as long as the process lives.
#[derive(Debug)]
pub struct Found {
    /// The file.
    pub path: PathBuf,
    /// Its version: major, minor, patch.
    version: Option<Version>,
    handle: Handle,
}

/// Major, minor, patch.
pub type Version = (u32, u32, u32);

/// Functions that tell versions, which are asked of a library before it is chosen, each with the version that brought it.
#[cfg(test)]
pub(crate) const VERSIONS: &[(&str, &str)] = &[
    ("cuDriverGetVersion", "2.2"),
    ("nvrtcVersion", "7.0"),
    ("cublasLtGetVersion", "10.1"),
    ("cudnnGetVersion", "1.0"),
    ("cudnnGetCudartVersion", "6.0"),
    ("ncclGetVersion", "2.4"),
];

impl Library {
    /// All of them, in the order in which they are needed.
    pub const ALL: [Self; 5] = [
        Self::Driver,
        Self::Nvrtc,
        Self::CublasLt,
        Self::Cudnn,
        Self::Nccl,
    ];

    /// The name that people know.
    pub fn name(self) -> &'static str {
        match self {
            Self::Driver => "CUDA driver",
            Self::Nvrtc => "NVRTC",
            Self::CublasLt => "cuBLASLt",
            Self::Cudnn => "cuDNN",
            Self::Nccl => "NCCL",
        }
    }

    /// What brings one that fits the driver found.
    pub fn package(self) -> &'static str {
        self.package_for(Self::Driver.version().map(|(major, ..)| major))
    }

    fn package_for(self, driver: Option<u32>) -> &'static str {
        match (self, driver) {
            (Self::Driver, _) => "the NVIDIA driver, 525 or newer",
            (Self::Nvrtc, Some(..=12)) => {
                "the PyPI package nvidia-cuda-nvrtc-cu12 or a toolkit of CUDA 12"
            }
            (Self::Nvrtc, Some(_)) => "the PyPI package nvidia-cuda-nvrtc or a CUDA toolkit",
            (Self::Nvrtc, None) => {
                "the PyPI package nvidia-cuda-nvrtc (nvidia-cuda-nvrtc-cu12 for drivers before 580) or a CUDA toolkit"
            }
            (Self::CublasLt, Some(..=12)) => {
                "the PyPI package nvidia-cublas-cu12 or a toolkit of CUDA 12"
            }
            (Self::CublasLt, Some(_)) => "the PyPI package nvidia-cublas or a CUDA toolkit",
            (Self::CublasLt, None) => {
                "the PyPI package nvidia-cublas (nvidia-cublas-cu12 for drivers before 580) or a CUDA toolkit"
            }
            (Self::Cudnn, Some(..=12)) => {
                "the PyPI package nvidia-cudnn-cu12 or NVIDIA's package cudnn9-cuda-12"
            }
            (Self::Cudnn, Some(_)) => {
                "the PyPI package nvidia-cudnn-cu13 or NVIDIA's package cudnn9-cuda-13"
            }
            (Self::Cudnn, None) => {
                "the PyPI package nvidia-cudnn-cu13 (nvidia-cudnn-cu12 for drivers before 580) or NVIDIA's package cudnn9-cuda-13"
            }
            (Self::Nccl, Some(..=12)) => {
                "the PyPI package nvidia-nccl-cu12 or NVIDIA's package libnccl2"
            }
            (Self::Nccl, _) => "the PyPI package nvidia-nccl-cu13 or NVIDIA's package libnccl2",
        }
    }

    /// What it is for.
    pub fn purpose(self) -> &'static str {
        match self {
            Self::Driver => "everything on a GPU",
            Self::Nvrtc => "compiling kernels; not needed once they are in the cache",
            Self::CublasLt => "matrix products",
            Self::Cudnn => "fast convolutions",
            Self::Nccl => "several GPUs",
        }
    }

    /// File names, the best first.
    fn files(self) -> &'static [&'static str] {
        match self {
            Self::Driver => &["libcuda.so.1", "libcuda.so"],
            Self::Nvrtc => &["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"],
            Self::CublasLt => &["libcublasLt.so.13", "libcublasLt.so.12", "libcublasLt.so"],
            Self::Cudnn => &["libcudnn.so.9", "libcudnn.so"],
            Self::Nccl => &["libnccl.so.2", "libnccl.so"],
        }
    }

    /// Looks for the library, once a process.
    pub fn find(self) -> Option<&'static Found> {
        self.looked_for().as_ref().ok()
    }

    /// The library, or why those that were found do not do: empty where there is none.
    fn looked_for(self) -> &'static Result<Found, String> {
        static FOUND: [OnceLock<Result<Found, String>>; 5] = [const { OnceLock::new() }; 5];
        FOUND[self as usize].get_or_init(|| {
            if self.is_left_out() {
                return Err(String::new());
            }
            search(self)
        })
    }

    /// Its version as the library states it: major, minor, patch. `None` where it is missing or does not say. The
    /// driver's is the newest CUDA version that it serves.
    pub fn version(self) -> Option<Version> {
        self.find()?.version
    }

    /// Succeeds when the driver is there and serves CUDA 12.
    ///
    /// # Errors
    /// One line that says what is there and what is needed.
    pub fn check_driver() -> crate::Result<()> {
        Self::Driver.required()?;
        match Self::Driver.version() {
            Some((major, minor, _)) if major < fit::LEAST_CUDA => {
                Err(crate::Error::Device(format!(
                    "the NVIDIA driver serves CUDA {major}.{minor}; install driver 525 or newer, which serve CUDA 12"
                )))
            }
            _ => Ok(()),
        }
    }

    /// A function of the library found.
    ///
    /// # Safety
    /// `F` is the function's type.
    pub(crate) unsafe fn function<F: Copy>(self, name: &str) -> Option<F> {
        // SAFETY: the caller knows the type; the library stays open.
        let found = unsafe { self.find()?.handle.get::<F>(name) };
        found.ok().map(|f| *f)
    }

    /// Whether NEXTSCALE_WITHOUT names it.
    pub fn is_left_out(self) -> bool {
        left_out().iter().any(|n| self.is_called(n))
    }

    /// Succeeds when NEXTSCALE_WITHOUT names libraries that there are, or none.
    ///
    /// # Errors
    /// One line that says what it names and what it may name.
    pub fn check_left_out() -> Result<(), String> {
        let known = |n: &String| Self::ALL.iter().any(|l| l.is_called(n));
        let Some(unknown) = left_out().into_iter().find(|n| !known(n)) else {
            return Ok(());
        };
        Err(format!(
            "NEXTSCALE_WITHOUT names {unknown:?}; it takes {}, separated by commas",
            Self::ALL.map(Self::name).join(", ")
        ))
    }

    fn is_called(self, name: &str) -> bool {
        name.eq_ignore_ascii_case(self.name())
    }

    /// One line that says that it was not found, and what brings it.
    pub fn missing(self) -> String {
        if self.is_left_out() {
            return format!("{} is left out by NEXTSCALE_WITHOUT", self.name());
        }
        if let Err(why) = self.looked_for()
            && !why.is_empty()
        {
            return format!("{why}; install {}", self.package());
        }
        format!(
            "{} ({}) was not found; install {}, or name its folder in NEXTSCALE_CUDA_PATH",
            self.name(),
            self.files()[0],
            self.package()
        )
    }

    /// Whether it was found.
    pub fn is_there(self) -> bool {
        self.find().is_some()
    }

    /// Succeeds when it was found.
    ///
    /// # Errors
    /// One line that names the library and what brings it.
    pub fn required(self) -> crate::Result<()> {
        if self.is_there() {
            return Ok(());
        }
        Err(crate::Error::Device(self.missing()))
    }
}

/// The names in NEXTSCALE_WITHOUT.
fn left_out() -> Vec<String> {
    let names = std::env::var("NEXTSCALE_WITHOUT").unwrap_or_default();
    let names = names.split(',').map(|n| n.trim().to_owned());
    names.filter(|n| !n.is_empty()).collect()
}

/// The first that fits, in the order of places; else why the first found does not.
fn search(library: Library) -> Result<Found, String> {
    let driver = match library {
        Library::Driver => None,
        _ => Library::Driver.version(),
    };
    let mut refused = String::new();
    let mut fitting = |path: &Path| {
        let found = open(path, library)?;
        match fit::refusal(library, &found, driver) {
            None => Some(found),
            Some(why) => {
                if refused.is_empty() {
                    refused = why;
                }
                None
            }
        }
    };
    let mut here = |folder: &Path| {
        let mut paths = library.files().iter().map(|f| folder.join(f));
        paths.find_map(|p| fitting(&p))
    };
    let found = places::folders_of("NEXTSCALE_CUDA_PATH")
        .iter()
        .find_map(|d| here(d))
        // A bare name is for the loader to find.
        .or_else(|| here(Path::new("")))
        .or_else(|| places::usual().iter().find_map(|d| here(d)));
    let found = found.ok_or(refused)?;
    // What else is opened, such as cuDNN's parts, finds it by its names.
    // SAFETY: as in `open`; it is open already.
    let everywhere = unsafe { Handle::open(Some(&found.path), RTLD_NOW | RTLD_GLOBAL) };
    let handle = everywhere.unwrap_or(found.handle);
    Ok(Found { handle, ..found })
}

fn open(path: &Path, library: Library) -> Option<Found> {
    let bare = path.components().count() == 1;
    if !bare && !path.exists() {
        return None;
    }
    // SAFETY: loading runs the library's initialisers; these are NVIDIA's own libraries by name.
    let handle = unsafe { Handle::open(Some(path), RTLD_NOW) }.ok()?;
    let path = if bare {
        resolved(path, library)
    } else {
        path.to_owned()
    };
    let version = fit::version(library, &handle);
    Some(Found {
        path,
        version,
        handle,
    })
}

/// The full path of a library that the loader found by its name, as the process's map of memory shows it.
fn resolved(path: &Path, library: Library) -> PathBuf {
    let stem = library.files()[library.files().len() - 1];
    std::fs::read_to_string("/proc/self/maps")
        .ok()
        .and_then(|maps| {
            maps.lines()
                .filter_map(|line| Some(PathBuf::from(&line[line.find('/')?..])))
                .find(|p| {
                    p.file_name()
                        .is_some_and(|n| n.to_string_lossy().starts_with(stem))
                })
        })
        .unwrap_or_else(|| path.to_owned())
}
