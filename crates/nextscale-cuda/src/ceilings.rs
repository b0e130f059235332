//! What a GPU can do at most, measured: one large product in each arithmetic, and a large copy.

use crate::dtype::{DType, Precision};
use crate::gpu::Gpu;
use crate::kernel::{Arg, MEMORY, Shape};
use crate::matmul::{DevicePtr, Epilogue, Operands, Product};
use crate::pool::DeviceBuffer;
use crate::profile::Row;
use crate::timing::Event;
use crate::{Error, Result};

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
    /// Measures all of them; `half` is the type that stands for half precision (bf16 where it is none), and factors are filled
    /// with `numbers` as by [`filled`]. Takes some GiB of memory while it runs.
    ///
    /// # Errors
    /// When the memory is full, a library is missing, or there are no numbers.
    pub fn measure(gpu: &'static Gpu, half: DType, numbers: &[f32]) -> Result<Self> {
        let half = if half.is_half() { half } else { DType::Bf16 };
        let product = |dtype, tf32| product(gpu, numbers, dtype, tf32);
        Ok(Self {
            half: product(half, false)?,
            tf32: product(DType::F32, true)?,
            f32: product(DType::F32, false)?,
            bandwidth: copy(gpu)?,
        })
    }

    /// Multiplications and additions a second in this arithmetic.
    pub fn of(&self, rate: Precision) -> f64 {
        match rate {
            Precision::Bf16 | Precision::Fp16 => self.half,
            Precision::Tf32 => self.tf32,
            Precision::Fp32 => self.f32,
        }
    }

    /// Milliseconds that work takes at least: products and memory at their limits, side by side.
    pub fn floor_ms(&self, rate: Precision, flops: f64, bytes: f64) -> f64 {
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

/// `n` elements of a float type: `numbers` again and again. The power that a product takes depends on its factors, and so does
/// its speed, so these should be normal random numbers, a million or so.
///
/// # Errors
/// When the memory is full, for integers, or when there are no numbers.
pub fn filled(gpu: &'static Gpu, numbers: &[f32], n: usize, dtype: DType) -> Result<DeviceBuffer> {
    let numbers = &numbers[..numbers.len().min(n)];
    if numbers.is_empty() {
        return Err(Error::Device(
            "there are no numbers to fill memory with".into(),
        ));
    }
    let bytes: Vec<u8> = numbers.iter().flat_map(|x| x.to_le_bytes()).collect();
    dtype.float("filling memory")?;
    let all = DeviceBuffer::new(gpu, n * dtype.bytes())?;
    let mut there = numbers.len() * dtype.bytes();
    if dtype.is_half() {
        let wide = DeviceBuffer::new(gpu, bytes.len())?;
        gpu.upload(&bytes, &wide)?;
        let count = Arg::U64(numbers.len() as u64);
        let args = [Arg::In(&wide), Arg::In(&all), count];
        gpu.launch(
            &MEMORY,
            ("convert", DType::F32, dtype),
            Shape::pass(gpu, numbers.len()),
            &args,
        )?;
    } else {
        gpu.upload(&bytes, &all)?;
    }
    while there < all.bytes() {
        let more = there.min(all.bytes() - there);
        gpu.copy(DevicePtr(&all, 0), DevicePtr(&all, there), more)?;
        there += more;
    }
    Ok(all)
}

fn product(gpu: &'static Gpu, numbers: &[f32], dtype: DType, tf32: bool) -> Result<f64> {
    let n = SIDE * SIDE;
    let factor = || filled(gpu, numbers, n, dtype);
    let (a, b) = (factor()?, factor()?);
    let operands = dtype;
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
        epilogue: Epilogue::Plain,
    };
    let o = Operands {
        a: DevicePtr(&a, 0),
        b: DevicePtr(&b, 0),
        c: DevicePtr(&c, 0),
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
    gpu.zero(DevicePtr(&from, 0), COPIED)?;
    let s = seconds(gpu, || {
        gpu.copy(DevicePtr(&from, 0), DevicePtr(&to, 0), COPIED)
    })?;
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
        assert_eq!(c.floor_ms(Precision::Bf16, 8e12, 4e9), 10.0);
        assert_eq!(c.floor_ms(Precision::Bf16, 8e11, 8e9), 2.0);
        assert_eq!(c.floor_ms(Precision::Fp32, 5e11, 0.0), 10.0);
        assert_eq!(c.floor_ms(Precision::Tf32, 0.0, 0.0), 0.0);
        let row = Row {
            name: "linear",
            note: String::new(),
            rate: Precision::Tf32,
            calls: 3,
            ms: 40.0,
            flops: 4e12,
            bytes: 4e9,
        };
        assert_eq!(c.floor_of(&row), 10.0);
    }
}
