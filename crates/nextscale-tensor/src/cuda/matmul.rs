//! Matrix products by cuBLASLt: row-major operands, sums in float32, and what follows a product done by the product.
//!
//! The library counts columns first, so C = A·B is asked for as Cᵀ = Bᵀ·Aᵀ and nothing is moved. The algorithm of a
//! shape is chosen once by measuring those that the library proposes, and the choice is kept on disk: a run that is
//! repeated takes the same one and adds in the same order.

use super::gpu::Gpu;
use super::graph::Turn;
use super::kept;
use super::libraries::Library;
use super::pool::DeviceBuffer;
use super::timing::fastest;
use crate::{Error, Result};
use cudarc::cublaslt::sys::{self, cublasLtMatmulDescAttributes_t as Attribute};
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Mutex;

/// Element types of operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Element {
    /// 32-bit float.
    F32,
    /// The upper half of a 32-bit float.
    Bf16,
    /// IEEE half precision.
    F16,
}

impl Element {
    /// Bytes of one.
    pub fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    fn code(self) -> sys::cudaDataType {
        match self {
            Self::F32 => sys::cudaDataType_t::CUDA_R_32F,
            Self::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
            Self::F16 => sys::cudaDataType_t::CUDA_R_16F,
        }
    }
}

/// What a product does to its result before writing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Follow {
    /// Nothing.
    Plain,
    /// Adds a vector of n to every row.
    Bias,
    /// Adds the vector, writes that to `aux`, then applies GELU (tanh form).
    BiasGelu,
    /// Adds the vector and applies GELU: [`Follow::BiasGelu`] without `aux`.
    BiasGeluOnly,
    /// Multiplies by GELU's slope at `aux`: the gradient before an activation from the one behind it.
    GeluSlope,
    /// The same, and writes the column sums of the result, n, to `vector`.
    GeluSlopeSums,
    /// Writes the row sums of A, m, to `vector`: with A = dyᵀ the gradient of a bias.
    RowSums,
}

impl Follow {
    fn code(self) -> sys::cublasLtEpilogue_t {
        use sys::cublasLtEpilogue_t as E;
        match self {
            Self::Plain => E::CUBLASLT_EPILOGUE_DEFAULT,
            Self::Bias => E::CUBLASLT_EPILOGUE_BIAS,
            Self::BiasGelu => E::CUBLASLT_EPILOGUE_GELU_AUX_BIAS,
            Self::BiasGeluOnly => E::CUBLASLT_EPILOGUE_GELU_BIAS,
            Self::GeluSlope => E::CUBLASLT_EPILOGUE_DGELU,
            Self::GeluSlopeSums => E::CUBLASLT_EPILOGUE_DGELU_BGRAD,
            Self::RowSums => E::CUBLASLT_EPILOGUE_BGRADB,
        }
    }

    fn has_vector(self) -> bool {
        !matches!(self, Self::Plain | Self::GeluSlope)
    }

    fn has_aux(self) -> bool {
        matches!(self, Self::BiasGelu | Self::GeluSlope | Self::GeluSlopeSums)
    }
}

/// The kind of a product: everything but the operands' places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of every sum.
    pub k: usize,
    /// Element type of A and B.
    pub operands: Element,
    /// Element type of C, the vector and `aux`.
    pub result: Element,
    /// A lies as k×m instead of m×k.
    pub a_transposed: bool,
    /// B lies as n×k instead of k×n.
    pub b_transposed: bool,
    /// Adds to what C holds.
    pub accumulate: bool,
    /// Rounds float32 operands to TF32.
    pub tf32: bool,
    /// What follows.
    pub follow: Follow,
}

impl Product {
    /// Rows and columns of A, B and C as they lie.
    fn stored(&self) -> [(usize, usize); 3] {
        let turned =
            |t: bool, rows: usize, cols: usize| if t { (cols, rows) } else { (rows, cols) };
        [
            turned(self.a_transposed, self.m, self.k),
            turned(self.b_transposed, self.k, self.n),
            (self.m, self.n),
        ]
    }
}

