//! Calls of the driver, with its codes as results. What a call asks of its handles and addresses is the driver's documentation's.

use crate::bindings::driver as raw;
use cudarc::driver::sys::{self, CUresult};
use std::ffi::{CStr, c_void};
use std::ptr::null_mut;

/// A code of the driver other than success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DriverError(pub(crate) u32);

impl DriverError {
    /// What the driver itself says of it.
    pub(crate) fn said(self) -> Option<String> {
        let mut text = std::ptr::null();
        // SAFETY: points at a pointer, which becomes one to a string that is never freed.
        let code = unsafe { raw::cuGetErrorString(self.0, &mut text) };
        if code != 0 || text.is_null() {
            return None;
        }
        // SAFETY: as above; the string ends with a zero byte.
        Some(
            unsafe { CStr::from_ptr(text) }
                .to_string_lossy()
                .into_owned(),
        )
    }
}

/// A call's result.
pub(crate) type Answer<T> = Result<T, DriverError>;

fn done(code: u32) -> Answer<()> {
    if code == 0 {
        Ok(())
    } else {
        Err(DriverError(code))
    }
}

/// What a call writes.
fn written<T>(nothing: T, call: impl FnOnce(*mut T) -> u32) -> Answer<T> {
    let mut value = nothing;
    done(call(&mut value))?;
    Ok(value)
}

/// Starts the driver.
pub(crate) fn start() -> Answer<()> {
    // SAFETY: asks for nothing.
    done(unsafe { raw::cuInit(0) })
}

/// GPUs.
pub(crate) mod device {
    use super::*;

    pub(crate) fn count() -> Answer<i32> {
        // SAFETY: the pointer is to a live number.
        written(0, |n| unsafe { raw::cuDeviceGetCount(n) })
    }

    pub(crate) fn get(ordinal: i32) -> Answer<sys::CUdevice> {
        // SAFETY: as above.
        written(0, |d| unsafe { raw::cuDeviceGet(d, ordinal) })
    }

    pub(crate) fn name(device: sys::CUdevice) -> Answer<String> {
        let mut text = [0u8; 256];
        // SAFETY: the driver writes at most as many bytes as it is told, the last of them zero.
        done(unsafe { raw::cuDeviceGetName(text.as_mut_ptr().cast(), text.len() as i32, device) })?;
        let length = text.iter().position(|b| *b == 0).unwrap_or(text.len());
        Ok(String::from_utf8_lossy(&text[..length]).into_owned())
    }

    pub(crate) fn attribute(device: sys::CUdevice, what: sys::CUdevice_attribute) -> Answer<i32> {
        // SAFETY: the pointer is to a live number; a number that is no device is refused.
        written(0, |v| unsafe { raw::cuDeviceGetAttribute(v, what, device) })
    }

    pub(crate) fn memory(device: sys::CUdevice) -> Answer<usize> {
        // SAFETY: as above.
        written(0, |n| unsafe { raw::cuDeviceTotalMem_v2(n, device) })
    }

    /// The GPU's primary context.
    pub(crate) fn retain(device: sys::CUdevice) -> Answer<sys::CUcontext> {
        // SAFETY: as above.
        written(null_mut(), |c| unsafe {
            raw::cuDevicePrimaryCtxRetain(c, device)
        })
    }

    /// Makes a context the calling thread's.
    pub(crate) unsafe fn bind(context: sys::CUcontext) -> Answer<()> {
        // SAFETY: the caller's context lives.
        done(unsafe { raw::cuCtxSetCurrent(context) })
    }
}

/// Memory and copies.
pub(crate) mod memory {
    use super::*;

    /// Bytes that are free, and all.
    pub(crate) fn info() -> Answer<(usize, usize)> {
        let mut all = 0;
        // SAFETY: both pointers are to live numbers.
        let free = written(0, |free| unsafe { raw::cuMemGetInfo_v2(free, &mut all) })?;
        Ok((free, all))
    }

