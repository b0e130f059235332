//! Descriptions of products for the library, and which of its algorithms runs them: measured once, kept on disk.

use super::{Batch, Call, Product, code};
use crate::bindings::cublas as lt;
use crate::cache;
use crate::gpu::Gpu;
use crate::libraries::Library;
use crate::pool::DeviceBuffer;
use crate::timing::fastest;
use crate::{DType, Error, Result};
use cudarc::cublaslt::sys::{self, cublasLtMatmulDescAttributes_t as Attribute};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;

/// Most bytes of scratch memory that an algorithm may take.
pub(super) const WORKSPACE: usize = 64 << 20;
/// Algorithms that are tried.
const TRIED: usize = 8;
/// Runs of each; the fastest counts.
const RUNS: usize = 5;

/// What is needed to ask for a kind of product again.
struct Plan {
    desc: sys::cublasLtMatmulDesc_t,
    /// Of the library's A, B and C, which are our B, A and C.
    layouts: [sys::cublasLtMatrixLayout_t; 3],
    algorithm: sys::cublasLtMatmulAlgo_t,
    workspace: usize,
}

/// The library's handle and the plans of one GPU.
pub(crate) struct Matmul {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<(Product, Batch, u32), Plan>,
}
// SAFETY: the library's objects may be used from any thread, one at a time; they are only reached through a mutex.
unsafe impl Send for Matmul {}

/// Filled at the first product.
pub(crate) type Slot = Mutex<Option<Matmul>>;

fn check(doing: &str, status: u32) -> Result<()> {
    use sys::cublasStatus_t as S;
    if status == S::CUBLAS_STATUS_SUCCESS as u32 {
        return Ok(());
    }
    let known = [
        S::CUBLAS_STATUS_NOT_SUPPORTED,
        S::CUBLAS_STATUS_ALLOC_FAILED,
        S::CUBLAS_STATUS_INVALID_VALUE,
        S::CUBLAS_STATUS_ARCH_MISMATCH,
    ];
    let status = known.into_iter().find(|s| *s as u32 == status);
    let why = match status {
        Some(S::CUBLAS_STATUS_NOT_SUPPORTED) => "the library has no algorithm for it",
        Some(S::CUBLAS_STATUS_ALLOC_FAILED) => "the GPU's memory is full",
        Some(S::CUBLAS_STATUS_INVALID_VALUE) => "its operands do not fit each other",
        Some(S::CUBLAS_STATUS_ARCH_MISMATCH) => "the GPU can't do it",
        _ => "cuBLASLt could not run it",
    };
    let text = format!("{doing}: {why}");
    Err(match status {
        Some(S::CUBLAS_STATUS_ALLOC_FAILED) => Error::Memory(text),
        _ => Error::Device(text),
    })
}

impl Matmul {
    pub(super) fn open() -> Result<Self> {
        Library::CublasLt.required()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: points at a handle; a context is current.
        check("starting cuBLASLt", unsafe {
            lt::cublasLtCreate(&mut handle)
        })?;
        Ok(Self {
            handle,
            plans: HashMap::new(),
        })
    }

    /// Puts a product into the stream; of a kind that was never run the algorithm is chosen first.
    ///
    /// # Safety
    /// The addresses of `call` are those of operands of `gpu` as long as `p` and `batch` say.
    pub(super) unsafe fn go(
        &mut self,
        gpu: &'static Gpu,
        p: &Product,
        batch: &Batch,
        alignment: u32,
        call: Call,
    ) -> Result<()> {
        let key = (*p, *batch, alignment);
        if !self.plans.contains_key(&key) {
            gpu.outside_capture("choosing the algorithm of a product that was never run")?;
            let plan = self.plan(gpu, p, batch, alignment, call)?;
            self.plans.insert(key, plan);
        }
        let Some(plan) = self.plans.get(&key) else {
            return Err(Error::Device("matmul: the plan is gone".into()));
        };
        plan.point(call)?;
        let workspace = DeviceBuffer::new(gpu, plan.workspace)?;
        // SAFETY: operands are as the caller says; the workspace is as long as the algorithm asked for.
        unsafe { self.run(gpu, plan, p, call, &workspace) }
    }

