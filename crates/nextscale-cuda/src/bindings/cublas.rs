//! Matrix products.

use crate::libraries::Library;
use cudarc::cublaslt::sys;
use std::ffi::c_void;
use sys::{
    cublasLtHandle_t as Handle, cublasLtMatmulDesc_t as Desc,
    cublasLtMatmulPreference_t as Preference, cublasLtMatrixLayout_t as Layout,
};

/// An algorithm that the library proposes, as it writes it.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Proposal {
    pub(crate) algorithm: sys::cublasLtMatmulAlgo_t,
    pub(crate) workspace: usize,
    _state: u32,
    _waves: f32,
    _reserved: [i32; 4],
}

const _: () = assert!(size_of::<Proposal>() == size_of::<sys::cublasLtMatmulHeuristicResult_t>());

functions! { Library::CublasLt;
    "10.1" fn cublasLtCreate(handle: *mut Handle) -> u32;
    "10.1" fn cublasLtMatmul(
        handle: Handle,
        desc: Desc,
        alpha: *const c_void,
        a: *const c_void,
        a_layout: Layout,
        b: *const c_void,
        b_layout: Layout,
        beta: *const c_void,
        c: *const c_void,
        c_layout: Layout,
        d: *mut c_void,
        d_layout: Layout,
        algorithm: *const sys::cublasLtMatmulAlgo_t,
        workspace: *mut c_void,
        workspace_bytes: usize,
        stream: sys::cudaStream_t,
    ) -> u32;
    "10.1" fn cublasLtMatmulAlgoGetHeuristic(
        handle: Handle,
        desc: Desc,
        a: Layout,
        b: Layout,
        c: Layout,
        d: Layout,
        preference: Preference,
        wanted: i32,
        proposals: *mut Proposal,
        count: *mut i32,
    ) -> u32;
    "11.0" fn cublasLtMatmulDescCreate(
        desc: *mut Desc,
        compute: sys::cublasComputeType_t,
        scale: sys::cudaDataType,
    ) -> u32;
    "10.1" fn cublasLtMatmulDescSetAttribute(
        desc: Desc,
        attribute: sys::cublasLtMatmulDescAttributes_t,
        value: *const c_void,
        bytes: usize,
    ) -> u32;
    "10.1" fn cublasLtMatmulPreferenceCreate(preference: *mut Preference) -> u32;
    "10.1" fn cublasLtMatmulPreferenceDestroy(preference: Preference) -> u32;
    "10.1" fn cublasLtMatmulPreferenceSetAttribute(
        preference: Preference,
        attribute: sys::cublasLtMatmulPreferenceAttributes_t,
        value: *const c_void,
        bytes: usize,
    ) -> u32;
    "10.1" fn cublasLtMatrixLayoutCreate(
        layout: *mut Layout,
        element: sys::cudaDataType,
        rows: u64,
        columns: u64,
        leading: i64,
    ) -> u32;
    "10.1" fn cublasLtMatrixLayoutSetAttribute(
        layout: Layout,
        attribute: sys::cublasLtMatrixLayoutAttribute_t,
        value: *const c_void,
        bytes: usize,
    ) -> u32;
}
