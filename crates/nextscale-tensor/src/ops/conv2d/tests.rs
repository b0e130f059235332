use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

/// The convolution in float64.
fn naive(x: &Tensor, weight: &Tensor, bias: &Tensor, conv: Conv) -> (Vec<f64>, [usize; 4]) {
    let s = sizes("test", x, weight, bias, conv).unwrap();
    let (xs, ws, bs) = (x.f32().unwrap(), weight.f32().unwrap(), bias.f32().unwrap());
    let mut y = Vec::new();
    for b in 0..s.batch {
        for p in 0..s.oh {
            for q in 0..s.ow {
                for (o, bias) in bs.iter().enumerate() {
                    let mut sum = f64::from(*bias);
                    for ty in 0..s.kh {
                        for tx in 0..s.kw {
                            let iy = (p * conv.stride + ty) as isize - conv.pad[0] as isize;
                            let ix = (q * conv.stride + tx) as isize - conv.pad[1] as isize;
                            if iy < 0 || ix < 0 || iy >= s.h as isize || ix >= s.w as isize {
                                continue;
                            }
                            let at = ((b * s.h + iy as usize) * s.w + ix as usize) * s.inputs;
                            let wt = ((o * s.kh + ty) * s.kw + tx) * s.inputs;
                            for i in 0..s.inputs {
                                sum += f64::from(xs[at + i]) * f64::from(ws[wt + i]);
                            }
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    (y, [s.batch, s.oh, s.ow, s.outputs])
}

const CASES: [(usize, usize, usize, usize, usize, usize, bool); 12] = [
    // batch, height, width, inputs, outputs, kernel, halve
    (1, 1, 1, 1, 1, 3, false),
    (2, 5, 7, 3, 4, 3, false),
    (1, 9, 4, 33, 37, 3, false),
    (2, 6, 6, 32, 64, 1, false),
    (1, 13, 11, 40, 5, 3, false),
    (2, 8, 6, 5, 7, 3, true),
    (1, 7, 9, 34, 8, 3, true),
    (3, 4, 4, 64, 33, 3, false),
    (2, 4, 18, 32, 40, 3, false),
    (1, 5, 17, 64, 32, 3, false),
    (1, 1, 16, 32, 7, 3, false),
    (9, 2, 5, 96, 8, 3, false),
];

fn case(c: (usize, usize, usize, usize, usize, usize, bool)) -> ([Tensor; 3], Conv) {
    let (b, h, w, i, o, k, halve) = c;
    let conv = if halve { Conv::halve() } else { Conv::same(k) };
    let t = [
        random([b, h, w, i], 1),
        random([o, k, k, i], 2),
        random([o], 3),
    ];
    (t, conv)
}

#[test]
fn forward_matches_f64() {
    for c in CASES {
        let ([x, w, b], conv) = case(c);
        let y = conv2d(&Cx::off(), &x, &w, &b, conv, None).unwrap();
        let (want, dims) = naive(&x, &w, &b, conv);
        assert_eq!(y.dims(), dims);
        assert!(worst(y.f32().unwrap(), &want) < 2e-5, "{c:?}");
        let r = random(dims, 4);
        let y = conv2d(&Cx::off(), &x, &w, &b, conv, Some(&r)).unwrap();
        let want: Vec<f64> = want
            .iter()
            .zip(r.f32().unwrap())
            .map(|(a, b)| a + f64::from(*b))
            .collect();
        assert!(worst(y.f32().unwrap(), &want) < 2e-5, "{c:?}");
    }
}

#[test]
fn gradients_match_differences() {
    for c in CASES {
        let ([x, w, b], conv) = case(c);
        let (_, dims) = naive(&x, &w, &b, conv);
        let inputs = [x, w, b, random(dims, 5)];
        check_gradients(&inputs, 1e-2, 5e-3, |cx, t| {
            conv2d(cx, &t[0], &t[1], &t[2], conv, Some(&t[3]))
        });
    }
}

#[test]
fn shapes_are_checked() {
    let cx = Cx::off();
    let (x, w, b) = (
        random([1, 4, 4, 3], 1),
        random([2, 3, 3, 3], 2),
        random([2], 3),
    );
    assert!(conv2d(&cx, &x, &random([2, 3, 3, 4], 1), &b, Conv::same(3), None).is_err());
    assert!(conv2d(&cx, &x, &w, &random([3], 1), Conv::same(3), None).is_err());
    assert!(conv2d(&cx, &random([16, 3], 1), &w, &b, Conv::same(3), None).is_err());
    let tiny = random([1, 1, 1, 3], 1);
    assert!(
        conv2d(
            &cx,
            &tiny,
            &w,
            &b,
            Conv {
                stride: 1,
                pad: [0; 4]
            },
            None
        )
        .is_err()
    );
    assert!(conv2d(&cx, &x, &w, &b, Conv::same(3), Some(&tiny)).is_err());
}

/// In several tests, so that tools that make them a hundred times slower can run these beside each other.
fn check_on_gpu(cases: &[(usize, usize, usize, usize, usize, usize, bool)]) {
    for &c in cases {
        let ([x, w, b], conv) = case(c);
        let (_, dims) = naive(&x, &w, &b, conv);
        let r = random(dims, 5);
        let inputs = [
            (x, Role::Activation),
            (w, Role::Float32),
            (b, Role::Float32),
            (r, Role::Activation),
        ];
        check_cuda(&inputs[..3], [3e-6, 5e-3, 6e-4], |cx, t| {
            Ok(vec![conv2d(cx, &t[0], &t[1], &t[2], conv, None)?])
        });
        check_cuda(&inputs, [3e-6, 5e-3, 6e-4], |cx, t| {
            Ok(vec![conv2d(cx, &t[0], &t[1], &t[2], conv, Some(&t[3]))?])
        });
    }
}

#[test]
fn a_gpu_agrees_on_the_first_cases() {
    check_on_gpu(&CASES[..3]);
}

#[test]
fn a_gpu_agrees_on_the_next_cases() {
    check_on_gpu(&CASES[3..6]);
}

#[test]
fn a_gpu_agrees_on_further_cases() {
    check_on_gpu(&CASES[6..9]);
}

#[test]
fn a_gpu_agrees_on_the_last_cases() {
    check_on_gpu(&CASES[9..]);
}

#[test]
fn a_gpu_agrees_on_aligned_channels() {
    check_on_gpu(&[
        (2, 16, 16, 32, 32, 3, false),
        (3, 9, 8, 16, 24, 3, true),
        (2, 8, 8, 64, 3, 3, false),
    ]);
}

#[test]
fn a_gpu_agrees_on_wide_channels() {
    check_on_gpu(&[(2, 7, 5, 24, 40, 1, false), (2, 12, 12, 160, 96, 3, false)]);
}

#[test]
fn a_convolution_counts_its_products_and_what_it_moves() {
    let (x, w) = (Tensor::zeros([2, 8, 6, 3]), Tensor::zeros([5, 3, 3, 3]));
    let s = sizes("test", &x, &w, &Tensor::zeros([5]), Conv::halve()).unwrap();
    let y = 2 * 4 * 3 * 5;
    let flops = (2 * y * 27) as f64;
    let math = crate::Math::FULL;
    let plain = s.work(math, false);
    assert_eq!(plain.flops, flops);
    assert_eq!(plain.bytes, (4 * (x.numel() + w.numel() + y)) as f64);
    assert_eq!(plain.note, "8×6 3→5 3×3");
    assert_eq!(s.work(math, true).bytes, plain.bytes + (4 * y) as f64);
    let weights = s.gradient_work(math, false);
    assert_eq!((weights.flops, weights.bytes), (flops, plain.bytes));
    let both = s.gradient_work(math, true);
    assert_eq!(both.flops, 2.0 * flops);
    assert_eq!(
        both.bytes,
        plain.bytes + (4 * (x.numel() + w.numel())) as f64
    );
}
