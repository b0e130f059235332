//! Group norm on a GPU, in the type of x with statistics in float32: x is read for the statistics, then read again and y
//! written.

use crate::{DType, Grads, Result, Tensor};
use nextscale_cuda::kernel::{Arg, MOST_COUNT, Module, Shape};
use nextscale_cuda::{DeviceBuffer, Work, kernels};

pub(crate) static MODULE: Module = Module {
    name: "group_norm",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        moments: "ppiiii" for f32 bf16 f16;
        merge_moments: "ppiiiiiif";
        any_moments: "ppiiif" for f32 bf16 f16;
        apply: "pppppiiiii" for f32 bf16 f16;
        any_apply: "pppppuiiii" for f32 bf16 f16;
        sums: "ppppppiiiii" for f32 bf16 f16;
        merge_sums: "ppii";
        any_sums: "ppppppiiii" for f32 bf16 f16;
        add_parameter_sums: "ppiii";
        averages: "pppiiii";
        back: "pppppppiiiii" for f32 bf16 f16;
        any_back: "pppppppuiiii" for f32 bf16 f16;
    },
};

/// Threads a block of the kernels that have slabs.
const THREADS: usize = 256;

/// Extents of one call.
#[derive(Clone, Copy)]
pub(crate) struct Norm {
    samples: usize,
    positions: usize,
    c: usize,
    groups: usize,
    silu: bool,
    /// Rows that a block takes: fixed by the extents, so that sums have one order on every GPU.
    slab: usize,
}

/// Mean and 1/√(var + eps) of every group of every sample, in float32.
pub(crate) type Moments = DeviceBuffer;

fn int(n: usize) -> Arg<'static> {
    Arg::Count(n)
}

fn blocks(x: usize, y: usize) -> Shape {
    Shape {
        grid: [x, y, 1],
        threads: THREADS as u32,
        shared: 0,
    }
}

impl Norm {
    pub(crate) fn new(samples: usize, numel: usize, c: usize, groups: usize, silu: bool) -> Self {
        let positions = numel / (samples * c).max(1);
        Self {
            samples,
            positions,
            c,
            groups,
            silu,
            slab: (positions / 32).clamp(64, 2048),
        }
    }

    fn slabs(&self) -> usize {
        self.positions.div_ceil(self.slab)
    }

    /// Whether channels come in eights that a block of threads can take, at places where vector loads can.
    fn fits(&self, tensors: &[&Tensor]) -> Result<bool> {
        let mut fits = self.c.is_multiple_of(8) && self.c / 8 <= THREADS;
        for t in tensors {
            let ptr = t.device_ptr()?;
            fits &= ptr.alignment() >= 16;
        }
        Ok(fits)
    }

    /// Blocks of slabs, with two floats of shared memory for every number that a block takes at once.
    fn over_slabs(&self, shared: bool) -> Shape {
        let lanes = THREADS / (self.c / 8).max(1);
        let bytes = if shared { 8 * lanes * self.c } else { 0 };
        Shape {
            shared: bytes as u32,
            ..blocks(self.slabs(), self.samples)
        }
    }

    fn extents(&self) -> [Arg<'static>; 3] {
        [self.positions, self.c, self.groups].map(int)
    }

    fn is_empty(&self) -> bool {
        self.samples * self.positions * self.c == 0
    }
}

pub(super) fn forward(
    norm: &Norm,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    eps: f32,
) -> Result<(Tensor, Moments)> {
    let (gpu, dtype) = (x.gpu()?, x.dtype());
    let _scope = gpu.scope("group norm", || {
        Work::moving(&[x, x]).sized(format!("{}", x.shape()))
    });
    let y = Tensor::scratch(gpu, x.shape(), dtype)?;
    if norm.is_empty() {
        let stats = DeviceBuffer::new(gpu, norm.samples * norm.groups * 8)?;
        return Ok((y, stats));
    }
    let (gamma, beta) = (gamma.arg_of(OP, DType::F32)?, beta.arg_of(OP, DType::F32)?);
    let fits = norm.fits(&[x, &y])?;
    let stats = moments(norm, x, eps)?;
    let mut args = vec![x.arg()?, gamma, beta, Arg::In(&stats), y.arg()?];
    let (name, shape) = if fits {
        args.extend(norm.extents());
        args.push(int(norm.slab));
        ("apply", norm.over_slabs(false))
    } else {
        args.push(Arg::U64(x.numel() as u64));
        args.extend(norm.extents());
        ("any_apply", Shape::pass(gpu, x.numel()))
    };
    args.push(int(norm.silu.into()));
    gpu.launch(&MODULE, (name, dtype), shape, &args)?;
    Ok((y, stats))
}

const OP: &str = "group norm";