/// Several products of one kind whose operands lie at even distances; in elements, for A, B and C.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Products.
    pub count: usize,
    /// From one row of an operand, as it lies, to the next.
    pub rows: [usize; 3],
    /// From one product's operand to the next one's.
    pub steps: [usize; 3],
}

impl Batch {
    /// One product of operands without gaps.
    pub fn one(p: &Product) -> Self {
        Self {
            count: 1,
            rows: p.stored().map(|(_, cols)| cols),
            steps: p.stored().map(|(rows, cols)| rows * cols),
        }
    }

    /// Elements from the first to the last of an operand.
    fn reach(&self, p: &Product, operand: usize) -> usize {
        let (rows, cols) = p.stored()[operand];
        (self.count - 1) * self.steps[operand] + (rows - 1) * self.rows[operand] + cols
    }
}

/// A place in a buffer: the buffer and the first byte.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a>(pub &'a DeviceBuffer, pub usize);

impl Place<'_> {
    /// Where it is.
    pub(super) fn address(self) -> u64 {
        self.0.address() + self.1 as u64
    }

    pub(super) fn holds(self, what: &str, bytes: usize) -> Result<u64> {
        if self.1 + bytes <= self.0.bytes() {
            return Ok(self.address());
        }
        Err(Error::Device(format!(
            "{what} needs {bytes} bytes from {} of a buffer of {}",
            self.1,
            self.0.bytes()
        )))
    }
}

/// The operands of one product.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// The left factor.
    pub a: Place<'a>,
    /// The right factor.
    pub b: Place<'a>,
    /// The result.
    pub c: Place<'a>,
    /// The bias, or the sums that come out, where [`Follow`] has one.
    pub vector: Option<Place<'a>>,
    /// The activation's input, m×n, where [`Follow`] has one.
    pub aux: Option<Place<'a>>,
}

/// Most bytes of scratch memory that an algorithm may take.
const WORKSPACE: usize = 64 << 20;
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
pub(super) struct Matmul {
    handle: sys::cublasLtHandle_t,
    plans: HashMap<(Product, Batch, u32), Plan>,
}
// SAFETY: the library's objects may be used from any thread, one at a time; they are only reached through a mutex.
unsafe impl Send for Matmul {}

/// Filled at the first product.
pub(super) type Slot = Mutex<Option<Matmul>>;

/// Addresses of one call, in the library's order.
#[derive(Clone, Copy)]
struct Call {
    a: u64,
    b: u64,
    c: u64,
    vector: u64,
    aux: u64,
}

fn check(doing: &str, status: sys::cublasStatus_t) -> Result<()> {
    use sys::cublasStatus_t as S;
    let why = match status {
        S::CUBLAS_STATUS_SUCCESS => return Ok(()),
        S::CUBLAS_STATUS_NOT_SUPPORTED => "the library has no algorithm for it",
        S::CUBLAS_STATUS_ALLOC_FAILED => "the GPU's memory is full",
        S::CUBLAS_STATUS_INVALID_VALUE => "its operands do not fit each other",
        S::CUBLAS_STATUS_ARCH_MISMATCH => "the GPU can't do it",
        _ => "cuBLASLt could not run it",
    };
    let text = format!("{doing}: {why}");
    Err(match status {
        S::CUBLAS_STATUS_ALLOC_FAILED => Error::Memory(text),
        _ => Error::Device(text),
    })
}

impl Gpu {
    /// C = A·B (or C += A·B) and what follows, into the stream.
    ///
    /// # Errors
    /// When an operand does not fit, the library is missing, or it has no algorithm for the product.
    pub fn matmul(&'static self, p: &Product, o: &Operands<'_>) -> Result<()> {
        self.matmul_batch(p, &Batch::one(p), o)
    }

