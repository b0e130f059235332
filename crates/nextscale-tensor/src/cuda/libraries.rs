//! Finding NVIDIA's libraries where users have them: on the loader's path, in a CUDA toolkit, or in Python packages.
//!
//! A library found in an unusual place is opened from there first; the bindings then get the same copy by its name. What
//! NEXTSCALE_WITHOUT names, such as `cuDNN` or `cuDNN,NCCL`, is done without, as if it were not installed.

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
    handle: Handle,
}

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

    /// What brings it.
    pub fn package(self) -> &'static str {
        match self {
            Self::Driver => "the NVIDIA driver, 580 or newer",
            Self::Nvrtc => "the PyPI package nvidia-cuda-nvrtc or a CUDA toolkit",
            Self::CublasLt => "the PyPI package nvidia-cublas or a CUDA toolkit",
            Self::Cudnn => "the PyPI package nvidia-cudnn-cu13 or NVIDIA's package cudnn9-cuda-13",
            Self::Nccl => "the PyPI package nvidia-nccl-cu13 or NVIDIA's package libnccl2",
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
        static FOUND: [OnceLock<Option<Found>>; 5] = [const { OnceLock::new() }; 5];
        let find = || (!self.is_left_out()).then(|| search(self)).flatten();
        FOUND[self as usize].get_or_init(find).as_ref()
    }

    /// Its version as the library states it: major, minor, patch. `None` where it is missing or does not say. The
    /// driver's is the newest CUDA version that it serves.
    pub fn version(self) -> Option<(u32, u32, u32)> {
        let found = self.find()?;
        // SAFETY: the symbols have these types in NVIDIA's headers, and the integers that are pointed at live through the
        // calls.
        unsafe {
            let whole = |symbol: &str| {
                let f = found.handle.get::<unsafe extern "C" fn() -> usize>(symbol);
                f.ok().map(|f| f() as u32)
            };
            let written = |symbol: &str| {
                let f = found
                    .handle
                    .get::<unsafe extern "C" fn(*mut i32) -> i32>(symbol);
                let mut v = 0;
                f.ok().filter(|f| f(&mut v) == 0).map(|_| v as u32)
            };
            let parts = |v: u32| (v / 10_000, v % 10_000 / 100, v % 100);
            match self {
                Self::Driver => written("cuDriverGetVersion").map(|v| (v / 1000, v % 1000 / 10, 0)),
                Self::Nvrtc => {
                    type Both = unsafe extern "C" fn(*mut i32, *mut i32) -> i32;
                    let (mut major, mut minor) = (0, 0);
                    let f = found.handle.get::<Both>("nvrtcVersion").ok()?;
                    (f(&mut major, &mut minor) == 0).then_some((major as u32, minor as u32, 0))
                }
                Self::CublasLt => whole("cublasLtGetVersion").map(parts),
                Self::Cudnn => whole("cudnnGetVersion").map(parts),
                Self::Nccl => written("ncclGetVersion").map(parts),
            }
        }
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

fn search(library: Library) -> Option<Found> {
    let here = |folder: &Path| {
        let mut paths = library.files().iter().map(|f| folder.join(f));
        paths.find_map(|p| open(&p, library))
    };
    folders_of("NEXTSCALE_CUDA_PATH")
        .iter()
        .find_map(|d| here(d))
        // A bare name is for the loader to find.
        .or_else(|| {
            library
                .files()
                .iter()
                .find_map(|f| open(f.as_ref(), library))
        })
        .or_else(|| usual_folders().iter().find_map(|d| here(d)))
}

fn open(path: &Path, library: Library) -> Option<Found> {
    let bare = path.components().count() == 1;
    if !bare && !path.exists() {
        return None;
    }
    // SAFETY: loading runs the library's initialisers; these are NVIDIA's own libraries by name.
    let handle = unsafe { Handle::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }.ok()?;
    let path = if bare {
        resolved(path, library)
    } else {
        path.to_owned()
    };
    Some(Found { path, handle })
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

fn folders_of(variable: &str) -> Vec<PathBuf> {
    std::env::var_os(variable)
        .map(|v| std::env::split_paths(&v).collect())
        .unwrap_or_default()
}

/// Where toolkits and Python packages put their libraries, newest first.
fn usual_folders() -> Vec<PathBuf> {
    let mut out = Vec::new();
    for variable in ["CUDA_HOME", "CUDA_PATH"] {
        out.extend(folders_of(variable).iter().map(|d| d.join("lib64")));
    }
    out.push("/usr/local/nvidia/lib64".into());
    out.push("/usr/local/cuda/lib64".into());
    let mut toolkits = entries("/usr/local".as_ref(), "cuda-");
    toolkits.reverse();
    out.extend(toolkits.iter().map(|d| d.join("lib64")));
    for packages in python_packages() {
        for part in entries(&packages.join("nvidia"), "") {
            out.push(part.join("lib"));
        }
    }
    out
}

/// Folders that hold Python packages: of the active environment, of the `python3` on the path, of the user, of the system.
fn python_packages() -> Vec<PathBuf> {
    let mut roots = Vec::new();
    for variable in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        roots.extend(folders_of(variable).iter().map(|d| d.join("lib")));
    }
    for bin in folders_of("PATH") {
        let python = bin.join("python3");
        if python.exists() {
            roots.extend(bin.parent().map(|d| d.join("lib")));
        }
    }
    if let Some(home) = std::env::var_os("HOME") {
        roots.push(Path::new(&home).join(".local/lib"));
    }
    roots.extend(["/usr/local/lib".into(), "/usr/lib".into()]);
    let mut out = Vec::new();
    for root in roots {
        for python in entries(&root, "python3") {
            out.push(python.join("site-packages"));
            out.push(python.join("dist-packages"));
        }
    }
    out
}

/// Entries of a folder whose names start with `start`, sorted.
fn entries(folder: &Path, start: &str) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with(start))
        .map(|e| e.path())
        .collect();
    out.sort();
    out
}