    /// Describes a product and chooses its algorithm.
    fn plan(
        &self,
        gpu: &'static Gpu,
        p: &Product,
        batch: &Batch,
        alignment: u32,
        call: Call,
    ) -> Result<Plan> {
        let doing = format!(
            "matmul {}×{}×{} {:?}→{:?} {:?}",
            p.m, p.n, p.k, p.operands, p.result, p.epilogue
        );
        let compute = match (p.operands, p.tf32) {
            (DType::F32, true) => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
            _ => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
        };
        let (mut desc, mut layouts) = (std::ptr::null_mut(), [std::ptr::null_mut(); 3]);
        // The library's A, B and C, in its order; its rows are our columns.
        let types = [p.operands, p.operands, p.result];
        let order = [1, 0, 2].map(|i| (types[i], p.stored()[i], batch.rows[i], batch.steps[i]));
        let count = batch.count as i32;
        // SAFETY: every pointer is to a live value of the size given; descriptors live as long as the process.
        unsafe {
            check(
                &doing,
                lt::cublasLtMatmulDescCreate(&mut desc, compute, code(DType::F32)),
            )?;
            for (layout, (element, (rows, cols), row, step)) in layouts.iter_mut().zip(order) {
                let (rows, cols) = (rows as u64, cols as u64);
                let code = code(element);
                let made = lt::cublasLtMatrixLayoutCreate(layout, code, cols, rows, row as i64);
                check(&doing, made)?;
                if batch.count == 1 {
                    continue;
                }
                use sys::cublasLtMatrixLayoutAttribute_t as Of;
                let (step, size) = (step as i64, size_of::<i64>());
                let (many, apart) = ((&raw const count).cast(), (&raw const step).cast());
                let many_of = Of::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
                let apart_of = Of::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
                let told = lt::cublasLtMatrixLayoutSetAttribute(*layout, many_of, many, 4);
                check(&doing, told)?;
                let told = lt::cublasLtMatrixLayoutSetAttribute(*layout, apart_of, apart, size);
                check(&doing, told)?;
            }
        }
        let empty = sys::cublasLtMatmulAlgo_t { data: [0; 8] };
        let mut plan = Plan {
            desc,
            layouts,
            algorithm: empty,
            workspace: 0,
        };
        let turned = |t: bool| i32::from(t);
        // SAFETY: two 32-bit integers, an enum of 32 bits and a 64-bit integer, as the library's documentation says.
        unsafe {
            plan.set(
                Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
                &turned(p.b_transposed),
            )?;
            plan.set(
                Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
                &turned(p.a_transposed),
            )?;
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &p.epilogue.code())?;
            if p.epilogue.has_aux() {
                let ld = p.n as i64;
                plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld)?;
            }
        }
        plan.point(call)?;
        let version = Library::CublasLt.version();
        let driver = Library::Driver.version();
        let name = format!(
            "{p:?} {batch:?} {alignment} {} {version:?} {driver:?}",
            gpu.info().name
        );
        let _lock = match cache::choice_or_lock(gpu, "matmul", || cached_choice(&name)) {
            Ok((algorithm, workspace)) => {
                plan.algorithm = algorithm;
                plan.workspace = workspace;
                return Ok(plan);
            }
            Err(lock) => lock,
        };
        self.choose(gpu, p, batch, alignment, call, &mut plan, &doing)?;
        let mut bytes: Vec<u8> = plan
            .algorithm
            .data
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        bytes.extend((plan.workspace as u64).to_le_bytes());
        cache::store("matmul", &name, &bytes);
        Ok(plan)
    }

    /// Measures what the library proposes, on memory of its own so that results stay as they are.
    #[expect(
        clippy::too_many_arguments,
        reason = "one caller, and all of it is told apart"
    )]
    fn choose(
        &self,
        gpu: &'static Gpu,
        p: &Product,
        batch: &Batch,
        alignment: u32,
        call: Call,
        plan: &mut Plan,
        doing: &str,
    ) -> Result<()> {
        let mut found: Vec<lt::Proposal> = Vec::with_capacity(TRIED);
        let mut count = 0;
        // SAFETY: as in `plan`; the array has room for as many results as are asked for.
        unsafe {
            let mut preference = std::ptr::null_mut();
            check(doing, lt::cublasLtMatmulPreferenceCreate(&mut preference))?;
            use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
            let set = |wish: Wish, value: *const c_void, size: usize| {
                check(
                    doing,
                    lt::cublasLtMatmulPreferenceSetAttribute(preference, wish, value, size),
                )
            };
            let most = WORKSPACE;
            set(
                Wish::CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                (&raw const most).cast(),
                size_of::<usize>(),
            )?;
            let least = 1u32 << alignment;
            for wish in [
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES,
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES,
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES,
                Wish::CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES,
            ] {
                set(wish, (&raw const least).cast(), size_of::<u32>())?;
            }
            let [a, b, c] = plan.layouts;
            let status = lt::cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                plan.desc,
                a,
                b,
                c,
                c,
                preference,
                TRIED as i32,
                found.as_mut_ptr(),
                &mut count,
            );
            lt::cublasLtMatmulPreferenceDestroy(preference);
            check(doing, status)?;
            found.set_len(count.clamp(0, TRIED as i32) as usize);
        }
        let result = p.result.bytes();
        let own = |bytes: usize| DeviceBuffer::new(gpu, bytes);
        let (c, aux) = (own(batch.reach(p, 2) * result)?, own(p.m * p.n * result)?);
        let (vector, workspace) = (own(p.m.max(p.n) * result)?, own(WORKSPACE)?);
        // A pointer that what follows does not use would make the library refuse.
        let instead = |used: u64, own: &DeviceBuffer| if used == 0 { 0 } else { own.address() };
        let trial = Call {
            c: c.address(),
            vector: instead(call.vector, &vector),
            aux: instead(call.aux, &aux),
            ..call
        };
        plan.point(trial)?;
        let mut best = f32::INFINITY;
        let mut chosen = None;
        for candidate in &found {
            plan.algorithm = candidate.algorithm;
            plan.workspace = candidate.workspace;
            // SAFETY: A and B are the caller's, the rest was taken above as long as the product wants it, the workspace as
            // long as any algorithm may ask for.
            let run = || unsafe { self.run(gpu, plan, p, trial, &workspace) };
            let Ok(time) = fastest(gpu, RUNS, run) else {
                continue;
            };
            if time < best {
                best = time;
                chosen = Some((candidate.algorithm, candidate.workspace));
            }
        }
        let Some((algorithm, workspace)) = chosen else {
            return check(
                doing,
                sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED as u32,
            );
        };
        plan.algorithm = algorithm;
        plan.workspace = workspace;
        Ok(())
    }

    /// # Safety
    /// As [`Matmul::go`]; the workspace is as long as the plan says.
    unsafe fn run(
        &self,
        gpu: &'static Gpu,
        plan: &Plan,
        p: &Product,
        call: Call,
        workspace: &DeviceBuffer,
    ) -> Result<()> {
        let (alpha, beta) = (1.0f32, if p.accumulate { 1.0f32 } else { 0.0 });
        let [a, b, c] = plan.layouts;
        // SAFETY: operands and workspace are as the caller says; all memory goes
        // back to the pool only for work that comes later in the stream.
        let status = unsafe {
            lt::cublasLtMatmul(
                self.handle,
                plan.desc,
                (&raw const alpha).cast(),
                call.a as *const c_void,
                a,
                call.b as *const c_void,
                b,
                (&raw const beta).cast(),
                call.c as *const c_void,
                c,
                call.c as *mut c_void,
                c,
                &plan.algorithm,
                workspace.address() as *mut c_void,
                plan.workspace,
                gpu.stream().cast(),
            )
        };
        check("matmul", status)
    }
}

