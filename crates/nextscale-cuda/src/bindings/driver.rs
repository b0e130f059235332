//! The driver's own library.

use crate::libraries::Library;
use cudarc::driver::sys;
use std::ffi::{c_char, c_void};
use sys::{
    CUcontext, CUdevice, CUdeviceptr, CUevent, CUfunction, CUgraph, CUgraphExec, CUmodule, CUstream,
};

/// A map of a tensor for the copy engine. CUDA 12 wants it at a multiple of 64 bytes, CUDA 13 at one of 128.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(128))]
pub(crate) struct Map(pub(crate) [u64; 16]);

functions! { Library::Driver;
    "2.0" fn cuInit(flags: u32) -> u32;
    "6.0" fn cuGetErrorString(code: u32, text: *mut *const c_char) -> u32;
    "2.0" fn cuDeviceGet(device: *mut CUdevice, ordinal: i32) -> u32;
    "2.0" fn cuDeviceGetCount(count: *mut i32) -> u32;
    "2.0" fn cuDeviceGetName(name: *mut c_char, room: i32, device: CUdevice) -> u32;
    "2.0" fn cuDeviceGetAttribute(value: *mut i32, attribute: sys::CUdevice_attribute, device: CUdevice) -> u32;
    "3.2" fn cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice) -> u32;
    "7.0" fn cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) -> u32;
    "4.0" fn cuCtxSetCurrent(context: CUcontext) -> u32;
    "3.2" fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32;
    "3.2" fn cuMemAlloc_v2(address: *mut CUdeviceptr, bytes: usize) -> u32;
    "3.2" fn cuMemFree_v2(address: CUdeviceptr) -> u32;
    "2.2" fn cuMemHostAlloc(address: *mut *mut c_void, bytes: usize, flags: u32) -> u32;
    "3.2" fn cuMemcpyHtoDAsync_v2(to: CUdeviceptr, from: *const c_void, bytes: usize, stream: CUstream) -> u32;
    "3.2" fn cuMemcpyDtoHAsync_v2(to: *mut c_void, from: CUdeviceptr, bytes: usize, stream: CUstream) -> u32;
    "3.2" fn cuMemcpyDtoDAsync_v2(to: CUdeviceptr, from: CUdeviceptr, bytes: usize, stream: CUstream) -> u32;
    "3.2" fn cuMemsetD8Async(to: CUdeviceptr, value: u8, bytes: usize, stream: CUstream) -> u32;
    "10.2" fn cuMemGetAllocationGranularity(bytes: *mut usize, of: *const sys::CUmemAllocationProp, which: sys::CUmemAllocationGranularity_flags) -> u32;
    "10.2" fn cuMemAddressReserve(address: *mut CUdeviceptr, bytes: usize, alignment: usize, wish: CUdeviceptr, flags: u64) -> u32;
    "10.2" fn cuMemAddressFree(address: CUdeviceptr, bytes: usize) -> u32;
    "10.2" fn cuMemCreate(memory: *mut sys::CUmemGenericAllocationHandle, bytes: usize, what: *const sys::CUmemAllocationProp, flags: u64) -> u32;
    "10.2" fn cuMemRelease(memory: sys::CUmemGenericAllocationHandle) -> u32;
    "10.2" fn cuMemMap(address: CUdeviceptr, bytes: usize, from: usize, memory: sys::CUmemGenericAllocationHandle, flags: u64) -> u32;
    "10.2" fn cuMemUnmap(address: CUdeviceptr, bytes: usize) -> u32;
    "10.2" fn cuMemSetAccess(address: CUdeviceptr, bytes: usize, who: *const sys::CUmemAccessDesc, count: usize) -> u32;
    "2.0" fn cuStreamCreate(stream: *mut CUstream, flags: u32) -> u32;
    "5.5" fn cuStreamCreateWithPriority(stream: *mut CUstream, flags: u32, priority: i32) -> u32;
    "5.5" fn cuCtxGetStreamPriorityRange(least: *mut i32, greatest: *mut i32) -> u32;
    "4.0" fn cuStreamDestroy_v2(stream: CUstream) -> u32;
    "2.0" fn cuStreamSynchronize(stream: CUstream) -> u32;
    "3.2" fn cuStreamWaitEvent(stream: CUstream, event: CUevent, flags: u32) -> u32;
    "10.1" fn cuStreamBeginCapture_v2(stream: CUstream, mode: sys::CUstreamCaptureMode) -> u32;
    "10.0" fn cuStreamEndCapture(stream: CUstream, graph: *mut CUgraph) -> u32;
    "11.4" fn cuGraphInstantiateWithFlags(exec: *mut CUgraphExec, graph: CUgraph, flags: u64) -> u32;
    "10.0" fn cuGraphLaunch(exec: CUgraphExec, stream: CUstream) -> u32;
    "10.0" fn cuGraphDestroy(graph: CUgraph) -> u32;
    "10.0" fn cuGraphExecDestroy(exec: CUgraphExec) -> u32;
    "2.0" fn cuEventCreate(event: *mut CUevent, flags: u32) -> u32;
    "2.0" fn cuEventRecord(event: CUevent, stream: CUstream) -> u32;
    "2.0" fn cuEventQuery(event: CUevent) -> u32;
    "2.0" fn cuEventSynchronize(event: CUevent) -> u32;
    "2.0" fn cuEventElapsedTime(milliseconds: *mut f32, from: CUevent, to: CUevent) -> u32;
    "4.0" fn cuEventDestroy_v2(event: CUevent) -> u32;
    "2.0" fn cuModuleLoadData(module: *mut CUmodule, image: *const c_void) -> u32;
    "2.0" fn cuModuleGetFunction(function: *mut CUfunction, module: CUmodule, name: *const c_char) -> u32;
    "2.2" fn cuFuncGetAttribute(value: *mut i32, attribute: sys::CUfunction_attribute, function: CUfunction) -> u32;
    "9.0" fn cuFuncSetAttribute(function: CUfunction, attribute: sys::CUfunction_attribute, value: i32) -> u32;
    "4.0" fn cuLaunchKernel(
        function: CUfunction,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: CUstream,
        arguments: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> u32;
    "12.0" fn cuTensorMapEncodeTiled(
        map: *mut Map,
        element: sys::CUtensorMapDataType,
        rank: u32,
        address: *mut c_void,
        extents: *const u64,
        strides: *const u64,
        tile: *const u32,
        steps: *const u32,
        interleave: sys::CUtensorMapInterleave,
        swizzle: sys::CUtensorMapSwizzle,
        promotion: sys::CUtensorMapL2promotion,
        outside: sys::CUtensorMapFloatOOBfill,
    ) -> u32;
}
