//! Matrix products by cuBLASLt: row-major operands, sums in float32, and what follows a product done by the product.
//!
//! The library counts columns first, so C = A·B is asked for as Cᵀ = Bᵀ·Aᵀ and nothing is moved. The algorithm of a
//! shape is chosen once by measuring those that the library proposes, and the choice is kept on disk: a run that is
//! repeated takes the same one and adds in the same order.

mod plan;
#[cfg(test)]
mod tests;

use crate::gpu::Gpu;
use crate::graph::{StreamGuard, Uses};
use crate::pool::DeviceBuffer;
use crate::{DType, Error, Result};
use cudarc::cublaslt::sys;
pub(crate) use plan::Slot;
use plan::{Matmul, WORKSPACE};

/// A type as the library names it; integers were refused before.
fn code(dtype: DType) -> sys::cudaDataType {
    match dtype {
        DType::F32 => sys::cudaDataType_t::CUDA_R_32F,
        DType::Bf16 => sys::cudaDataType_t::CUDA_R_16BF,
        DType::F16 => sys::cudaDataType_t::CUDA_R_16F,
        DType::I32 => sys::cudaDataType_t::CUDA_R_32I,
    }
}

/// What a product does to its result before writing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Epilogue {
    /// Nothing.
    Plain,
    /// Adds a vector of n to every row.
    Bias,
    /// Adds the vector, writes that to `aux`, then applies GELU (tanh form).
    BiasGelu,
    /// Adds the vector and applies GELU: [`Epilogue::BiasGelu`] without `aux`.
    BiasGeluOnly,
    /// Multiplies by GELU's slope at `aux`: the gradient before an activation from the one behind it.
    GeluSlope,
    /// The same, and writes the column sums of the result, n, to `vector`.
    GeluSlopeSums,
    /// Writes the row sums of A, m, to `vector`: with A = dyᵀ the gradient of a bias.
    RowSums,
}

impl Epilogue {
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

/// The kind of a product: everything but the operands' pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Rows of C.
    pub m: usize,
    /// Columns of C.
    pub n: usize,
    /// Terms of every sum.
    pub k: usize,
    /// Type of A and B: a float.
    pub operands: DType,
    /// Type of C, the vector and `aux`: a float.
    pub result: DType,
    /// A lies as k×m instead of m×k.
    pub a_transposed: bool,
    /// B lies as n×k instead of k×n.
    pub b_transposed: bool,
    /// Adds to what C holds.
    pub accumulate: bool,
    /// Rounds float32 operands to TF32.
    pub tf32: bool,
    /// What is done to the result.
    pub epilogue: Epilogue,
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
            // With one product nobody steps; a number that is too large is refused elsewhere.
            steps: p.stored().map(|(rows, cols)| rows.saturating_mul(cols)),
        }
    }

    /// Elements from the first to the last of an operand, of a product that [`Batch::sized`] took.
    fn reach(&self, p: &Product, operand: usize) -> usize {
        let (rows, cols) = p.stored()[operand];
        (self.count - 1) * self.steps[operand] + (rows - 1) * self.rows[operand] + cols
    }

    /// Whether every operand's bytes can be counted, and the products by the library.
    fn sized(&self, p: &Product) -> bool {
        let reach = |operand: usize| {
            let (rows, cols) = p.stored()[operand];
            let steps = (self.count - 1).checked_mul(self.steps[operand])?;
            let lines = (rows - 1).checked_mul(self.rows[operand])?;
            steps.checked_add(lines)?.checked_add(cols)?.checked_mul(8)
        };
        let whole = p.m.checked_mul(p.n).and_then(|n| n.checked_mul(8));
        self.count <= i32::MAX as usize
            && whole.is_some()
            && (0..3).all(|operand| reach(operand).is_some())
    }
}

/// A pointer into a buffer: the buffer and the offset in bytes.
#[derive(Clone, Copy, Debug)]
pub struct DevicePtr<'a>(pub &'a DeviceBuffer, pub usize);

impl DevicePtr<'_> {
    /// How many bytes its address is a multiple of, at most 256.
    pub fn alignment(self) -> u32 {
        let bits = self.0.address() | self.1 as u64 | 256;
        1 << bits.trailing_zeros()
    }

    /// Where it is, if it is of `gpu` and has so many bytes.
    pub(crate) fn holds(self, gpu: &Gpu, what: &str, bytes: usize) -> Result<u64> {
        let found = Uses::of(gpu).address(self.0, self.1, bytes);
        found.map_err(|e| match e {
            Error::Device(text) => Error::Device(format!("{what} needs {text}")),
            other => other,
        })
    }
}

