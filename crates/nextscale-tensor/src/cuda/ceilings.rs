//! What a GPU can do at most, measured: one large product in each arithmetic, and a large copy.

use super::gpu::Gpu;
use super::matmul::{Follow, Operands, Place, Product};
use super::pool::DeviceBuffer;
use super::profile::Row;
use super::timing::Event;
use super::work::Rate;
use crate::rng::{Purpose, Stream};
use crate::{DType, Device, Result, Tensor};

/// Rows, columns and terms of the product that is measured.
const SIDE: usize = 8192;
/// Bytes that are copied.
const COPIED: usize = 1 << 30;
/// Runs that are timed together.
const RUNS: usize = 16;

/// The measured limits of a GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ceilings {
    /// Multiplications and additions a second of a product of 8192×8192 matrices in half precision.
    pub half: f64,
    /// The same in TF32.
    pub tf32: f64,
    /// The same in float32.
    pub f32: f64,
    /// Bytes a second, read and written, of a copy of 1 GiB on the GPU.
    pub bandwidth: f64,
}

impl Ceilings {
    /// Measures all of them; `half` is the type that stands for half precision (bf16 where it is none). Takes some GiB of
    /// memory while it runs.
    ///
    /// # Errors
    /// When the memory is full or a library is missing.
    pub fn measure(gpu: &'static Gpu, half: DType) -> Result<Self> {
        let half = if half.is_half() { half } else { DType::Bf16 };
        Ok(Self {
            half: product(gpu, half, false)?,
            tf32: product(gpu, DType::F32, true)?,
            f32: product(gpu, DType::F32, false)?,
            bandwidth: copy(gpu)?,
        })
    }

    /// Multiplications and additions a second in this arithmetic.
    pub fn of(&self, rate: Rate) -> f64 {
        match rate {
            Rate::Half => self.half,
            Rate::Tf32 => self.tf32,
            Rate::F32 => self.f32,
        }
    }

    /// Milliseconds that work takes at least: products and memory at their limits, side by side.
    pub fn floor_ms(&self, rate: Rate, flops: f64, bytes: f64) -> f64 {
        1e3 * (flops / self.of(rate)).max(bytes / self.bandwidth)
    }

    /// That of all calls of a row.
    pub fn floor_of(&self, row: &Row) -> f64 {
        self.floor_ms(row.rate, row.flops, row.bytes)
    }
}

/// Seconds a run, of many after a few that warm up.
fn seconds(gpu: &'static Gpu, mut run: impl FnMut() -> Result<()>) -> Result<f64> {
    for _ in 0..3 {
        run()?;
    }
    let from = Event::now(gpu)?;
    for _ in 0..RUNS {
        run()?;
    }
    let to = Event::now(gpu)?;
    Ok(from.until(&to)? / 1e3 / RUNS as f64)
}

/// Random numbers, a piece of them again and again: the power that a product takes depends on them, and so does its speed.
///
/// # Errors
/// When the memory is full, or for integers.
pub fn random(gpu: &'static Gpu, n: usize, dtype: DType) -> Result<DeviceBuffer> {
    const PIECE: usize = 1 << 20;
    let mut s = Stream::new(1, Purpose::Test, 0, n as u64);
    let some: Vec<f32> = (0..PIECE.min(n)).map(|_| s.normal()).collect();
    let here = Tensor::from_vec([some.len()], some);
    let piece = here.to(Device::Cuda(gpu.info().ordinal))?.cast(dtype)?;
    let mut there = piece.numel() * dtype.bytes();
    let all = DeviceBuffer::new(gpu, n * dtype.bytes())?;
    gpu.copy(piece.place()?, Place(&all, 0), there)?;
    while there < all.bytes() {
        let more = there.min(all.bytes() - there);
        gpu.copy(Place(&all, 0), Place(&all, there), more)?;
        there += more;
    }
    Ok(all)
}

fn product(gpu: &'static Gpu, dtype: DType, tf32: bool) -> Result<f64> {
    let n = SIDE * SIDE;
    let (a, b) = (random(gpu, n, dtype)?, random(gpu, n, dtype)?);
    let operands = dtype.element()?;
    let c = DeviceBuffer::new(gpu, n * operands.bytes())?;
    let p = Product {
        m: SIDE,
        n: SIDE,
        k: SIDE,
        operands,
        result: operands,
        a_transposed: false,
        b_transposed: true,
        accumulate: false,
        tf32,
        follow: Follow::Plain,
    };
    let o = Operands {
        a: Place(&a, 0),
        b: Place(&b, 0),
        c: Place(&c, 0),
        vector: None,
        aux: None,
    };
    let s = seconds(gpu, || gpu.matmul(&p, &o))?;
    Ok(2.0 * (SIDE as f64).powi(3) / s)
}

fn copy(gpu: &'static Gpu) -> Result<f64> {
    let (from, to) = (
        DeviceBuffer::new(gpu, COPIED)?,
        DeviceBuffer::new(gpu, COPIED)?,
    );
    gpu.zero(Place(&from, 0), COPIED)?;
    let s = seconds(gpu, || gpu.copy(Place(&from, 0), Place(&to, 0), COPIED))?;
    Ok(2.0 * COPIED as f64 / s)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_is_the_larger_of_both() {
        let c = Ceilings {
            half: 8e14,
            tf32: 4e14,
            f32: 5e13,
            bandwidth: 4e12,
        };
        assert_eq!(c.floor_ms(Rate::Half, 8e12, 4e9), 10.0);
        assert_eq!(c.floor_ms(Rate::Half, 8e11, 8e9), 2.0);
        assert_eq!(c.floor_ms(Rate::F32, 5e11, 0.0), 10.0);
        assert_eq!(c.floor_ms(Rate::Tf32, 0.0, 0.0), 0.0);
        let row = Row {
            name: "linear",
            note: String::new(),
            rate: Rate::Tf32,
            calls: 3,
            ms: 40.0,
            flops: 4e12,
            bytes: 4e9,
        };
        assert_eq!(c.floor_of(&row), 10.0);
    }
}