    pub(crate) fn take(bytes: usize) -> Answer<u64> {
        // SAFETY: the pointer is to a live number.
        written(0, |at| unsafe { raw::cuMemAlloc_v2(at, bytes) })
    }

    pub(crate) unsafe fn free(address: u64) -> Answer<()> {
        // SAFETY: the caller's block, which nobody uses.
        done(unsafe { raw::cuMemFree_v2(address) })
    }

    /// Page-locked host memory that every GPU may use.
    pub(crate) fn take_pinned(bytes: usize) -> Answer<*mut c_void> {
        // SAFETY: the pointer is to a live pointer.
        written(null_mut(), |at| unsafe {
            raw::cuMemHostAlloc(at, bytes, sys::CU_MEMHOSTALLOC_PORTABLE)
        })
    }

    pub(crate) unsafe fn upload(to: u64, from: &[u8], stream: sys::CUstream) -> Answer<()> {
        // SAFETY: the target is as long as the source, which the caller leaves alone until the copy is done.
        done(unsafe { raw::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), from.len(), stream) })
    }

    pub(crate) unsafe fn download(to: &mut [u8], from: u64, stream: sys::CUstream) -> Answer<()> {
        // SAFETY: the source is as long as the target, which the caller leaves alone until the copy is done.
        done(unsafe { raw::cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from, to.len(), stream) })
    }

    pub(crate) unsafe fn copy(
        to: u64,
        from: u64,
        bytes: usize,
        stream: sys::CUstream,
    ) -> Answer<()> {
        // SAFETY: both ranges are the caller's.
        done(unsafe { raw::cuMemcpyDtoDAsync_v2(to, from, bytes, stream) })
    }

    pub(crate) unsafe fn zero(to: u64, bytes: usize, stream: sys::CUstream) -> Answer<()> {
        // SAFETY: the range is the caller's.
        done(unsafe { raw::cuMemsetD8Async(to, 0, bytes, stream) })
    }
}

/// Addresses apart from memory (CUDA driver API, "Virtual Memory Management").
pub(crate) mod mapping {
    use super::*;

    /// Memory of this GPU.
    fn of(ordinal: i32) -> sys::CUmemAllocationProp {
        // SAFETY: a plain struct of numbers and a pointer, for all of which zero is a value.
        let mut what: sys::CUmemAllocationProp = unsafe { std::mem::zeroed() };
        what.type_ = sys::CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED;
        what.location = place(ordinal);
        what
    }

    fn place(ordinal: i32) -> sys::CUmemLocation {
        // SAFETY: as above.
        let mut place: sys::CUmemLocation = unsafe { std::mem::zeroed() };
        place.type_ = sys::CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE;
        place.id = ordinal;
        place
    }

    /// Bytes of a page: addresses and lengths are multiples of it.
    pub(crate) fn page(ordinal: i32) -> Answer<usize> {
        let least = sys::CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
        // SAFETY: both pointers are to live values.
        written(0, |bytes| unsafe {
            raw::cuMemGetAllocationGranularity(bytes, &of(ordinal), least)
        })
    }

    /// Addresses for whole pages, with nothing behind them.
    pub(crate) fn reserve(bytes: usize) -> Answer<u64> {
        // SAFETY: the pointer is to a live number.
        written(0, |at| unsafe {
            raw::cuMemAddressReserve(at, bytes, 0, 0, 0)
        })
    }

    pub(crate) unsafe fn unreserve(address: u64, bytes: usize) -> Answer<()> {
        // SAFETY: the caller's addresses, behind which there is nothing any more.
        done(unsafe { raw::cuMemAddressFree(address, bytes) })
    }

