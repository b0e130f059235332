//! The kernels as they are declared, by source file.

use crate::{DType, Error, Result};
use nextscale_cuda::headers::{COPIES, HOPPER};
use nextscale_cuda::{Kernel, Module, kernels};

/// Half precision, heads of 64: y, caches, and the joining of parts.
pub(crate) static FORWARD: Module = Module {
    name: "attention_forward",
    source: &[
        COPIES,
        HOPPER,
        include_str!("../kernels/fragments.cuh"),
        include_str!("../kernels/forward.cu"),
    ],
    specific: true,
    kernels: kernels! {
        unit_keys: "ppiiuu" for bf16 f16;
        append_rows: "pppiiiiii" for bf16 f16;
        forward: "ppppppppiiiiiuuuuumm" for bf16 f16;
        join: "ppiiii" for bf16 f16;
    },
};

/// Half precision, heads of 64: gradients.
pub(crate) static BACKWARD: Module = Module {
    name: "attention_backward",
    source: &[
        COPIES,
        HOPPER,
        include_str!("../kernels/fragments.cuh"),
        include_str!("../kernels/backward.cu"),
        include_str!("../kernels/scale_gradient.cu"),
    ],
    specific: true,
    kernels: kernels! {
        backward_queries: "pppppppppiiim" for bf16 f16;
        backward_keys: "pppppppiiimm" for bf16 f16;
        scale_gradient: "pppiii";
    },
};

/// Float32 arithmetic for one type of storage and heads up to a width: modules of their own, so that a run compiles only
/// what it uses.
macro_rules! plain {
    ($($static:ident $name:literal $element:literal $wide:literal;)+) => { $(
        pub(crate) static $static: Module = Module {
            name: $name,
            source: &[
                concat!("typedef ", $element, " Element;\nconstexpr int WIDE = ", $wide, ";\n"),
                include_str!("../kernels/plain.cu"),
                include_str!("../kernels/scale_gradient.cu"),
            ],
            specific: false,
            kernels: PLAIN,
        };
    )+ };
}

const PLAIN: &[Kernel] = kernels! {
    plain_forward: "pppppppiiiiiiuuuuu";
    plain_backward_queries: "pppppppppiiii";
    plain_backward_keys: "pppppppiiii";
    plain_append: "pppiiiiiii";
    scale_gradient: "pppiii";
};

plain! {
    F32_64 "attention_f32_64" "float" 64;
    BF16_64 "attention_bf16_64" "bf16" 64;
    F16_64 "attention_f16_64" "f16" 64;
    F32_128 "attention_f32_128" "float" 128;
    BF16_128 "attention_bf16_128" "bf16" 128;
    F16_128 "attention_f16_128" "f16" 128;
}

/// The module for a type and heads of width `dim`, at most 128.
///
/// # Errors
/// For integers.
pub(super) fn plain(dtype: DType, dim: usize) -> Result<&'static Module> {
    match (dtype, dim <= 64) {
        (DType::F32, true) => Ok(&F32_64),
        (DType::Bf16, true) => Ok(&BF16_64),
        (DType::F16, true) => Ok(&F16_64),
        (DType::F32, false) => Ok(&F32_128),
        (DType::Bf16, false) => Ok(&BF16_128),
        (DType::F16, false) => Ok(&F16_128),
        (other, _) => Err(Error::DType {
            op: "attention",
            expected: "a float",
            found: other.name(),
        }),
    }
}
