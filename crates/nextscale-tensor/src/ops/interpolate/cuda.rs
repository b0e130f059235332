//! Resizing on a GPU. An axis' weights are made on the CPU and kept on the GPU.

use super::axis::{Axis, Kind};
use crate::{DType, Error, Result, Tensor};
use nextscale_cuda::kernel::{Arg, MOST_COUNT, Module, Shape as Launch};
use nextscale_cuda::{Gpu, Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "interpolate",
    source: &[include_str!("taps.cuh"), include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        resize_4: "ppppiiiiiu";
        resize_1: "ppppiiiiiu";
    },
};

impl Axis {
    /// As taps.cuh reads it.
    pub(in crate::ops) fn table(&self) -> Vec<i32> {
        let mut begins = vec![0i32];
        let mut pairs = Vec::new();
        for row in &self.rows {
            for &(j, w) in row {
                pairs.extend([j as i32, w.to_bits() as i32]);
            }
            begins.push(pairs.len() as i32 / 2);
        }
        // Pairs begin at an even word.
        if begins.len() % 2 == 1 {
            begins.push(0);
        }
        begins.extend(pairs);
        begins
    }
}

fn table(
    gpu: &'static Gpu,
    kind: Kind,
    (from, to): (usize, usize),
    transposed: bool,
) -> Result<Tensor> {
    let axis = Axis::new(kind, from, to);
    let axis = if transposed { axis.transposed() } else { axis };
    Tensor::constant_i32(gpu, &axis.table())
}

/// x \[B, H, W, C\] resized by two axes `(from, to)`, or a gradient sent back through them (`transposed`).
pub(super) fn apply(
    x: &Tensor,
    kind: Kind,
    rows: (usize, usize),
    cols: (usize, usize),
    transposed: bool,
) -> Result<Tensor> {
    const OP: &str = "interpolate";
    let x = &x.cast(DType::F32)?;
    let &[b, h, w, c] = x.dims() else {
        return Err(Error::shape(OP, format!("x is {}", x.shape())));
    };
    let gpu = x.gpu()?;
    // From line to line of x the kernel counts with 32 bits.
    gpu.counts(&MODULE, w * c, MOST_COUNT, "elements of a line")?;
    let (down, right) = (
        table(gpu, kind, rows, transposed)?,
        table(gpu, kind, cols, transposed)?,
    );
    let side = |(from, to): (usize, usize)| if transposed { from } else { to };
    let (to_h, to_w) = (side(rows), side(cols));
    let y = Tensor::scratch(gpu, [b, to_h, to_w, c], DType::F32)?;
    let _scope = gpu.scope("resize", || Work::moving(&[x, &y]));
    // A view may begin anywhere; the pool's memory is aligned.
    let wide = c % 4 == 0 && x.offset % 4 == 0;
    let (name, n) = if wide {
        ("resize_4", y.numel() / 4)
    } else {
        ("resize_1", y.numel())
    };
    let args = [
        x.arg()?,
        y.arg()?,
        down.arg()?,
        right.arg()?,
        Arg::Count(h),
        Arg::Count(w),
        Arg::Count(to_h),
        Arg::Count(to_w),
        Arg::Count(c),
        Arg::U64(n as u64),
    ];
    gpu.launch(&MODULE, name, Launch::pass(gpu, n), &args)?;
    Ok(y)
}