    /// Puts new memory behind whole pages of reserved addresses.
    pub(crate) unsafe fn back(address: u64, bytes: usize, ordinal: i32) -> Answer<()> {
        // SAFETY: both pointers are to live values.
        let memory = written(0, |m| unsafe {
            raw::cuMemCreate(m, bytes, &of(ordinal), 0)
        })?;
        // SAFETY: the caller's addresses, with nothing behind them; the memory is as long.
        let mapped = done(unsafe { raw::cuMemMap(address, bytes, 0, memory, 0) });
        // SAFETY: as long as it is mapped it stays, without its handle.
        let released = done(unsafe { raw::cuMemRelease(memory) });
        mapped.and(released)?;
        // SAFETY: as above.
        let mut who: sys::CUmemAccessDesc = unsafe { std::mem::zeroed() };
        who.location = place(ordinal);
        who.flags = sys::CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        // SAFETY: mapped just now; the pointer is to a live value.
        let allowed = done(unsafe { raw::cuMemSetAccess(address, bytes, &who, 1) });
        if allowed.is_err() {
            // SAFETY: mapped just now, used by nobody.
            let _ = unsafe { unback(address, bytes) };
        }
        allowed
    }

    /// Takes away what [`back`] put there.
    pub(crate) unsafe fn unback(address: u64, bytes: usize) -> Answer<()> {
        // SAFETY: the caller's pages, which nobody uses.
        done(unsafe { raw::cuMemUnmap(address, bytes) })
    }
}

/// Streams.
pub(crate) mod stream {
    use super::*;

    /// One that does not wait for the default stream.
    pub(crate) fn create() -> Answer<sys::CUstream> {
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the pointer is to a live handle.
        written(null_mut(), |s| unsafe { raw::cuStreamCreate(s, flags) })
    }

    /// The same; of work that waits for the GPU its own comes before that of other streams.
    pub(crate) fn create_first() -> Answer<sys::CUstream> {
        let mut greatest = 0;
        // SAFETY: both pointers are to live numbers.
        done(unsafe { raw::cuCtxGetStreamPriorityRange(&mut 0, &mut greatest) })?;
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: the pointer is to a live handle.
        written(null_mut(), |s| unsafe {
            raw::cuStreamCreateWithPriority(s, flags, greatest)
        })
    }

    pub(crate) unsafe fn destroy(stream: sys::CUstream) -> Answer<()> {
        // SAFETY: the caller's stream, destroyed once.
        done(unsafe { raw::cuStreamDestroy_v2(stream) })
    }

    pub(crate) unsafe fn synchronize(stream: sys::CUstream) -> Answer<()> {
        // SAFETY: the caller's stream lives.
        done(unsafe { raw::cuStreamSynchronize(stream) })
    }

    pub(crate) unsafe fn wait_event(stream: sys::CUstream, event: sys::CUevent) -> Answer<()> {
        // SAFETY: the caller's stream and event live.
        done(unsafe { raw::cuStreamWaitEvent(stream, event, 0) })
    }

    /// What other threads ask the driver for meanwhile is let be.
    pub(crate) unsafe fn begin_capture(stream: sys::CUstream) -> Answer<()> {
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
        // SAFETY: the caller's stream lives.
        done(unsafe { raw::cuStreamBeginCapture_v2(stream, mode) })
    }

    pub(crate) unsafe fn end_capture(stream: sys::CUstream) -> Answer<sys::CUgraph> {
        // SAFETY: the caller's stream lives; the pointer is to a live handle.
        written(null_mut(), |g| unsafe {
            raw::cuStreamEndCapture(stream, g)
        })
    }
}

/// Graphs.
pub(crate) mod graph {
    use super::*;

    pub(crate) unsafe fn instantiate(graph: sys::CUgraph) -> Answer<sys::CUgraphExec> {
        // SAFETY: the caller's graph lives; the pointer is to a live handle.
        written(null_mut(), |e| unsafe {
            raw::cuGraphInstantiateWithFlags(e, graph, 0)
        })
    }

    pub(crate) unsafe fn launch(exec: sys::CUgraphExec, stream: sys::CUstream) -> Answer<()> {
        // SAFETY: the caller's handles live.
        done(unsafe { raw::cuGraphLaunch(exec, stream) })
    }

    pub(crate) unsafe fn destroy(graph: sys::CUgraph) -> Answer<()> {
        // SAFETY: the caller's graph, destroyed once.
        done(unsafe { raw::cuGraphDestroy(graph) })
    }