/// The operands of one product.
#[derive(Clone, Copy, Debug)]
pub struct Operands<'a> {
    /// The left factor.
    pub a: DevicePtr<'a>,
    /// The right factor.
    pub b: DevicePtr<'a>,
    /// The result.
    pub c: DevicePtr<'a>,
    /// The bias, or the sums that come out, where [`Epilogue`] has one.
    pub vector: Option<DevicePtr<'a>>,
    /// The activation's input, m×n, where [`Epilogue`] has one.
    pub aux: Option<DevicePtr<'a>>,
}

/// Addresses of one call, in the library's order.
#[derive(Clone, Copy)]
struct Call {
    a: u64,
    b: u64,
    c: u64,
    vector: u64,
    aux: u64,
}

impl Gpu {
    /// C = A·B (or C += A·B) and what follows, into the stream.
    ///
    /// # Errors
    /// When an operand does not fit, the library is missing, or it has no algorithm for the product.
    pub fn matmul(&'static self, p: &Product, o: &Operands<'_>) -> Result<()> {
        self.matmul_batch(p, &Batch::one(p), o)
    }

    /// Several products at once; the operands' pointers are those of the first. What follows may only be
    /// [`Epilogue::Plain`] where there is more than one or C has gaps.
    ///
    /// # Errors
    /// As [`Gpu::matmul`].
    pub fn matmul_batch(&'static self, p: &Product, batch: &Batch, o: &Operands<'_>) -> Result<()> {
        let (m, n, k) = (p.m, p.n, p.k);
        for dtype in [p.operands, p.result] {
            dtype.float("matmul")?;
        }
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
        if short || !batch.sized(p) || !plain && p.epilogue != Epilogue::Plain {
            return Err(Error::Device(format!(
                "matmul: {batch:?} does not go with {p:?}"
            )));
        }
        let (operand, result) = (p.operands.bytes(), p.result.bytes());
        let extra = |wanted: bool, ptr: Option<DevicePtr<'_>>, what: &str, bytes: usize| match ptr {
            Some(ptr) if wanted => ptr.holds(self, what, bytes),
            None if !wanted => Ok(0),
            _ => Err(Error::Device(format!(
                "matmul: {:?} and {what} do not go together",
                p.epilogue
            ))),
        };
        let rows = if p.epilogue == Epilogue::RowSums {
            m
        } else {
            n
        };
        let call = Call {
            a: o.b.holds(self, "B", batch.reach(p, 1) * operand)?,
            b: o.a.holds(self, "A", batch.reach(p, 0) * operand)?,
            c: o.c.holds(self, "C", batch.reach(p, 2) * result)?,
            vector: extra(p.epilogue.has_vector(), o.vector, "vector", rows * result)?,
            aux: extra(p.epilogue.has_aux(), o.aux, "aux", m * n * result)?,
        };
        // Vector loads depend on how operands are aligned, and so do algorithms.
        let pointers = [call.a, call.b, call.c, call.aux];
        let alignment = pointers
            .iter()
            .fold(256u64, |all, a| all | a)
            .trailing_zeros()
            .min(8);
        if let Some(dry) = self.dry() {
            if dry.cpu().is_some() {
                // The right operand, packed.
                return DeviceBuffer::new(self, n * k * operand).map(|_| ());
            }
            let own = [
                batch.reach(p, 2) * result,
                m * n * result,
                m.max(n) * result,
            ];
            return self.dry_product(&(*p, *batch, alignment), own, WORKSPACE);
        }
        // Before the lock: a thread that captures a graph must not wait for one that waits for the capture.
        let _guard = StreamGuard::take();
        self.bind()?;
        let mut slot = self.matmul_slot().lock().unwrap_or_else(|e| e.into_inner());
        let library = match &mut *slot {
            Some(library) => library,
            None => slot.insert(Matmul::open()?),
        };
        // SAFETY: the operands were found above, this GPU's and as long as said.
        unsafe { library.go(self, p, batch, alignment, call) }
    }
}
