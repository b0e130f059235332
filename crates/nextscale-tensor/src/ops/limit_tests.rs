//! Extents that do not fit into 32 bits, or into any number: computed with 64, or refused before anything is asked of a GPU.

use super::testing::dry_gpu;
use super::{Activation, Bias, Conv};
use crate::{Cx, DType, Error, Math, Result, Tensor, ops};

/// The levels of 680 tokens.
const LEVELS: [usize; 10] = [1, 5, 14, 30, 55, 91, 155, 255, 424, 680];

#[test]
fn extents_that_no_number_holds_are_refused() {
    let device = dry_gpu().0;
    for shape in [[1 << 32, 1 << 32], [usize::MAX, 3], [1 << 62, 1]] {
        let made = Tensor::zeros_on(device, shape, DType::F32);
        assert!(matches!(made, Err(Error::Memory(_))), "{shape:?}");
    }
    assert_eq!(
        Tensor::zeros_on(device, [usize::MAX, 0], DType::F32)
            .unwrap()
            .numel(),
        0
    );
}

/// 2,048 images of 680 tokens at depth 30, and a decoder's maps of 64 images of 512 px: more elements than 32 bits count.
#[test]
fn large_batches_are_computed() {
    let (device, _) = dry_gpu();
    let math = Math {
        operands: DType::Bf16,
        tf32: false,
    };
    let zeros = |shape: &[usize], dtype| Tensor::zeros_on(device, shape, dtype).unwrap();
    let (half, full) = (DType::Bf16, DType::F32);
    let tape = crate::Tape::new();
    let cx = Cx::on(&tape).with(math);
    let (b, l, c) = (2048, 680, 1920);

    let (w, bias) = (zeros(&[4 * c, c], full), zeros(&[4 * c], full));
    let (x, key) = cx.leaf(&zeros(&[b, l, c], half));
    let y = ops::linear(&cx, &x, &w, Bias::Full(&bias), Activation::Gelu).unwrap();
    assert_eq!(y.numel(), 10_695_475_200);
    let seed = zeros(&[b, l, 4 * c], half);
    tape.backward_from(&y, seed, None, &[key]).unwrap();
    drop((x, y));

    let tape = crate::Tape::new();
    let cx = Cx::on(&tape).with(math);
    let (qkv, key) = cx.leaf(&zeros(&[b, l, 3 * c], half));
    let scale = zeros(&[1, 30, 1, 1], full);
    let y = ops::attention(&cx, qkv, Some(&scale), 30, &LEVELS).unwrap();
    tape.backward_from(&y, zeros(&[b, l, c], half), None, &[key])
        .unwrap();

    let tape = crate::Tape::new();
    let cx = Cx::on(&tape).with(math);
    let (logits, key) = cx.leaf(&zeros(&[b, l, 4096], full));
    let targets = zeros(&[b, l], DType::I32);
    let e = ops::cross_entropy(&cx, logits, &targets, &[1.0; 680], 0.1).unwrap();
    tape.backward_from(&e.loss, zeros(&[1], full), None, &[key])
        .unwrap();

    let tape = crate::Tape::new();
    let cx = Cx::on(&tape).with(math);
    let (x, key) = cx.leaf(&zeros(&[64, 256, 256, 160], half));
    let (w, bias) = (zeros(&[160, 3, 3, 160], full), zeros(&[160], full));
    let y = ops::upsample_nearest2x(&cx, &x).unwrap();
    let y = ops::group_norm(&cx, &y, &bias, &bias, 32, 1e-6, true).unwrap();
    let y = ops::conv2d(&cx, &y, &w, &bias, Conv::same(3), None).unwrap();
    assert_eq!(y.numel(), 2_684_354_560);
    let seed = zeros(&[64, 512, 512, 160], half);
    tape.backward_from(&y, seed, None, &[key]).unwrap();
}

/// What kernels count with 32 bits is looked at before they are asked.
#[test]
fn more_than_32_bits_count_is_one_line() {
    let device = dry_gpu().0;
    let many = |r: Result<()>| {
        let e = r.unwrap_err();
        assert!(matches!(e, Error::TooMany(_)), "{e}");
        assert!(!e.to_string().contains('\n'), "{e}");
    };
    let zeros = |shape: &[usize], dtype| Tensor::zeros_on(device, shape, dtype).unwrap();
    let cx = Cx::off();
    // A line of the large map has 2^31 elements.
    let x = zeros(&[1, 1, 1 << 22, 256], DType::F32);
    many(ops::upsample_nearest2x(&cx, &x).map(|_| ()));
    let x = zeros(&[1, 1, 1 << 23, 256], DType::F32);
    many(ops::bicubic(&cx, &x, (2, 1 << 23)).map(|_| ()));
    let qkv = zeros(&[1, 1 << 20, 3 * 64 * 2048], DType::Bf16);
    many(ops::attention(&cx, qkv, None, 2048, &[1 << 20]).map(|_| ()));
    let table = zeros(&[4, 8], DType::F32);
    let indices = zeros(&[1 << 31], DType::I32);
    ops::gather_rows(&cx, &table, &indices).unwrap();
    let wide = zeros(&[1 << 31, 1], DType::F32);
    many(ops::gather_rows(&cx, &wide, &zeros(&[4], DType::I32)).map(|_| ()));
}