/// The moments of x, which is not empty.
pub(crate) fn moments(norm: &Norm, x: &Tensor, eps: f32) -> Result<Moments> {
    let gpu = x.gpu()?;
    // Statistics, two a group, are counted with 32 bits.
    let numbers = 2 * norm.samples * norm.groups;
    gpu.counts(&MODULE, numbers, MOST_COUNT, "statistics")?;
    let stats = DeviceBuffer::new(gpu, norm.samples * norm.groups * 8)?;
    if !norm.fits(&[x])? {
        let mut args = vec![x.arg()?, Arg::In(&stats)];
        args.extend(norm.extents());
        args.push(Arg::F32(eps));
        let shape = blocks(norm.groups, norm.samples);
        gpu.launch(&MODULE, ("any_moments", x.dtype()), shape, &args)?;
        return Ok(stats);
    }
    let (slabs, count) = (norm.slabs(), norm.samples * norm.groups);
    let partial = DeviceBuffer::new(gpu, slabs * count * 8)?;
    let mut args = vec![x.arg()?, Arg::In(&partial)];
    args.extend(norm.extents());
    args.push(int(norm.slab));
    let shape = norm.over_slabs(true);
    gpu.launch(&MODULE, ("moments", x.dtype()), shape, &args)?;
    let mut args = vec![Arg::In(&partial), Arg::In(&stats)];
    args.extend(norm.extents());
    args.extend([int(norm.slab), int(slabs), int(count), Arg::F32(eps)]);
    let shape = blocks((count * 32).div_ceil(THREADS), 1);
    gpu.launch(&MODULE, "merge_moments", shape, &args)?;
    Ok(stats)
}

/// Hands on the gradients of x, gamma and beta for that of y.
pub(super) fn backward(
    norm: &Norm,
    x: &Tensor,
    gamma: &Tensor,
    beta: &Tensor,
    stats: &Moments,
    g: &Tensor,
    grads: &mut Grads<'_>,
) -> Result<()> {
    let (gpu, dtype) = (x.gpu()?, x.dtype());
    let _scope = gpu.scope("group norm gradient", || {
        Work::moving(&[x, g, x]).sized(format!("{}", x.shape()))
    });
    let g = g.cast(dtype)?;
    let dx = Tensor::scratch(gpu, x.shape(), dtype)?;
    if norm.is_empty() {
        return grads.add(x, dx);
    }
    let (gamma_arg, beta_arg) = (gamma.arg_of(OP, DType::F32)?, beta.arg_of(OP, DType::F32)?);
    let fits = norm.fits(&[x, &g, &dx])?;
    let width = 2 * norm.c;
    let all = DeviceBuffer::new(gpu, norm.samples * width * 4)?;
    let given = [x.arg()?, g.arg()?, gamma_arg, beta_arg, Arg::In(stats)];
    let silu = int(norm.silu.into());
    if fits {
        let slabs = norm.slabs();
        let partial = DeviceBuffer::new(gpu, norm.samples * slabs * width * 4)?;
        let mut args = given.to_vec();
        args.push(Arg::In(&partial));
        args.extend(norm.extents());
        args.extend([int(norm.slab), silu]);
        let shape = norm.over_slabs(true);
        gpu.launch(&MODULE, ("sums", dtype), shape, &args)?;
        let args = [Arg::In(&partial), Arg::In(&all), int(width), int(slabs)];
        let shape = blocks(width.div_ceil(THREADS), norm.samples);
        gpu.launch(&MODULE, "merge_sums", shape, &args)?;
    } else {
        let mut args = given.to_vec();
        args.push(Arg::In(&all));
        args.extend(norm.extents());
        args.push(silu);
        let shape = blocks(norm.c, norm.samples);
        gpu.launch(&MODULE, ("any_sums", dtype), shape, &args)?;
    }
    for (which, parameter) in [beta, gamma].into_iter().enumerate() {
        if let Some(sum) = grads.sums(parameter)? {
            let args = [
                Arg::In(&all),
                sum.arg()?,
                int(norm.samples),
                int(norm.c),
                int(which),
            ];
            let shape = blocks((norm.c * 32).div_ceil(THREADS), 1);
            gpu.launch(&MODULE, "add_parameter_sums", shape, &args)?;
        }
    }
    if !grads.wants(x) {
        return Ok(());
    }
    let count = norm.samples * norm.groups;
    let average = DeviceBuffer::new(gpu, count * 8)?;
    let mut args = vec![Arg::In(&all), gamma_arg, Arg::In(&average)];
    args.extend(norm.extents());
    args.push(int(count));
    gpu.launch(
        &MODULE,
        "averages",
        blocks(count.div_ceil(THREADS), 1),
        &args,
    )?;
    let mut args = given.to_vec();
    args.extend([Arg::In(&average), dx.arg()?]);
    let (name, shape) = if fits {
        args.extend(norm.extents());
        args.push(int(norm.slab));
        ("back", norm.over_slabs(false))
    } else {
        args.push(Arg::U64(x.numel() as u64));
        args.extend(norm.extents());
        ("any_back", Shape::pass(gpu, x.numel()))
    };
    args.push(silu);
    gpu.launch(&MODULE, (name, dtype), shape, &args)?;
    grads.add(x, dx)
}
