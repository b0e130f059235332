use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

const fn window(size: usize, stride: usize, pad: usize) -> Window {
    Window { size, stride, pad }
}

const CASES: [([usize; 4], Window); 7] = [
    ([1, 1, 1, 1], window(1, 1, 0)),
    ([2, 7, 9, 3], window(3, 2, 0)),
    ([1, 8, 8, 5], window(3, 2, 1)),
    ([2, 5, 6, 33], window(3, 1, 1)),
    ([1, 6, 4, 8], window(2, 2, 0)),
    ([3, 4, 11, 2], window(4, 3, 2)),
    ([1, 17, 17, 64], window(3, 2, 0)),
];

/// The largest of every window, and the pixel that has it, one element at a time.
fn naive(x: &Tensor, window: Window) -> (Vec<f32>, [usize; 4]) {
    let &[b, h, w, c] = x.dims() else { panic!() };
    let out = |n: usize| (n + 2 * window.pad - window.size) / window.stride + 1;
    let (oh, ow, xs) = (out(h), out(w), x.f32().unwrap());
    let mut y = Vec::new();
    for n in 0..b {
        for i in 0..oh {
            for j in 0..ow {
                for ch in 0..c {
                    let mut best = f32::NEG_INFINITY;
                    for p in 0..window.size {
                        for q in 0..window.size {
                            let row = (i * window.stride + p).checked_sub(window.pad);
                            let col = (j * window.stride + q).checked_sub(window.pad);
                            if let (Some(r), Some(s)) = (row, col) {
                                if r < h && s < w {
                                    best = best.max(xs[((n * h + r) * w + s) * c + ch]);
                                }
                            }
                        }
                    }
                    y.push(best);
                }
            }
        }
    }
    (y, [b, oh, ow, c])
}

#[test]
fn takes_the_largest() {
    for (dims, window) in CASES {
        let x = random(dims, 1);
        let (want, shape) = naive(&x, window);
        let y = max_pool(&Cx::off(), &x, window).unwrap();
        assert_eq!(y.dims(), shape);
        assert_eq!(y.f32().unwrap(), want, "{dims:?} {window:?}");
    }
}

#[test]
fn gradients_match_differences() {
    for (dims, window) in CASES {
        // A shuffle of numbers that are far apart: no step of a difference changes the winner.
        let n = dims.iter().product::<usize>();
        let values = (0..n).map(|i| (i * 7919 % 10_007) as f32 * 0.05).collect();
        let x = [Tensor::from_vec(dims, values)];
        check_gradients(&x, 1e-2, 5e-3, |cx, t| max_pool(cx, &t[0], window));
    }
}

#[test]
fn the_first_of_equals_and_what_is_no_number_win() {
    let x = Tensor::from_vec([1, 2, 2, 1], vec![1.0, 3.0, 3.0, 2.0]);
    let tape = crate::Tape::new();
    let cx = Cx::on(&tape);
    let (x, key) = cx.leaf(&x);
    let y = max_pool(&cx, &x, window(2, 1, 0)).unwrap();
    let grads = tape.backward(&y, 1.0, None, &[key]).unwrap();
    let g = grads[0].as_ref().unwrap();
    assert_eq!(g.f32().unwrap(), [0.0, 1.0, 0.0, 0.0]);
    let x = Tensor::from_vec([1, 2, 2, 1], vec![1.0, f32::NAN, 3.0, 2.0]);
    let y = max_pool(&Cx::off(), &x, window(2, 1, 0)).unwrap();
    assert!(y.f32().unwrap()[0].is_nan());
}

#[test]
fn shapes_are_checked() {
    let x = random([1, 2, 5, 3], 1);
    for wrong in [
        window(3, 1, 0),
        window(0, 1, 0),
        window(2, 0, 0),
        window(2, 1, 2),
    ] {
        assert!(max_pool(&Cx::off(), &x, wrong).is_err(), "{wrong:?}");
    }
    assert!(max_pool(&Cx::off(), &random([2, 3], 1), window(1, 1, 0)).is_err());
}

#[test]
fn a_gpu_agrees() {
    for (dims, window) in CASES {
        let inputs = [(random(dims, 1), Role::Activation)];
        check_cuda(&inputs, [1e-6, 4e-3, 5e-4], |cx, t| {
            Ok(vec![max_pool(cx, &t[0], window)?])
        });
    }
}
