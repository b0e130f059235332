//! A convolution as a matrix product over patches: right for every shape and type, and fast for narrow ones.
//!
//! Images go in pieces, of one image at least, so that patches of many take no more than a fixed amount of memory.

use super::around::{self, Added};
use super::{Call, Convolution, Gpu, Pass};
use crate::matmul::{DevicePtr, Epilogue, Operands, Product};
use crate::pool::DeviceBuffer;
use crate::{DType, Result};

/// Bytes of patches at a time, if an image has no more.
const ROOM: usize = 512 << 20;

/// The sizes of the product.
#[derive(Clone, Copy)]
struct Sizes {
    /// Elements of a patch.
    patch: usize,
    /// The same with the zeros that make rows begin where vector loads can.
    width: usize,
    /// Whether two ones are behind every patch and the bias behind the weights.
    ones: bool,
}

/// Runs a pass.
pub(super) fn run(gpu: &'static Gpu, c: &Convolution, pass: Pass, call: &Call<'_>) -> Result<()> {
    let patch = c.taps() * c.inputs;
    let half = c.element != DType::F32;
    // A half type's bias costs nothing as a part of the product.
    let ones = half && pass == Pass::Forward && call.residual.is_none() && !c.pointwise();
    let bias = call.bias.filter(|_| ones);
    let width = match bias {
        Some(_) => (patch + 2).next_multiple_of(8),
        None if half || c.tf32 => patch.next_multiple_of(8),
        None => patch,
    };
    let ones = bias.is_some();
    let s = Sizes { patch, width, ones };
    // The weights with rows as long as the patches'.
    let widened = if width > patch && pass != Pass::Weights {
        let bytes = c.element.bytes();
        let wide = DeviceBuffer::new(gpu, c.outputs * width * bytes)?;
        let (from, to) = ((c.outputs, patch), (c.outputs, width));
        let target = DevicePtr(&wide, 0);
        match bias {
            Some(b) => around::with_bias(gpu, c.element, (call.w, b, target), from, width)?,
            None => around::repack(gpu, bytes, call.w, from, target, to)?,
        }
        Some(wide)
    } else {
        None
    };
    let call = Call {
        w: widened.as_ref().map_or(call.w, |b| DevicePtr(b, 0)),
        bias: call.bias.filter(|_| !ones),
        ..*call
    };
    let (oh, ow) = c.out();
    let per_image = oh * ow * width * 4;
    let images = (ROOM / per_image.max(1)).clamp(1, c.batch);
    let mut done = 0;
    while done < c.batch {
        let piece = Convolution {
            batch: images.min(c.batch - done),
            ..*c
        };
        let x = c.x_bytes() / c.batch * done;
        let y = c.y_bytes() / c.batch * done;
        let part = Call {
            x: DevicePtr(call.x.0, call.x.1 + x),
            y: DevicePtr(call.y.0, call.y.1 + y),
            residual: call.residual.map(|r| DevicePtr(r.0, r.1 + y)),
            ..call
        };
        match pass {
            Pass::Forward => forward(gpu, &piece, s, &part)?,
            Pass::Data => data_gradient(gpu, &piece, s, &part)?,
            Pass::Weights => weight_gradient(gpu, &piece, s, &part)?,
        }
        done += piece.batch;
    }
    Ok(())
}

fn product(c: &Convolution, m: usize, n: usize, k: usize, result: DType) -> Product {
    Product {
        m,
        n,
        k,
        operands: c.element,
        result,
        a_transposed: false,
        b_transposed: false,
        accumulate: false,
        tf32: c.tf32,
        epilogue: Epilogue::Plain,
    }
}

fn operands<'a>(a: DevicePtr<'a>, b: DevicePtr<'a>, c: DevicePtr<'a>) -> Operands<'a> {
    Operands {
        a,
        b,
        c,
        vector: None,
        aux: None,
    }
}

/// The patches of x: x itself where a patch is a pixel, else gathered into memory that comes along.
fn gathered(
    gpu: &'static Gpu,
    c: &Convolution,
    s: Sizes,
    x: DevicePtr<'_>,
) -> Result<Option<DeviceBuffer>> {
    if c.pointwise() && s.width == s.patch {
        return Ok(None);
    }
    let all = DeviceBuffer::new(gpu, c.y_rows() * s.width * c.element.bytes())?;
    around::patches(gpu, c, x, DevicePtr(&all, 0), s.width, s.ones)?;
    Ok(Some(all))
}

fn forward(gpu: &'static Gpu, c: &Convolution, s: Sizes, call: &Call<'_>) -> Result<()> {
    let (rows, outputs) = (c.y_rows(), c.outputs);
    let patches = gathered(gpu, c, s, call.x)?;
    let patches = patches.as_ref().map_or(call.x, |b| DevicePtr(b, 0));
    let follows = call.bias.is_some() || call.residual.is_some();
    // Half-precision results are rounded once, after everything was added.
    let sums = if follows && c.element != DType::F32 {
        Some(DeviceBuffer::new(gpu, rows * outputs * 4)?)
    } else {
        None
    };
    let (to, result) = match &sums {
        Some(b) => (DevicePtr(b, 0), DType::F32),
        None => (call.y, c.element),
    };
    let p = Product {
        b_transposed: true,
        ..product(c, rows, outputs, s.width, result)
    };
    gpu.matmul(&p, &operands(patches, call.w, to))?;
    if !follows {
        return Ok(());
    }
    let added = Added {
        bias: call.bias,
        residual: call.residual,
    };
    let from = (to, result, outputs);
    around::epilogue(gpu, from, added, (call.y, c.element), (rows, outputs))
}

fn data_gradient(gpu: &'static Gpu, c: &Convolution, s: Sizes, call: &Call<'_>) -> Result<()> {
    let rows = c.y_rows();
    if c.pointwise() && s.width == s.patch {
        let p = product(c, rows, s.width, c.outputs, c.element);
        return gpu.matmul(&p, &operands(call.y, call.w, call.x));
    }
    let patches = DeviceBuffer::new(gpu, rows * s.width * 4)?;
    let p = product(c, rows, s.width, c.outputs, DType::F32);
    gpu.matmul(&p, &operands(call.y, call.w, DevicePtr(&patches, 0)))?;
    around::collect(gpu, c, DevicePtr(&patches, 0), call.x, s.width)
}

fn weight_gradient(gpu: &'static Gpu, c: &Convolution, s: Sizes, call: &Call<'_>) -> Result<()> {
    let (rows, outputs) = (c.y_rows(), c.outputs);
    let patches = gathered(gpu, c, s, call.x)?;
    let patches = patches.as_ref().map_or(call.x, |b| DevicePtr(b, 0));
    let p = Product {
        a_transposed: true,
        ..product(c, outputs, s.width, rows, DType::F32)
    };
    if s.width == s.patch {
        let p = Product {
            accumulate: true,
            ..p
        };
        return gpu.matmul(&p, &operands(call.y, patches, call.w));
    }
    let wide = DeviceBuffer::new(gpu, outputs * s.width * 4)?;
    gpu.matmul(&p, &operands(call.y, patches, DevicePtr(&wide, 0)))?;
    let to = (outputs, s.patch);
    around::add_cropped(gpu, DevicePtr(&wide, 0), DType::F32, s.width, call.w, to)
}
