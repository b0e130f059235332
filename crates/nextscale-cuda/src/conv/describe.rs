//! One convolution and what follows it, in the words of cuDNN's graph interface.

use super::cudnn::{Descriptor, Handle};
use super::{Convolution, Pass};
use crate::DType;
use crate::Result;
use cudarc::cudnn::sys::{
    cudnnBackendAttributeName_t as Name, cudnnBackendDescriptorType_t as Kind,
    cudnnConvolutionMode_t as Mode, cudnnDataType_t as Data, cudnnPointwiseMode_t as Pointwise,
};

/// Names of the tensors of a graph.
pub(super) mod id {
    /// The feature map.
    pub const X: i64 = 1;
    /// The weights.
    pub const W: i64 = 2;
    /// The output.
    pub const Y: i64 = 3;
    /// The bias.
    pub const BIAS: i64 = 4;
    /// What is added.
    pub const RESIDUAL: i64 = 5;
    /// What is between the convolution and the ops fused with it: never in memory.
    pub const INNER: [i64; 2] = [6, 7];
}

/// A type as the library names it; integers were refused before.
fn data(element: DType) -> Data {
    match element {
        DType::F32 => Data::CUDNN_DATA_FLOAT,
        DType::Bf16 => Data::CUDNN_DATA_BFLOAT16,
        DType::F16 => Data::CUDNN_DATA_HALF,
        DType::I32 => Data::CUDNN_DATA_INT32,
    }
}

/// A channels-last tensor; `dims` are batch, channels, height, width.
fn tensor(uid: i64, element: DType, dims: [usize; 4], alignment: i64) -> Result<Descriptor> {
    let [n, c, h, w] = dims.map(|d| d as i64);
    Descriptor::new(Kind::CUDNN_BACKEND_TENSOR_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_TENSOR_UNIQUE_ID, &[uid])?
        .set(Name::CUDNN_ATTR_TENSOR_DATA_TYPE, &[data(element)])?
        .set(Name::CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, &[alignment])?
        .set(Name::CUDNN_ATTR_TENSOR_DIMENSIONS, &[n, c, h, w])?
        .set(Name::CUDNN_ATTR_TENSOR_STRIDES, &[c * h * w, 1, w * c, c])?
        .set(
            Name::CUDNN_ATTR_TENSOR_IS_VIRTUAL,
            &[id::INNER.contains(&uid)],
        )?
        .finish()
}

/// What follows the sums of a forward pass before they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FusedOp {
    /// Adds the bias, in float32.
    Bias,
    /// Adds the bias, rounded to the operands' type.
    RoundedBias,
    /// Adds a map like the output.
    Residual,
}

impl FusedOp {
    /// All of them, each at its own number.
    pub(super) const ALL: [Self; 3] = [Self::Bias, Self::RoundedBias, Self::Residual];
}

/// y = a + b.
fn sum(a: &Descriptor, b: &Descriptor, y: &Descriptor) -> Result<[Descriptor; 2]> {
    let how = Descriptor::new(Kind::CUDNN_BACKEND_POINTWISE_DESCRIPTOR)?
        .set(
            Name::CUDNN_ATTR_POINTWISE_MODE,
            &[Pointwise::CUDNN_POINTWISE_ADD],
        )?
        .set(
            Name::CUDNN_ATTR_POINTWISE_MATH_PREC,
            &[Data::CUDNN_DATA_FLOAT],
        )?
        .finish()?;
    let op = Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_POINTWISE_DESCRIPTOR)?
        .link(Name::CUDNN_ATTR_OPERATION_POINTWISE_PW_DESCRIPTOR, &[&how])?
        .link(Name::CUDNN_ATTR_OPERATION_POINTWISE_XDESC, &[a])?
        .link(Name::CUDNN_ATTR_OPERATION_POINTWISE_BDESC, &[b])?
        .link(Name::CUDNN_ATTR_OPERATION_POINTWISE_YDESC, &[y])?;
    Ok([op.finish()?, how])
}

/// A graph of operations and what it is made of. Fields are destroyed in this order: the graph before its parts.
pub(super) struct Graph {
    pub(super) graph: Descriptor,
    _parts: Vec<Descriptor>,
}

