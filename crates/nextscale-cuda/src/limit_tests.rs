//! Extents that do not fit into 32 bits, or into any number: computed with 64, or refused before anything is asked of a GPU.

use super::*;
use crate::dry::tests::dry_gpu;
use crate::kernel::{MEMORY, MOST_COUNT, Shape};
use crate::matmul::{Batch, DevicePtr, Epilogue, Operands, Product};
use crate::{DType, Error, Result};

fn product(m: usize, n: usize, k: usize) -> Product {
    Product {
        m,
        n,
        k,
        operands: DType::F32,
        result: DType::F32,
        a_transposed: false,
        b_transposed: false,
        accumulate: false,
        tf32: false,
        epilogue: Epilogue::Plain,
    }
}

fn convolution(batch: usize, side: usize, inputs: usize, outputs: usize) -> conv::Convolution {
    conv::Convolution {
        batch,
        h: side,
        w: side,
        inputs,
        outputs,
        kh: 3,
        kw: 3,
        stride: 1,
        pad: [1; 4],
        element: DType::Bf16,
        tf32: false,
    }
}

/// Products of extents that begin again at zero would find any buffer long enough.
#[test]
fn extents_that_no_number_holds_are_refused() {
    let gpu = dry_gpu();
    let buffer = DeviceBuffer::new(gpu, 1 << 10).unwrap();
    let at = DevicePtr(&buffer, 0);
    let o = Operands {
        a: at,
        b: at,
        c: at,
        vector: None,
        aux: None,
    };
    let p = product(8, 8, 8);
    gpu.matmul(&p, &o).unwrap();
    for (count, rows, step) in [
        (2, 8, 1 << 62),
        (5, 8, 1 << 62),
        (1, 1 << 62, 64),
        ((1 << 62) + 1, 8, 4),
        (1 << 31, 8, 0),
    ] {
        let batch = Batch {
            count,
            rows: [rows; 3],
            steps: [step; 3],
        };
        let e = gpu.matmul_batch(&p, &batch, &o).unwrap_err().to_string();
        assert!(e.contains("matmul"), "{e}");
    }
    for (m, n, k) in [(1 << 32, 1 << 32, 1), (1 << 62, 1, 8), (8, 1 << 61, 8)] {
        assert!(gpu.matmul(&product(m, n, k), &o).is_err(), "{m} {n} {k}");
    }
    let far = conv::Convolution {
        pad: [usize::MAX, 0, 0, 0],
        ..convolution(1, 2, 1, 1)
    };
    let huge = [
        (1 << 29, 1 << 20, 1 << 15, 1),
        (1 << 29, 1 << 29, 1 << 5, 1),
    ];
    let huge = huge.map(|(b, side, i, o)| convolution(b, side, i, o));
    for c in huge.into_iter().chain([far]) {
        assert!(gpu.conv_forward(&c, at, at, None, None, at).is_err());
        assert!(gpu.conv_data_gradient(&c, at, at, at).is_err());
        assert!(gpu.conv_weight_gradient(&c, at, at, at).is_err());
    }
    let summed = gpu.add_row_sums(at, DType::F32, 1 << 61, 8, at);
    assert!(summed.is_err());
}

#[test]
fn integers_are_refused() {
    let gpu = dry_gpu();
    let buffer = DeviceBuffer::new(gpu, 1 << 10).unwrap();
    let at = DevicePtr(&buffer, 0);
    let o = Operands {
        a: at,
        b: at,
        c: at,
        vector: None,
        aux: None,
    };
    let refused = |r: Result<()>| {
        let text = r.unwrap_err().to_string();
        assert!(text.ends_with("expected a float, found i32"), "{text}");
    };
    let (p, c) = (product(8, 8, 8), convolution(1, 4, 2, 2));
    for (operands, result) in [(DType::I32, DType::F32), (DType::F32, DType::I32)] {
        let p = Product {
            operands,
            result,
            ..p
        };
        refused(gpu.matmul(&p, &o));
    }
    gpu.conv_forward(&c, at, at, None, None, at).unwrap();
    let element = DType::I32;
    let c = conv::Convolution { element, ..c };
    refused(gpu.conv_forward(&c, at, at, None, None, at));
    refused(gpu.conv_data_gradient(&c, at, at, at));
    refused(gpu.conv_weight_gradient(&c, at, at, at));
    refused(gpu.add_row_sums(at, element, 2, 2, at));
}

/// What kernels count with 32 bits is looked at before they are asked.
#[test]
fn more_than_32_bits_count_is_one_line() {
    let gpu = dry_gpu();
    let many = |r: Result<()>| {
        let e = r.unwrap_err();
        assert!(matches!(e, Error::TooMany(_)), "{e}");
        assert!(!e.to_string().contains('\n'), "{e}");
    };
    let buffer = DeviceBuffer::new(gpu, 4).unwrap();
    let launch = |grid| {
        let shape = Shape {
            grid,
            threads: 256,
            shared: 0,
        };
        gpu.launch(
            &MEMORY,
            "fill_f32",
            shape,
            &[Arg::In(&buffer), Arg::F32(0.0), Arg::U64(1)],
        )
    };
    launch([(1 << 31) - 1, 65_535, 1]).unwrap();
    for grid in [
        [1 << 31, 1, 1],
        [1 << 32, 1, 1],
        [1, 65_536, 1],
        [1, 1, 1 << 32],
    ] {
        many(launch(grid));
    }
    gpu.counts(&MEMORY, MOST_COUNT, MOST_COUNT, "things")
        .unwrap();
}
