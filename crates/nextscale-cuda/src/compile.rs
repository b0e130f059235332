//! From CUDA C++ to machine code: NVRTC, and what it made, cached on disk.

use crate::bindings::nvrtc as sys;
use crate::cache;
use crate::codes::compiler;
use crate::kernel::Module;
use crate::libraries::Library;
use crate::{Error, Result};
use rayon::prelude::*;
use std::ffi::{CString, c_char};
use std::ptr;
use std::sync::Mutex;

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

/// What NVRTC answers when all is well.
const SUCCESS: u32 = 0;

/// What every kernel's source begins with.
const COMMON: &str = include_str!("common.cuh");

/// The module's machine code for `arch`: from the cache where it is there, else compiled and put there. The first module that is
/// not there makes all others that are not compiled with it, on all threads: a program needs most of them.
///
/// # Errors
/// When NVRTC is missing, or refuses the source: with its log.
pub fn load_or_compile(module: &Module, arch: Arch) -> Result<Vec<u8>> {
    if let Some(code) = load(module, arch) {
        return Ok(code);
    }
    let version = required()?;
    compile_missing(arch, version);
    compile_locked(module, arch, version)
}

/// The compiler's version, where it is there.
fn required() -> Result<Version> {
    Library::Nvrtc.required()?;
    version()
        .ok_or_else(|| Error::Device("NVRTC does not tell its version; install it anew".into()))
}

/// Lists of modules that a program may need, beside those of this crate.
static LISTS: Mutex<Vec<&'static [&'static Module]>> = Mutex::new(Vec::new());

/// Tells of modules that the program may need: the first of all that is not in the cache has them compiled too, all together. One
/// that nobody told of is compiled when it is first used. A list may be given again.
pub fn together(modules: &'static [&'static Module]) {
    let mut lists = LISTS.lock().unwrap_or_else(|e| e.into_inner());
    if !lists.iter().any(|l| std::ptr::eq(*l, modules)) {
        lists.push(modules);
    }
}

/// The modules that were told of, those of this crate first.
fn all() -> Vec<&'static Module> {
    let lists = LISTS.lock().unwrap_or_else(|e| e.into_inner());
    let own = crate::MODULES.iter();
    own.chain(lists.iter().copied().flatten())
        .copied()
        .collect()
}

/// Once a process: compiles all that the cache lacks for `arch` and keeps it.
fn compile_missing(arch: Arch, version: Version) {
    static DONE: Mutex<Vec<Arch>> = Mutex::new(Vec::new());
    {
        let mut done = DONE.lock().unwrap_or_else(|e| e.into_inner());
        if done.contains(&arch) {
            return;
        }
        done.push(arch);
    }
    // Where nothing can be cached it would be compiled for nothing.
    if cache::lock("all", &arch.name(false)).is_none() {
        return;
    }
    remember(version);
    let lacking: Vec<_> = all()
        .into_iter()
        .filter(|m| !cache::contains(m.name, &key(m, arch, version)))
        .collect();
    // What can't be compiled is told when it is needed.
    lacking.par_iter().for_each(|m| {
        let _ = compile_locked(m, arch, version);
    });
}

/// Compiles and caches a module, or waits for the thread or process that does.
fn compile_locked(module: &Module, arch: Arch, version: Version) -> Result<Vec<u8>> {
    let key = key(module, arch, version);
    let _lock = cache::lock(module.name, &key);
    if let Some(code) = cache::load(module.name, &key) {
        return Ok(code);
    }
    let code = compile(module, arch)?;
    cache::store(module.name, &key, &code);
    Ok(code)
}

