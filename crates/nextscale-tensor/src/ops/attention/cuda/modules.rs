//! The kernels as they are declared, by source file.

use crate::cuda::{Kernel, Module};

/// Half precision, heads of 64: y, and the joining of parts.
pub(crate) static FORWARD: Module = Module {
    name: "attention_forward",
    source: concat!(
        include_str!("../kernels/fragments.cuh"),
        include_str!("../kernels/forward.cu")
    ),
    specific: true,
    kernels: &[
        Kernel {
            name: "key_norms_bf16",
            signature: "ppiiuu",
        },
        Kernel {
            name: "forward_bf16",
            signature: "ppppppppiiiiiuuuuu",
        },
        Kernel {
            name: "join_bf16",
            signature: "ppiiii",
        },
        Kernel {
            name: "key_norms_f16",
            signature: "ppiiuu",
        },
        Kernel {
            name: "forward_f16",
            signature: "ppppppppiiiiiuuuuu",
        },
        Kernel {
            name: "join_f16",
            signature: "ppiiii",
        },
    ],
};

/// Half precision, heads of 64: gradients.
pub(crate) static BACKWARD: Module = Module {
    name: "attention_backward",
    source: concat!(
        include_str!("../kernels/fragments.cuh"),
        include_str!("../kernels/backward.cu")
    ),
    specific: true,
    kernels: &[
        Kernel {
            name: "backward_queries_bf16",
            signature: "pppppppppiii",
        },
        Kernel {
            name: "backward_keys_bf16",
            signature: "pppppppiii",
        },
        Kernel {
            name: "backward_queries_f16",
            signature: "pppppppppiii",
        },
        Kernel {
            name: "backward_keys_f16",
            signature: "pppppppiii",
        },
    ],
};

/// Float32 arithmetic, and what both ways share.
pub(crate) static PLAIN: Module = Module {
    name: "attention_plain",
    source: include_str!("../kernels/plain.cu"),
    specific: false,
    kernels: &[
        Kernel {
            name: "plain_forward_64_float",
            signature: "pppppppiiiiiiuuuuu",
        },
        Kernel {
            name: "plain_backward_queries_64_float",
            signature: "pppppppppiiii",
        },
        Kernel {
            name: "plain_backward_keys_64_float",
            signature: "pppppppiiii",
        },
        Kernel {
            name: "plain_forward_64_bf16",
            signature: "pppppppiiiiiiuuuuu",
        },
        Kernel {
            name: "plain_backward_queries_64_bf16",
            signature: "pppppppppiiii",
        },
        Kernel {
            name: "plain_backward_keys_64_bf16",
            signature: "pppppppiiii",
        },
        Kernel {
            name: "plain_forward_64_f16",
            signature: "pppppppiiiiiiuuuuu",
        },
        Kernel {
            name: "plain_backward_queries_64_f16",
            signature: "pppppppppiiii",
        },
        Kernel {
            name: "plain_backward_keys_64_f16",
            signature: "pppppppiiii",
        },
        Kernel {
            name: "plain_forward_128_float",
            signature: "pppppppiiiiiiuuuuu",
        },
        Kernel {
            name: "plain_backward_queries_128_float",
            signature: "pppppppppiiii",
        },
        Kernel {
            name: "plain_backward_keys_128_float",
            signature: "pppppppiiii",
        },
        Kernel {
            name: "plain_forward_128_bf16",
            signature: "pppppppiiiiiiuuuuu",
        },
        Kernel {
            name: "plain_backward_queries_128_bf16",
            signature: "pppppppppiiii",
        },
        Kernel {
            name: "plain_backward_keys_128_bf16",
            signature: "pppppppiiii",
        },
        Kernel {
            name: "plain_forward_128_f16",
            signature: "pppppppiiiiiiuuuuu",
        },
        Kernel {
            name: "plain_backward_queries_128_f16",
            signature: "pppppppppiiii",
        },
        Kernel {
            name: "plain_backward_keys_128_f16",
            signature: "pppppppiiii",
        },
        Kernel {
            name: "append_float",
            signature: "pppiiiiiii",
        },
        Kernel {
            name: "append_bf16",
            signature: "pppiiiiiii",
        },
        Kernel {
            name: "append_f16",
            signature: "pppiiiiiii",
        },
        Kernel {
            name: "scale_gradient",
            signature: "pppiii",
        },
    ],
};

/// Names for y: heads up to 64, up to 128; by type.
pub(super) const PLAIN_FORWARD: [[&str; 3]; 2] = [
    [
        "plain_forward_64_float",
        "plain_forward_64_bf16",
        "plain_forward_64_f16",
    ],
    [
        "plain_forward_128_float",
        "plain_forward_128_bf16",
        "plain_forward_128_f16",
    ],
];
/// Names for the gradient of queries: heads up to 64, up to 128; by type.
pub(super) const PLAIN_BACKWARD_QUERIES: [[&str; 3]; 2] = [
    [
        "plain_backward_queries_64_float",
        "plain_backward_queries_64_bf16",
        "plain_backward_queries_64_f16",
    ],
    [
        "plain_backward_queries_128_float",
        "plain_backward_queries_128_bf16",
        "plain_backward_queries_128_f16",
    ],
];
/// Names for the gradients of keys and values: heads up to 64, up to 128; by type.
pub(super) const PLAIN_BACKWARD_KEYS: [[&str; 3]; 2] = [
    [
        "plain_backward_keys_64_float",
        "plain_backward_keys_64_bf16",
        "plain_backward_keys_64_f16",
    ],
    [
        "plain_backward_keys_128_float",
        "plain_backward_keys_128_bf16",
        "plain_backward_keys_128_f16",
    ],
];