    /// Several products at once; the operands' places are those of the first. What follows may only be
    /// [`Follow::Plain`] where there is more than one or C has gaps.
    ///
    /// # Errors
    /// As [`Gpu::matmul`].
    pub fn matmul_batch(&'static self, p: &Product, batch: &Batch, o: &Operands<'_>) -> Result<()> {
        let (m, n, k) = (p.m, p.n, p.k);
        if m == 0 || n == 0 || k == 0 || batch.count == 0 {
            return Err(Error::Device(format!(
                "matmul: {m}×{k} by {k}×{n} is empty"
            )));
        }
        let short = batch
            .rows
            .iter()
            .zip(p.stored())
            .any(|(row, (_, cols))| *row < cols);
        let plain = batch.count == 1 && batch.rows[2] == n;
        if short || !plain && p.follow != Follow::Plain {
            return Err(Error::Device(format!(
                "matmul: {batch:?} does not go with {p:?}"
            )));
        }
        let (operand, result) = (p.operands.bytes(), p.result.bytes());
        let extra = |wanted: bool, place: Option<Place<'_>>, what: &str, bytes: usize| match place {
            Some(place) if wanted => place.holds(what, bytes),
            None if !wanted => Ok(0),
            _ => Err(Error::Device(format!(
                "matmul: {:?} and {what} do not go together",
                p.follow
            ))),
        };
        let rows = if p.follow == Follow::RowSums { m } else { n };
        let call = Call {
            a: o.b.holds("B", batch.reach(p, 1) * operand)?,
            b: o.a.holds("A", batch.reach(p, 0) * operand)?,
            c: o.c.holds("C", batch.reach(p, 2) * result)?,
            vector: extra(p.follow.has_vector(), o.vector, "vector", rows * result)?,
            aux: extra(p.follow.has_aux(), o.aux, "aux", m * n * result)?,
        };
        // Vector loads depend on how operands are aligned, and so do algorithms.
        let places = [call.a, call.b, call.c, call.aux];
        let alignment = places
            .iter()
            .fold(256u64, |all, a| all | a)
            .trailing_zeros()
            .min(8);
        if self.dry().is_some() {
            let own = [
                batch.reach(p, 2) * result,
                m * n * result,
                m.max(n) * result,
            ];
            return self.dry_product(&(*p, *batch, alignment), own, WORKSPACE);
        }
        // Before the lock: a thread that captures a graph must not wait for one that waits for the capture.
        let _turn = Turn::take();
        self.bind()?;
        let mut slot = self.matmul_slot().lock().unwrap_or_else(|e| e.into_inner());
        let library = match &mut *slot {
            Some(library) => library,
            None => slot.insert(Matmul::open()?),
        };
        let key = (*p, *batch, alignment);
        if !library.plans.contains_key(&key) {
            self.outside_capture("choosing the algorithm of a product that was never run")?;
            let plan = library.plan(self, p, batch, alignment, call)?;
            library.plans.insert(key, plan);
        }
        let Some(plan) = library.plans.get(&key) else {
            return Err(Error::Device("matmul: the plan is gone".into()));
        };
        plan.point(call)?;
        let workspace = DeviceBuffer::new(self, plan.workspace)?;
        library.run(self, plan, p, call, &workspace)
    }
}

