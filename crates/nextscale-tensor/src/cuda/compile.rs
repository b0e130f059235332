//! From CUDA C++ to machine code: NVRTC, and what it made kept on disk.
//!
//! A file of the cache is named by a hash of everything it was made from. It is written under another name and renamed,
//! so that many processes may start at once: whoever is last leaves the same bytes.

use super::kernel::Module;
use super::libraries::Library;
use crate::{Error, Result};
use cudarc::nvrtc::sys;
use std::ffi::{CString, c_char};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::ptr;

/// A kind of GPU by its compute capability.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Arch {
    /// Before the point.
    pub major: u32,
    /// After it.
    pub minor: u32,
}

impl Arch {
    /// The least that kernels are written for.
    pub const LEAST: Self = Self { major: 8, minor: 0 };

    /// NVRTC's name, such as `sm_90`. `specific` asks for the instructions of this very GPU (`sm_90a`), which Hopper's
    /// matrix unit and later ones need.
    pub fn name(self, specific: bool) -> String {
        let a = if specific && self.major >= 9 { "a" } else { "" };
        format!("sm_{}{}{a}", self.major, self.minor)
    }
}

/// What every kernel's source begins with.
const COMMON: &str = include_str!("common.cuh");

/// The module's machine code for `arch`: from the cache where it is there, else compiled and put there.
///
/// # Errors
/// When NVRTC is missing, or refuses the source: with its log.
pub fn load_or_compile(module: &Module, arch: Arch) -> Result<Vec<u8>> {
    let cached = cache_folder().map(|d| d.join(file_name(module, arch)));
    if let Some(code) = cached.as_ref().and_then(|p| std::fs::read(p).ok())
        && let Some(code) = checked(&code)
    {
        return Ok(code.to_vec());
    }
    let code = compile(module, arch)?;
    if let Some(path) = cached {
        // A cache that can't be written costs time, not correctness.
        let _ = keep(&path, &code);
    }
    Ok(code)
}

/// Compiles a module, without the cache.
///
/// # Errors
/// As [`load_or_compile`].
pub fn compile(module: &Module, arch: Arch) -> Result<Vec<u8>> {
    Library::Nvrtc.required()?;
    let source = CString::new(format!("{COMMON}\n{}", module.source))
        .map_err(|_| Error::Device(format!("kernels {}: a zero byte", module.name)))?;
    let name = CString::new(format!("{}.cu", module.name)).unwrap_or_default();
    let options: Vec<CString> = options(module, arch)
        .into_iter()
        .filter_map(|o| CString::new(o).ok())
        .collect();
    let raw: Vec<*const c_char> = options.iter().map(|o| o.as_ptr()).collect();
    let mut program = ptr::null_mut();
    // SAFETY: strings live through the calls and end with zero bytes, the counts are those of the arrays, and the program
    // is destroyed once, after its last use.
    unsafe {
        let made = sys::nvrtcCreateProgram(
            &mut program,
            source.as_ptr(),
            name.as_ptr(),
            0,
            ptr::null(),
            ptr::null(),
        );
        if made != sys::nvrtcResult::NVRTC_SUCCESS {
            return Err(Error::Device(format!(
                "kernels {}: NVRTC can't start ({made:?})",
                module.name
            )));
        }
        let done = sys::nvrtcCompileProgram(program, raw.len() as i32, raw.as_ptr());
        let result = if done == sys::nvrtcResult::NVRTC_SUCCESS {
            let mut size = 0;
            sys::nvrtcGetCUBINSize(program, &mut size);
            let mut code = vec![0u8; size];
            sys::nvrtcGetCUBIN(program, code.as_mut_ptr().cast());
            Ok(code)
        } else {
            let mut size = 0;
            sys::nvrtcGetProgramLogSize(program, &mut size);
            let mut log = vec![0u8; size];
            sys::nvrtcGetProgramLog(program, log.as_mut_ptr().cast());
            let log = String::from_utf8_lossy(&log);
            Err(Error::Device(format!(
                "kernels {} do not compile for {}: {}",
                module.name,
                arch.name(module.specific),
                log.trim_end_matches('\0').trim()
            )))
        };
        sys::nvrtcDestroyProgram(&mut program);
        result
    }
}

fn options(module: &Module, arch: Arch) -> Vec<String> {
    vec![
        format!("--gpu-architecture={}", arch.name(module.specific)),
        "--std=c++17".into(),
        "--extra-device-vectorization".into(),
        "--fmad=true".into(),
        "--restrict".into(),
    ]
}

/// The folder of the cache: `NEXTSCALE_KERNEL_CACHE`, else under the user's cache folder. `None` where there is neither.
pub fn cache_folder() -> Option<PathBuf> {
    if let Some(d) = std::env::var_os("NEXTSCALE_KERNEL_CACHE") {
        return Some(d.into());
    }
    let base = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(Path::new(&std::env::var_os("HOME")?).join(".cache")))?;
    Some(base.join("nextscale/kernels"))
}

fn file_name(module: &Module, arch: Arch) -> String {
    // The compiler's version is left out: where none is there, what an earlier one left will do.
    let options = options(module, arch).join(" ");
    let hash = hash(&[
        COMMON.as_bytes(),
        module.source.as_bytes(),
        options.as_bytes(),
    ]);
    let arch = arch.name(module.specific);
    format!("{}-{arch}-{hash:016x}.cubin", module.name)
}

/// A code's length and hash go before it, so that a damaged file is told from a whole one.
fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)?;
    let part = folder.join(format!(
        ".{}.{}.tmp",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let mut file = std::fs::File::create(&part)?;
    file.write_all(&(code.len() as u64).to_le_bytes())?;
    file.write_all(&hash(&[code]).to_le_bytes())?;
    file.write_all(code)?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

fn checked(file: &[u8]) -> Option<&[u8]> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let (stated, code) = rest.split_first_chunk::<8>()?;
    let whole = u64::from_le_bytes(*length) == code.len() as u64;
    (whole && u64::from_le_bytes(*stated) == hash(&[code])).then_some(code)
}

/// A hash to name and check files by; no defence against anybody.
fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = DefaultHasher::new();
    parts.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_cache_file_is_not_used() {
        let dir = std::env::temp_dir().join(format!("nextscale-cache-{}", std::process::id()));
        let path = dir.join("x.cubin");
        keep(&path, b"machine code").unwrap();
        let mut file = std::fs::read(&path).unwrap();
        assert_eq!(checked(&file), Some(&b"machine code"[..]));
        *file.last_mut().unwrap() ^= 1;
        assert_eq!(checked(&file), None);
        assert_eq!(checked(&file[..9]), None);
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn names_tell_architectures_apart() {
        let (a, b) = (Arch::LEAST, Arch { major: 9, minor: 0 });
        assert_eq!(
            (a.name(true), b.name(true), b.name(false)),
            ("sm_80".into(), "sm_90a".into(), "sm_90".into())
        );
        let module = &super::super::kernel::MEMORY;
        assert_ne!(file_name(module, a), file_name(module, b));
    }
}