    pub(crate) unsafe fn exec_destroy(exec: sys::CUgraphExec) -> Answer<()> {
        // SAFETY: the caller's handle, destroyed once.
        done(unsafe { raw::cuGraphExecDestroy(exec) })
    }
}

/// Events.
pub(crate) mod event {
    use super::*;

    pub(crate) fn create(flags: sys::CUevent_flags) -> Answer<sys::CUevent> {
        // SAFETY: the pointer is to a live handle.
        written(null_mut(), |e| unsafe {
            raw::cuEventCreate(e, flags as u32)
        })
    }

    pub(crate) unsafe fn record(event: sys::CUevent, stream: sys::CUstream) -> Answer<()> {
        // SAFETY: the caller's handles live.
        done(unsafe { raw::cuEventRecord(event, stream) })
    }

    pub(crate) unsafe fn synchronize(event: sys::CUevent) -> Answer<()> {
        // SAFETY: the caller's event lives.
        done(unsafe { raw::cuEventSynchronize(event) })
    }

    /// Whether what was before it is done, or failed.
    pub(crate) unsafe fn has_passed(event: sys::CUevent) -> bool {
        // SAFETY: the caller's event lives.
        unsafe { raw::cuEventQuery(event) != CUresult::CUDA_ERROR_NOT_READY as u32 }
    }

    /// Milliseconds between two events.
    pub(crate) unsafe fn elapsed(from: sys::CUevent, to: sys::CUevent) -> Answer<f32> {
        // SAFETY: the caller's events live; the pointer is to a live number.
        written(0.0, |ms| unsafe { raw::cuEventElapsedTime(ms, from, to) })
    }

    pub(crate) unsafe fn destroy(event: sys::CUevent) -> Answer<()> {
        // SAFETY: the caller's event, destroyed once.
        done(unsafe { raw::cuEventDestroy_v2(event) })
    }
}

/// Kernels.
pub(crate) mod kernel {
    use super::*;

    /// Loads machine code into the current context.
    pub(crate) unsafe fn load(code: &[u8]) -> Answer<sys::CUmodule> {
        // SAFETY: the caller's code is a whole cubin, read during the call.
        written(null_mut(), |m| unsafe {
            raw::cuModuleLoadData(m, code.as_ptr().cast())
        })
    }

    pub(crate) unsafe fn find(module: sys::CUmodule, name: &CStr) -> Answer<sys::CUfunction> {
        // SAFETY: the caller's module is loaded; the pointer is to a live handle.
        written(null_mut(), |f| unsafe {
            raw::cuModuleGetFunction(f, module, name.as_ptr())
        })
    }

    /// Bytes of shared memory that its source lays out.
    pub(crate) unsafe fn shared(function: sys::CUfunction) -> Answer<i32> {
        let what = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES;
        // SAFETY: the caller's function lives; the pointer is to a live number.
        written(0, |v| unsafe { raw::cuFuncGetAttribute(v, what, function) })
    }

    /// Lets it have so many bytes of dynamic shared memory.
    pub(crate) unsafe fn allow(function: sys::CUfunction, bytes: u32) -> Answer<()> {
        let what = sys::CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the caller's function lives.
        done(unsafe { raw::cuFuncSetAttribute(function, what, bytes as i32) })
    }

    pub(crate) unsafe fn launch(
        function: sys::CUfunction,
        [x, y, z]: [u32; 3],
        (threads, shared): (u32, u32),
        stream: sys::CUstream,
        arguments: &[*const c_void],
    ) -> Answer<()> {
        // SAFETY: the caller's handles live, and the arguments are what the function declares; they are only read.
        done(unsafe {
            raw::cuLaunchKernel(
                function,
                x,
                y,
                z,
                threads,
                1,
                1,
                shared,
                stream,
                arguments.as_ptr().cast_mut().cast(),
                null_mut(),
            )
        })
    }
}