impl Matmul {
    fn open() -> Result<Self> {
        Library::CublasLt.required()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: points at a handle; a context is current.
        check("starting cuBLASLt", unsafe {
            sys::cublasLtCreate(&mut handle)
        })?;
        Ok(Self {
            handle,
            plans: HashMap::new(),
        })
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
            p.m, p.n, p.k, p.operands, p.result, p.follow
        );
        let compute = match (p.operands, p.tf32) {
            (Element::F32, true) => sys::cublasComputeType_t::CUBLAS_COMPUTE_32F_FAST_TF32,
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
                sys::cublasLtMatmulDescCreate(&mut desc, compute, Element::F32.code()),
            )?;
            for (layout, (element, (rows, cols), row, step)) in layouts.iter_mut().zip(order) {
                let (rows, cols) = (rows as u64, cols as u64);
                let code = element.code();
                let made = sys::cublasLtMatrixLayoutCreate(layout, code, cols, rows, row as i64);
                check(&doing, made)?;
                if batch.count == 1 {
                    continue;
                }
                use sys::cublasLtMatrixLayoutAttribute_t as Of;
                let (step, size) = (step as i64, size_of::<i64>());
                let (many, apart) = ((&raw const count).cast(), (&raw const step).cast());
                let many_of = Of::CUBLASLT_MATRIX_LAYOUT_BATCH_COUNT;
                let apart_of = Of::CUBLASLT_MATRIX_LAYOUT_STRIDED_BATCH_OFFSET;
                let told = sys::cublasLtMatrixLayoutSetAttribute(*layout, many_of, many, 4);
                check(&doing, told)?;
                let told = sys::cublasLtMatrixLayoutSetAttribute(*layout, apart_of, apart, size);
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
        plan.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSA,
            &i32::from(p.b_transposed),
        )?;
        plan.set(
            Attribute::CUBLASLT_MATMUL_DESC_TRANSB,
            &i32::from(p.a_transposed),
        )?;
        plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE, &p.follow.code())?;
        if p.follow.has_aux() {
            let ld = p.n as i64;
            plan.set(Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_LD, &ld)?;
        }
        plan.point(call)?;
        let version = Library::CublasLt.version();
        let name = format!(
            "{p:?} {batch:?} {alignment} {} {version:?}",
            gpu.info().name
        );
        if let Some((algorithm, workspace)) = kept_choice(&name) {
            plan.algorithm = algorithm;
            plan.workspace = workspace;
            return Ok(plan);
        }
        self.choose(gpu, p, batch, alignment, call, &mut plan, &doing)?;
        let mut bytes: Vec<u8> = plan
            .algorithm
            .data
            .iter()
            .flat_map(|w| w.to_le_bytes())
            .collect();
        bytes.extend((plan.workspace as u64).to_le_bytes());
        kept::store("matmul", &name, &bytes);
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
        let mut found: Vec<sys::cublasLtMatmulHeuristicResult_t> = Vec::with_capacity(TRIED);
        let mut count = 0;
        // SAFETY: as in `plan`; the array has room for as many results as are asked for.
        unsafe {
            let mut preference = std::ptr::null_mut();
            check(doing, sys::cublasLtMatmulPreferenceCreate(&mut preference))?;
            use sys::cublasLtMatmulPreferenceAttributes_t as Wish;
            let set = |wish: Wish, value: *const c_void, size: usize| {
                check(
                    doing,
                    sys::cublasLtMatmulPreferenceSetAttribute(preference, wish, value, size),
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
            let status = sys::cublasLtMatmulAlgoGetHeuristic(
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
            sys::cublasLtMatmulPreferenceDestroy(preference);
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
            plan.algorithm = candidate.algo;
            plan.workspace = candidate.workspaceSize;
            let Ok(time) = fastest(gpu, RUNS, || self.run(gpu, plan, p, trial, &workspace)) else {
                continue;
            };
            if time < best {
                best = time;
                chosen = Some((candidate.algo, candidate.workspaceSize));
            }
        }
        let Some((algorithm, workspace)) = chosen else {
            return check(doing, sys::cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED);
        };
        plan.algorithm = algorithm;
        plan.workspace = workspace;
        Ok(())
    }

    fn run(
        &self,
        gpu: &'static Gpu,
        plan: &Plan,
        p: &Product,
        call: Call,
        workspace: &DeviceBuffer,
    ) -> Result<()> {
        let (alpha, beta) = (1.0f32, if p.accumulate { 1.0f32 } else { 0.0 });
        let [a, b, c] = plan.layouts;
        // SAFETY: operands are as long as `Gpu::matmul` checked, the workspace as the algorithm asked for; all memory goes
        // back to the pool only for work that comes later in the stream.
        let status = unsafe {
            sys::cublasLtMatmul(
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
    fn set<T>(&self, attribute: Attribute, value: &T) -> Result<()> {
        // SAFETY: the descriptor is alive and the value as large as said; the attribute's type is the caller's care.
        let status = unsafe {
            sys::cublasLtMatmulDescSetAttribute(
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
        if call.vector != 0 {
            self.set(Attribute::CUBLASLT_MATMUL_DESC_BIAS_POINTER, &call.vector)?;
        }
        if call.aux != 0 {
            self.set(
                Attribute::CUBLASLT_MATMUL_DESC_EPILOGUE_AUX_POINTER,
                &call.aux,
            )?;
        }
        Ok(())
    }
}

fn kept_choice(name: &str) -> Option<(sys::cublasLtMatmulAlgo_t, usize)> {
    let bytes = kept::load("matmul", name)?;
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
