//! Collectives among GPUs. Versions are NCCL's own.

use crate::libraries::Library;
use cudarc::driver::sys::CUstream;
use std::ffi::{c_char, c_void};

/// A communicator, as the library hands it out.
pub(crate) type Comm = *mut c_void;

/// What the members of a communicator know each other by.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Id(pub(crate) [u8; 128]);

/// The settings of a communicator as NCCL 2.14 laid them out: the first of them in every later version. A library reads as many
/// bytes as `size` says, and takes its own defaults for what came after `version`.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: i32,
    /// Fills the struct up to `size`. Later versions have a setting here, and this says that it is not chosen.
    unset: i32,
}

impl Config {
    /// Calls that return at once and say later how they went.
    pub(crate) const NON_BLOCKING: Self = Self {
        size: size_of::<Self>(),
        magic: 0xcafe_beef,
        version: 21_400,
        blocking: 0,
        unset: i32::MIN,
    };
}

functions! { Library::Nccl;
    "2.0" fn ncclGetUniqueId(id: *mut Id) -> u32;
    "2.14" fn ncclCommInitRankConfig(comm: *mut Comm, size: i32, id: Id, rank: i32, config: *mut Config) -> u32;
    "2.14" fn ncclCommFinalize(comm: Comm) -> u32;
    "2.0" fn ncclCommDestroy(comm: Comm) -> u32;
    "2.4" fn ncclCommAbort(comm: Comm) -> u32;
    "2.4" fn ncclCommGetAsyncError(comm: Comm, code: *mut u32) -> u32;
    "2.0" fn ncclGetErrorString(code: u32) -> *const c_char;
    "2.13" fn ncclGetLastError(comm: Comm) -> *const c_char;
    "2.0" fn ncclGroupStart() -> u32;
    "2.0" fn ncclGroupEnd() -> u32;
    "2.0" fn ncclAllReduce(
        from: *const c_void,
        to: *mut c_void,
        count: usize,
        element: u32,
        operation: u32,
        comm: Comm,
        stream: CUstream,
    ) -> u32;
    "2.0" fn ncclReduceScatter(
        from: *const c_void,
        to: *mut c_void,
        each: usize,
        element: u32,
        operation: u32,
        comm: Comm,
        stream: CUstream,
    ) -> u32;
    "2.0" fn ncclAllGather(
        from: *const c_void,
        to: *mut c_void,
        each: usize,
        element: u32,
        comm: Comm,
        stream: CUstream,
    ) -> u32;
    "2.2" fn ncclBroadcast(
        from: *const c_void,
        to: *mut c_void,
        count: usize,
        element: u32,
        root: i32,
        comm: Comm,
        stream: CUstream,
    ) -> u32;
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    /// Any library newer than 2.14 copies these bytes over settings of its own.
    #[test]
    fn settings_lie_as_nccl_2_14_has_them() {
        assert_eq!(size_of::<Config>(), 24);
        let places = [
            offset_of!(Config, size),
            offset_of!(Config, magic),
            offset_of!(Config, version),
            offset_of!(Config, blocking),
            offset_of!(Config, unset),
        ];
        assert_eq!(places, [0, 8, 12, 16, 20]);
        let c = Config::NON_BLOCKING;
        assert_eq!((c.size, c.magic, c.version), (24, 0xcafe_beef, 21_400));
        assert_eq!((c.blocking, c.unset), (0, i32::MIN));
        assert_eq!(size_of::<Id>(), 128);
    }
}
