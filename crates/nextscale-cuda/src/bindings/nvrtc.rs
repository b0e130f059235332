//! The run-time compiler.

use crate::libraries::Library;
use cudarc::nvrtc::sys::nvrtcProgram;
use std::ffi::c_char;

functions! { Library::Nvrtc;
    "7.0" fn nvrtcCreateProgram(
        program: *mut nvrtcProgram,
        source: *const c_char,
        name: *const c_char,
        headers: i32,
        texts: *const *const c_char,
        names: *const *const c_char,
    ) -> u32;
    "7.0" fn nvrtcCompileProgram(program: nvrtcProgram, count: i32, options: *const *const c_char) -> u32;
    "7.0" fn nvrtcGetProgramLogSize(program: nvrtcProgram, size: *mut usize) -> u32;
    "7.0" fn nvrtcGetProgramLog(program: nvrtcProgram, log: *mut c_char) -> u32;
    "11.1" fn nvrtcGetCUBINSize(program: nvrtcProgram, size: *mut usize) -> u32;
    "11.1" fn nvrtcGetCUBIN(program: nvrtcProgram, code: *mut c_char) -> u32;
    "7.0" fn nvrtcDestroyProgram(program: *mut nvrtcProgram) -> u32;
}