impl Plan {
    /// # Safety
    /// `T` is the attribute's type.
    unsafe fn set<T>(&self, attribute: Attribute, value: &T) -> Result<()> {
        // SAFETY: the descriptor is alive, the value as large as said and of the attribute's type.
        let status = unsafe {
            lt::cublasLtMatmulDescSetAttribute(
                self.desc,
                attribute,
                std::ptr::from_ref(value).cast(),
                size_of::<T>(),
            )
        };
        check("describing a matmul", status)
    }

    /// Puts the addresses that belong to the description into it.
    fn point(&self, call: Call) -> Result<()> {
        // SAFETY: both are addresses on the GPU.
        unsafe {
            if call.vector != 0 {
                self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &call.vector)?;
            }
            if call.aux != 0 {
                self.set(
                    Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                    &call.aux,
                )?;
            }
        }
        Ok(())
    }
}

fn cached_choice(name: &str) -> Option<(sys::cublasLtMatmulAlgo_t, usize)> {
    let bytes = cache::load("matmul", name)?;
    let words: Vec<u64> = bytes
        .as_chunks::<8>()
        .0
        .iter()
        .map(|w| u64::from_le_bytes(*w))
        .collect();
    let (data, workspace) = words.split_first_chunk::<8>()?;
    let &[workspace] = workspace else {
        return None;
    };
    Some((
        sys::cublasLtMatmulAlgo_t { data: *data },
        workspace as usize,
    ))
}