/// The operations of one pass, without the graph: they need no GPU.
fn operations(
    c: &Convolution,
    pass: Pass,
    epilogue: &[FusedOp],
    result: DType,
    alignment: i64,
) -> Result<(Vec<Descriptor>, Vec<Descriptor>)> {
    let (oh, ow) = c.out();
    let [top, left, bottom, right] = c.pad.map(|p| p as i64);
    let stride = c.stride as i64;
    let how = Descriptor::new(Kind::CUDNN_BACKEND_CONVOLUTION_DESCRIPTOR)?
        .set(
            Name::CUDNN_ATTR_CONVOLUTION_COMP_TYPE,
            &[Data::CUDNN_DATA_FLOAT],
        )?
        .set(
            Name::CUDNN_ATTR_CONVOLUTION_CONV_MODE,
            &[Mode::CUDNN_CROSS_CORRELATION],
        )?
        .set(Name::CUDNN_ATTR_CONVOLUTION_SPATIAL_DIMS, &[2i64])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_DILATIONS, &[1i64, 1])?
        .set(
            Name::CUDNN_ATTR_CONVOLUTION_FILTER_STRIDES,
            &[stride, stride],
        )?
        .set(Name::CUDNN_ATTR_CONVOLUTION_PRE_PADDINGS, &[top, left])?
        .set(Name::CUDNN_ATTR_CONVOLUTION_POST_PADDINGS, &[bottom, right])?
        .finish()?;
    let x_dims = [c.batch, c.inputs, c.h, c.w];
    let w_dims = [c.outputs, c.inputs, c.kh, c.kw];
    let y_dims = [c.batch, c.outputs, oh, ow];
    let of = |written: bool| if written { result } else { c.element };
    let tensor = |uid, element, dims| tensor(uid, element, dims, alignment);
    let x = tensor(id::X, of(pass == Pass::Data), x_dims)?;
    let w = tensor(id::W, of(pass == Pass::Weights), w_dims)?;
    let (mut ops, mut parts) = (Vec::new(), Vec::new());
    match pass {
        Pass::Forward => {
            // The convolution's own sum, then what every step makes of it; the last one is the output.
            let step = |i: usize| {
                if i == epilogue.len() {
                    tensor(id::Y, result, y_dims)
                } else {
                    tensor(id::INNER[i], DType::F32, y_dims)
                }
            };
            let mut last = step(0)?;
            ops.push(
                Descriptor::new(Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_FORWARD_DESCRIPTOR)?
                    .link(
                        Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_CONV_DESC,
                        &[&how],
                    )?
                    .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_X, &[&x])?
                    .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_W, &[&w])?
                    .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_Y, &[&last])?
                    .set(
                        Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_ALPHA,
                        &[1f32],
                    )?
                    .set(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_FORWARD_BETA, &[0f32])?
                    .finish()?,
            );
            let bias_dims = [1, c.outputs, 1, 1];
            for (i, kind) in epilogue.iter().enumerate() {
                let term = match kind {
                    FusedOp::Bias => tensor(id::BIAS, DType::F32, bias_dims)?,
                    FusedOp::RoundedBias => tensor(id::BIAS, c.element, bias_dims)?,
                    FusedOp::Residual => tensor(id::RESIDUAL, c.element, y_dims)?,
                };
                let next = step(i + 1)?;
                let [op, how] = sum(&last, &term, &next)?;
                ops.push(op);
                parts.extend([how, term, std::mem::replace(&mut last, next)]);
            }
            parts.push(last);
        }
        Pass::Data => {
            let y = tensor(id::Y, c.element, y_dims)?;
            ops.push(
                Descriptor::new(
                    Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_DATA_DESCRIPTOR,
                )?
                .link(
                    Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_CONV_DESC,
                    &[&how],
                )?
                .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_W, &[&w])?
                .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DY, &[&y])?
                .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_DX, &[&x])?
                .set(
                    Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_ALPHA,
                    &[1f32],
                )?
                .set(
                    Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_DATA_BETA,
                    &[0f32],
                )?
                .finish()?,
            );
            parts.push(y);
        }
        Pass::Weights => {
            let y = tensor(id::Y, c.element, y_dims)?;
            ops.push(
                Descriptor::new(
                    Kind::CUDNN_BACKEND_OPERATION_CONVOLUTION_BACKWARD_FILTER_DESCRIPTOR,
                )?
                .link(
                    Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_CONV_DESC,
                    &[&how],
                )?
                .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_X, &[&x])?
                .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DY, &[&y])?
                .link(Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_DW, &[&w])?
                .set(
                    Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_ALPHA,
                    &[1f32],
                )?
                .set(
                    Name::CUDNN_ATTR_OPERATION_CONVOLUTION_BWD_FILTER_BETA,
                    &[0f32],
                )?
                .finish()?,
            );
            parts.push(y);
        }
    }
    parts.extend([x, w, how]);
    Ok((ops, parts))
}

/// Describes a pass; `result` is the type of what it writes, `alignment` in bytes that of every operand.
pub(super) fn graph(
    handle: &Handle,
    c: &Convolution,
    pass: Pass,
    epilogue: &[FusedOp],
    result: DType,
    alignment: i64,
) -> Result<Graph> {
    let (ops, mut parts) = operations(c, pass, epilogue, result, alignment)?;
    let graph = Descriptor::new(Kind::CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR)?
        .set(Name::CUDNN_ATTR_OPERATIONGRAPH_HANDLE, &[handle.0])?
        .link(
            Name::CUDNN_ATTR_OPERATIONGRAPH_OPS,
            &ops.iter().collect::<Vec<_>>(),
        )?
        .finish()?;
    parts.splice(..0, ops);
    Ok(Graph {
        graph,
        _parts: parts,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Library;

    /// Descriptions are refused without a GPU where they are wrong, so this says much on any machine that has cuDNN.
    #[test]
    fn the_library_takes_every_description() {
        if !Library::Cudnn.is_there() {
            println!("skipped: no cuDNN");
            return;
        }
        for (stride, pad, h) in [(1, [1; 4], 16), (2, [0, 0, 1, 1], 17)] {
            for element in [DType::F32, DType::Bf16, DType::F16] {
                let c = Convolution {
                    batch: 2,
                    h,
                    w: 12,
                    inputs: 16,
                    outputs: 8,
                    kh: 3,
                    kw: 3,
                    stride,
                    pad,
                    element,
                    tf32: false,
                };
                for epilogue in [
                    &[][..],
                    &[FusedOp::Bias],
                    &[FusedOp::Bias, FusedOp::Residual],
                    &[FusedOp::Residual, FusedOp::RoundedBias],
                ] {
                    let made = operations(&c, Pass::Forward, epilogue, element, 16).unwrap();
                    assert_eq!(made.0.len(), 1 + epilogue.len());
                }
                let none = &[];
                operations(&c, Pass::Data, none, element, 16).unwrap();
                operations(&c, Pass::Weights, none, DType::F32, 16).unwrap();
                let wrong = Convolution { outputs: 0, ..c };
                assert!(operations(&wrong, Pass::Forward, none, element, 16).is_err());
            }
        }
    }
}
