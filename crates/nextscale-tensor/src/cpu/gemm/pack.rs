//! How operands reach the panels of a matrix product.

use super::KC;

/// The left operand.
pub trait PackA: Sync {
    /// Whether panels are stored k-major (MR floats for every k) instead of by rows (`KC` floats apart).
    const K_MAJOR: bool;

    /// Fills the panel of rows `row0..row0 + rows` (at most `mr`) and inner indices `k0..k0 + kc`. Rows past
    /// `rows` may hold anything finite.
    fn pack(&self, row0: usize, rows: usize, k0: usize, kc: usize, mr: usize, out: &mut [f32]);
}

/// The right operand.
pub trait PackB: Sync {
    /// Fills the panel of columns `n0..n0 + cols` (at most `nr`) and inner indices `k0..k0 + kc`: `nr` floats for
    /// every k. Columns past `cols` may hold anything finite.
    fn pack(&self, k0: usize, kc: usize, n0: usize, cols: usize, nr: usize, out: &mut [f32]);
}

/// A row-major matrix whose rows are `stride` floats apart.
#[derive(Clone, Copy)]
pub struct Rows<'a> {
    data: &'a [f32],
    stride: usize,
}

/// The transpose of a row-major matrix whose rows are `stride` floats apart.
#[derive(Clone, Copy)]
pub struct Transposed<'a> {
    data: &'a [f32],
    stride: usize,
}

impl<'a> Rows<'a> {
    /// `data` holds the matrix; `stride` is the distance between the starts of rows.
    pub fn new(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride }
    }

    /// The same rows without their first `k` columns.
    pub fn from_column(self, k: usize) -> Self {
        Self {
            data: &self.data[k..],
            ..self
        }
    }
}

impl<'a> Transposed<'a> {
    /// `data` holds the matrix whose transpose is the operand; `stride` is the distance between its rows.
    pub fn new(data: &'a [f32], stride: usize) -> Self {
        Self { data, stride }
    }
}

impl PackA for Rows<'_> {
    const K_MAJOR: bool = false;

    #[inline(always)]
    fn pack(&self, row0: usize, rows: usize, k0: usize, kc: usize, mr: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(KC).take(mr).enumerate() {
            if i < rows {
                let at = (row0 + i) * self.stride + k0;
                out[..kc].copy_from_slice(&self.data[at..at + kc]);
            } else {
                out[..kc].fill(0.0);
            }
        }
    }
}

impl PackA for Transposed<'_> {
    const K_MAJOR: bool = true;

    #[inline(always)]
    fn pack(&self, row0: usize, rows: usize, k0: usize, kc: usize, mr: usize, out: &mut [f32]) {
        for (k, out) in out.chunks_exact_mut(mr).take(kc).enumerate() {
            let at = (k0 + k) * self.stride + row0;
            out[..rows].copy_from_slice(&self.data[at..at + rows]);
            out[rows..].fill(0.0);
        }
    }
}

impl PackB for Rows<'_> {
    #[inline(always)]
    fn pack(&self, k0: usize, kc: usize, n0: usize, cols: usize, nr: usize, out: &mut [f32]) {
        for (k, out) in out.chunks_exact_mut(nr).take(kc).enumerate() {
            let at = (k0 + k) * self.stride + n0;
            out[..cols].copy_from_slice(&self.data[at..at + cols]);
            out[cols..].fill(0.0);
        }
    }
}

impl PackB for Transposed<'_> {
    fn pack(&self, k0: usize, kc: usize, n0: usize, cols: usize, nr: usize, out: &mut [f32]) {
        // Eight inner indices at a time: each source row gives a short run, each target row is written in order.
        const RUN: usize = 8;
        let row = |j: usize| &self.data[(n0 + j) * self.stride + k0..][..kc];
        let mut blocks = out[..kc * nr].chunks_exact_mut(nr * RUN);
        let mut k = 0;
        for block in &mut blocks {
            for j in 0..nr {
                if j < cols {
                    let src = &row(j)[k..k + RUN];
                    for (t, v) in src.iter().enumerate() {
                        block[t * nr + j] = *v;
                    }
                } else {
                    (0..RUN).for_each(|t| block[t * nr + j] = 0.0);
                }
            }
            k += RUN;
        }
        for out in blocks.into_remainder().chunks_exact_mut(nr) {
            for (j, o) in out.iter_mut().enumerate() {
                *o = if j < cols { row(j)[k] } else { 0.0 };
            }
            k += 1;
        }
    }
}
