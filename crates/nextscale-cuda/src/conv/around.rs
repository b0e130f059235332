//! The kernels around a convolution.

use super::{Convolution, Gpu};
use crate::kernel::{Arg, MEMORY, MOST_COUNT, Module, Shape};
use crate::kernels;
use crate::matmul::DevicePtr;
use crate::pool::DeviceBuffer;
use crate::{DType, Result};

/// Padding and cropping channels, bias and residual, patches, sums over positions.
pub static MODULE: Module = Module {
    name: "conv",
    source: &[include_str!("kernel.cu")],
    specific: false,
    kernels: kernels! {
        repack_2: "ppuiui";
        repack_4: "ppuiui";
        add_cropped: "ppiui" for f32 bf16 f16;
        epilogue: "pipppui" for f32_f32 bf16_bf16 f16_f16 f32_bf16 f32_f16;
        patches_2: "ppiiiiiiiiiiiii";
        patches_4: "ppiiiiiiiiiiii";
        patches_16: "ppiiiiiiiiiiii";
        with_bias: "pppiii" for bf16 f16;
        collect: "ppiiiiiiiiiiii" for f32 bf16 f16;
        sum_rows: "ppuii" for f32 bf16 f16;
        sum_rows_by_8: "ppuii" for f32 bf16 f16;
        add_partial_sums: "ppii";
    },
};

/// An operand as a kernel takes it.
pub(super) fn at(ptr: DevicePtr<'_>) -> Arg<'_> {
    Arg::At(ptr.0, ptr.1)
}

/// A count as a kernel takes it.
pub(super) fn int(n: usize) -> Arg<'static> {
    Arg::Count(n)
}

fn aligned(ptr: DevicePtr<'_>) -> bool {
    ptr.alignment() >= 16
}

/// A matrix: rows and elements in each.
pub(super) type Extent = (usize, usize);

/// Copies a matrix into one of another extent, zeros where the source has nothing.
pub(super) fn repack(
    gpu: &Gpu,
    bytes: usize,
    x: DevicePtr<'_>,
    from: Extent,
    y: DevicePtr<'_>,
    to: Extent,
) -> Result<()> {
    let name = if bytes == 4 { "repack_4" } else { "repack_2" };
    gpu.launch(
        &MODULE,
        name,
        Shape::pass(gpu, to.0 * to.1),
        &[
            at(x),
            at(y),
            Arg::U64(from.0 as u64),
            int(from.1),
            Arg::U64(to.0 as u64),
            int(to.1),
        ],
    )
}

/// y, of type `to`, from float32 numbers.
pub(super) fn round(
    gpu: &Gpu,
    x: DevicePtr<'_>,
    y: DevicePtr<'_>,
    to: DType,
    n: usize,
) -> Result<()> {
    let args = [at(x), at(y), Arg::U64(n as u64)];
    gpu.launch(
        &MEMORY,
        ("convert", DType::F32, to),
        Shape::pass(gpu, n),
        &args,
    )
}

/// Adds the corner of extent `to` of a matrix with rows of `width` to float32 numbers.
pub(super) fn add_cropped(
    gpu: &Gpu,
    x: DevicePtr<'_>,
    element: DType,
    width: usize,
    y: DevicePtr<'_>,
    to: Extent,
) -> Result<()> {
    let n = to.0 * to.1;
    gpu.launch(
        &MODULE,
        ("add_cropped", element),
        Shape::pass(gpu, n),
        &[at(x), at(y), int(width), Arg::U64(to.0 as u64), int(to.1)],
    )
}

/// What [`epilogue`] adds.
#[derive(Clone, Copy)]
pub(super) struct Added<'a> {
    pub(super) bias: Option<DevicePtr<'a>>,
    pub(super) residual: Option<DevicePtr<'a>>,
}