/// Compiles a module, without the cache.
///
/// # Errors
/// As [`load_or_compile`].
pub fn compile(module: &Module, arch: Arch) -> Result<Vec<u8>> {
    Library::Nvrtc.required()?;
    let source = CString::new(format!("{COMMON}\n{}", module.text()))
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
        if made != SUCCESS {
            return Err(Error::Device(format!(
                "kernels {}: the compiler NVRTC can't be used: {}",
                module.name,
                compiler(made)
            )));
        }
        let done = sys::nvrtcCompileProgram(program, raw.len() as i32, raw.as_ptr());
        let result = if done == SUCCESS {
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
            let log = log.trim_end_matches('\0').trim();
            // An option that is refused leaves no log.
            let why = if log.is_empty() { compiler(done) } else { log };
            Err(Error::Device(format!(
                "kernels {} do not compile for {}: {why}",
                module.name,
                arch.name(module.specific)
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

/// A version of the compiler: major, minor.
type Version = (u32, u32);

/// The compiler's version.
fn version() -> Option<Version> {
    let (major, minor, _) = Library::Nvrtc.version()?;
    Some((major, minor))
}

/// Compiler and driver in words: what is measured of kernels depends on them.
pub(crate) fn made_by() -> String {
    format!("{:?} {:?}", version(), Library::Driver.version())
}

/// Everything that machine code follows from.
fn key(module: &Module, arch: Arch, version: Version) -> String {
    let options = options(module, arch).join(" ");
    format!("{version:?} {options}\n{COMMON}\n{}", module.text())
}

/// Where the versions whose code is cached are written.
const VERSIONS: (&str, &str) = ("compilers", "versions");

/// Versions that left code, as they were written.
fn earlier() -> Vec<Version> {
    let bytes = cache::load(VERSIONS.0, VERSIONS.1).unwrap_or_default();
    let words = bytes.as_chunks::<8>().0.iter();
    words
        .map(|w| {
            let [a, b, c, d, e, f, g, h] = *w;
            (
                u32::from_le_bytes([a, b, c, d]),
                u32::from_le_bytes([e, f, g, h]),
            )
        })
        .collect()
}

fn remember(version: Version) {
    let _lock = cache::lock(VERSIONS.0, VERSIONS.1);
    let mut all = earlier();
    if all.contains(&version) {
        return;
    }
    all.push(version);
    let bytes: Vec<u8> = all
        .iter()
        .flat_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()].concat())
        .collect();
    cache::store(VERSIONS.0, VERSIONS.1, &bytes);
}

/// What is cached of a module: of the compiler that is here; where there is none, of the newest whose code the driver loads.
fn load(module: &Module, arch: Arch) -> Option<Vec<u8>> {
    if let Some(version) = version() {
        return cache::load(module.name, &key(module, arch, version));
    }
    let driver = Library::Driver.version();
    let mut all = earlier();
    all.retain(|(major, _)| driver.is_none_or(|(served, ..)| *major <= served));
    all.sort_unstable();
    let mut newest_first = all.into_iter().rev();
    newest_first.find_map(|v| cache::load(module.name, &key(module, arch, v)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Kernel;

    #[test]
    fn names_tell_architectures_apart() {
        let (a, b) = (Arch::LEAST, Arch { major: 9, minor: 0 });
        assert_eq!(
            (a.name(true), b.name(true), b.name(false)),
            ("sm_80".into(), "sm_90a".into(), "sm_90".into())
        );
        let module = &crate::kernel::MEMORY;
        let new = (13, 0);
        assert_ne!(key(module, a, new), key(module, b, new));
        assert_ne!(key(module, a, new), key(module, a, (12, 9)));
    }

    #[test]
    fn the_first_module_that_lacks_brings_all() {
        if Library::Nvrtc.required().is_err() || cache::lock("test", "compile").is_none() {
            println!("skipped: no NVRTC, or no folder that takes what it makes");
            return;
        }
        let module = &crate::kernel::MEMORY;
        static TOLD: Module = Module {
            name: "told",
            source: &["extern \"C\" __global__ void told(float* x) { x[0] = 2.0f; }"],
            specific: false,
            kernels: &[Kernel::new("told", "p")],
        };
        static LIST: [&Module; 1] = [&TOLD];
        together(&LIST);
        let code = load_or_compile(module, Arch::LEAST).unwrap();
        assert!(code.starts_with(b"\x7fELF"));
        assert_eq!(load_or_compile(module, Arch::LEAST).unwrap(), code);
        // Modules of other names and sources were compiled beside it, and are what they would be by themselves.
        for other in [crate::MODULES[1], &TOLD] {
            let cached = load(other, Arch::LEAST).unwrap();
            assert!(earlier().contains(&version().unwrap()));
            assert_eq!(compile(other, Arch::LEAST).unwrap(), cached);
        }
    }
}
