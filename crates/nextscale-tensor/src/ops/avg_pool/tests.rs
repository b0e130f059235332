use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

const fn window(size: usize, stride: usize, pad: usize) -> Window {
    Window { size, stride, pad }
}

const CASES: [([usize; 4], Window); 6] = [
    ([1, 1, 1, 1], window(1, 1, 0)),
    ([2, 7, 9, 3], window(3, 2, 0)),
    ([2, 5, 6, 33], window(3, 1, 1)),
    ([1, 6, 4, 8], window(2, 2, 0)),
    ([3, 4, 11, 2], window(4, 3, 2)),
    ([1, 8, 8, 64], window(8, 1, 0)),
];

/// The means in float64.
fn naive(x: &Tensor, window: Window, padding: bool) -> Vec<f64> {
    let &[b, h, w, c] = x.dims() else { panic!() };
    let out = |n: usize| (n + 2 * window.pad - window.size) / window.stride + 1;
    let xs = x.f32().unwrap();
    let mut y = Vec::new();
    for n in 0..b {
        for i in 0..out(h) {
            for j in 0..out(w) {
                for ch in 0..c {
                    let (mut sum, mut count) = (0.0, 0);
                    for p in 0..window.size {
                        for q in 0..window.size {
                            let row = (i * window.stride + p).checked_sub(window.pad);
                            let col = (j * window.stride + q).checked_sub(window.pad);
                            if let (Some(r), Some(s)) = (row, col)
                                && r < h
                                && s < w
                            {
                                sum += f64::from(xs[((n * h + r) * w + s) * c + ch]);
                                count += 1;
                            }
                        }
                    }
                    let all = window.size * window.size;
                    y.push(sum / f64::from(if padding { all as u32 } else { count }));
                }
            }
        }
    }
    y
}

#[test]
fn matches_f64_and_differences() {
    for (dims, window) in CASES {
        for padding in [false, true] {
            let x = random(dims, 1);
            let y = avg_pool(&Cx::off(), &x, window, padding).unwrap();
            let want = naive(&x, window, padding);
            assert!(worst(y.f32().unwrap(), &want) < 2e-6, "{dims:?} {window:?}");
            check_gradients(&[x], 1e-2, 2e-3, |cx, t| {
                avg_pool(cx, &t[0], window, padding)
            });
        }
    }
}

#[test]
fn shapes_are_checked() {
    let x = random([1, 2, 5, 3], 1);
    for wrong in [window(3, 1, 0), window(0, 1, 0), window(2, 0, 0)] {
        assert!(avg_pool(&Cx::off(), &x, wrong, true).is_err(), "{wrong:?}");
    }
    assert!(avg_pool(&Cx::off(), &random([2, 3], 1), window(1, 1, 0), true).is_err());
}

#[test]
fn a_gpu_agrees() {
    for (dims, window) in CASES {
        let x = [(random(dims, 1), Role::Float32)];
        // The same sums in the same order.
        check_cuda(&x, [0.0; 3], |cx, t| {
            Ok(vec![
                avg_pool(cx, &t[0], window, false)?,
                avg_pool(cx, &t[0], window, true)?,
            ])
        });
    }
}