/// y, of `extent`, = x (rows of `width`, of type `from`) + bias + residual.
pub(super) fn epilogue(
    gpu: &Gpu,
    (x, from, width): (DevicePtr<'_>, DType, usize),
    added: Added<'_>,
    (y, to): (DevicePtr<'_>, DType),
    extent: Extent,
) -> Result<()> {
    let (rows, channels) = extent;
    let args = [
        at(x),
        int(width),
        added.bias.map_or(Arg::Null, at),
        added.residual.map_or(Arg::Null, at),
        at(y),
        Arg::U64(rows as u64),
        int(channels),
    ];
    let shape = Shape::pass(gpu, (rows * channels).div_ceil(8));
    gpu.launch(&MODULE, ("epilogue", from, to), shape, &args)
}

fn geometry(c: &Convolution, channels: usize, width: usize) -> [Arg<'static>; 12] {
    let (oh, ow) = c.out();
    [
        c.batch, c.h, c.w, channels, oh, ow, c.kh, c.kw, c.stride, c.pad[0], c.pad[1], width,
    ]
    .map(int)
}

/// Patches of x, a row of `width` a position; for half types `width` comes in eights. `ones` puts two columns of ones
/// behind a patch of a half type.
pub(super) fn patches(
    gpu: &Gpu,
    c: &Convolution,
    x: DevicePtr<'_>,
    y: DevicePtr<'_>,
    width: usize,
    ones: bool,
) -> Result<()> {
    gpu.counts(&MODULE, c.y_rows(), MOST_COUNT, "positions")?;
    let whole = 16 / c.element.bytes();
    let vectors = !ones
        && c.inputs.is_multiple_of(whole)
        && width.is_multiple_of(whole)
        && aligned(x)
        && aligned(y);
    let mut args = vec![at(x), at(y)];
    let (name, step) = if vectors {
        args.extend(geometry(c, c.inputs / whole, width / whole));
        ("patches_16", whole)
    } else {
        args.extend(geometry(c, c.inputs, width));
        if c.element == DType::F32 {
            ("patches_4", 1)
        } else {
            let one = if c.element == DType::Bf16 {
                0x3f80
            } else {
                0x3c00
            };
            args.push(Arg::I32(if ones { one } else { 0 }));
            ("patches_2", 8)
        }
    };
    let shape = Shape::pass(gpu, c.y_rows() * width / step);
    gpu.launch(&MODULE, name, shape, &args)
}

/// Weights of a half type, `outputs` rows of `patch`, widened for patches with ones: the bias stands behind them.
pub(super) fn with_bias(
    gpu: &Gpu,
    element: DType,
    (w, bias, y): (DevicePtr<'_>, DevicePtr<'_>, DevicePtr<'_>),
    (outputs, patch): Extent,
    width: usize,
) -> Result<()> {
    let args = [at(w), at(bias), at(y), int(outputs), int(patch), int(width)];
    let shape = Shape::pass(gpu, outputs * width);
    gpu.launch(&MODULE, ("with_bias", element), shape, &args)
}

/// x from patches in float32.
pub(super) fn collect(
    gpu: &Gpu,
    c: &Convolution,
    y: DevicePtr<'_>,
    x: DevicePtr<'_>,
    width: usize,
) -> Result<()> {
    let mut args = vec![at(y), at(x)];
    args.extend(geometry(c, c.inputs, width));
    let shape = Shape::pass(gpu, c.x_rows() * c.inputs);
    gpu.launch(&MODULE, ("collect", c.element), shape, &args)
}

/// Adds the column sums of a matrix to float32 numbers.
pub(super) fn add_row_sums(
    gpu: &'static Gpu,
    x: DevicePtr<'_>,
    element: DType,
    rows: usize,
    columns: usize,
    y: DevicePtr<'_>,
) -> Result<()> {
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    let vectors = columns.is_multiple_of(8) && aligned(x);
    let groups = if vectors { columns / 8 } else { columns };
    // As many pieces for every GPU, so that the order of the sums does not depend on it.
    const PIECES: usize = 1024;
    let per = rows.div_ceil(PIECES).max(64);
    let pieces = rows.div_ceil(per);
    let partial = DeviceBuffer::new(gpu, pieces * columns * 4)?;
    let shape = Shape {
        grid: [pieces, groups.div_ceil(256), 1],
        threads: 256,
        shared: 0,
    };
    let args = [
        at(x),
        Arg::At(&partial, 0),
        Arg::U64(rows as u64),
        int(columns),
        int(per),
    ];
    let name = if vectors { "sum_rows_by_8" } else { "sum_rows" };
    gpu.launch(&MODULE, (name, element), shape, &args)?;
    let shape = Shape {
        grid: [(columns * 32).div_ceil(256), 1, 1],
        threads: 256,
        shared: 0,
    };
    let args = [Arg::In(&partial), at(y), int(pieces), int(columns)];
    gpu.launch(&MODULE, "add_partial_sums", shape, &args)
}
