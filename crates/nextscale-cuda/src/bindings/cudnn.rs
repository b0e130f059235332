//! Convolutions: cuDNN's graph interface. Versions are cuDNN's own.

use crate::libraries::Library;
use cudarc::cudnn::sys::{
    cudaStream_t, cudnnBackendAttributeName_t as Name, cudnnBackendAttributeType_t as Type,
    cudnnBackendDescriptor_t as Descriptor, cudnnBackendDescriptorType_t as Kind, cudnnHandle_t,
};
use std::ffi::{c_char, c_void};

functions! { Library::Cudnn;
    "1.0" fn cudnnCreate(handle: *mut cudnnHandle_t) -> u32;
    "1.0" fn cudnnSetStream(handle: cudnnHandle_t, stream: cudaStream_t) -> u32;
    "9.0" fn cudnnGetLastErrorString(text: *mut c_char, room: usize) -> ();
    "8.0" fn cudnnBackendCreateDescriptor(kind: Kind, descriptor: *mut Descriptor) -> u32;
    "8.0" fn cudnnBackendDestroyDescriptor(descriptor: Descriptor) -> u32;
    "8.0" fn cudnnBackendFinalize(descriptor: Descriptor) -> u32;
    "8.0" fn cudnnBackendSetAttribute(
        descriptor: Descriptor,
        name: Name,
        kind: Type,
        count: i64,
        values: *const c_void,
    ) -> u32;
    "8.0" fn cudnnBackendGetAttribute(
        descriptor: Descriptor,
        name: Name,
        kind: Type,
        room: i64,
        count: *mut i64,
        values: *mut c_void,
    ) -> u32;
    "8.0" fn cudnnBackendExecute(handle: cudnnHandle_t, plan: Descriptor, pack: Descriptor) -> u32;
}
