use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

/// Resizing in float64 straight from the definitions, two-dimensional.
#[derive(Clone, Copy, PartialEq)]
enum How {
    Area,
    Bicubic,
    Bilinear,
    Corners,
}

fn naive(x: &Tensor, (h, w): (usize, usize), how: How) -> Vec<f64> {
    let &[b, fh, fw, c] = x.dims() else { panic!() };
    let xs = x.f32().unwrap();
    let kernel = |t: f64| {
        let (a, t) = (-0.75, t.abs());
        if t <= 1.0 {
            (a + 2.0) * t.powi(3) - (a + 3.0) * t * t + 1.0
        } else if t < 2.0 {
            a * t.powi(3) - 5.0 * a * t * t + 8.0 * a * t - 4.0 * a
        } else {
            0.0
        }
    };
    let taps = |i: usize, from: usize, to: usize| -> Vec<(usize, f64)> {
        let place = match how {
            How::Bilinear => Some(((i as f64 + 0.5) * from as f64 / to as f64 - 0.5).max(0.0)),
            How::Corners => Some(i as f64 * from as f64 / to as f64),
            How::Area | How::Bicubic => None,
        };
        if let Some(at) = place {
            let (low, t) = (at.floor() as usize, at - at.floor());
            vec![(low, 1.0 - t), ((low + 1).min(from - 1), t)]
        } else if how == How::Bicubic {
            let at = (i as f64 + 0.5) * from as f64 / to as f64 - 0.5;
            (-1..=2)
                .map(|k| {
                    let j = at.floor() as isize + k;
                    let clamped = j.clamp(0, from as isize - 1) as usize;
                    (clamped, kernel(at - j as f64))
                })
                .collect()
        } else {
            let (s, e) = (i * from / to, ((i + 1) * from).div_ceil(to));
            (s..e).map(|j| (j, 1.0 / (e - s) as f64)).collect()
        }
    };
    let mut y = Vec::new();
    for n in 0..b {
        for i in 0..h {
            for j in 0..w {
                for ch in 0..c {
                    let mut sum = 0.0;
                    for (p, wp) in taps(i, fh, h) {
                        for (q, wq) in taps(j, fw, w) {
                            sum += wp * wq * f64::from(xs[((n * fh + p) * fw + q) * c + ch]);
                        }
                    }
                    y.push(sum);
                }
            }
        }
    }
    y
}

const SIZES: [((usize, usize), (usize, usize)); 8] = [
    ((1, 1), (4, 4)),
    ((2, 2), (5, 7)),
    ((3, 4), (16, 16)),
    ((13, 13), (16, 16)),
    ((16, 16), (13, 13)),
    ((16, 16), (1, 1)),
    ((5, 7), (5, 3)),
    ((4, 4), (4, 4)),
];

#[test]
fn matches_f64() {
    for (from, to) in SIZES {
        let x = random([2, from.0, from.1, 5], 1);
        let y = area(&Cx::off(), &x, to).unwrap();
        assert_eq!(y.dims(), [2, to.0, to.1, 5]);
        assert!(worst(y.f32().unwrap(), &naive(&x, to, How::Area)) < 2e-6);
        let y = bicubic(&Cx::off(), &x, to).unwrap();
        assert!(worst(y.f32().unwrap(), &naive(&x, to, How::Bicubic)) < 5e-6);
        let y = bilinear(&Cx::off(), &x, to).unwrap();
        assert!(worst(y.f32().unwrap(), &naive(&x, to, How::Bilinear)) < 5e-6);
        let y = asymmetric_bilinear(&Cx::off(), &x, to).unwrap();
        assert!(worst(y.f32().unwrap(), &naive(&x, to, How::Corners)) < 5e-6);
    }
}

#[test]
fn gradients_match_differences() {
    for (from, to) in SIZES {
        let x = [random([2, from.0, from.1, 3], 1)];
        check_gradients(&x, 1e-2, 2e-3, |cx, t| area(cx, &t[0], to));
        check_gradients(&x, 1e-2, 2e-3, |cx, t| bicubic(cx, &t[0], to));
        // Where much is left out, the elements that are tried may all be among that.
        if to.0 >= from.0 && to.1 >= from.1 {
            check_gradients(&x, 1e-2, 2e-3, |cx, t| bilinear(cx, &t[0], to));
            check_gradients(&x, 1e-2, 2e-3, |cx, t| asymmetric_bilinear(cx, &t[0], to));
        }
    }
    let x = [random([2, 5, 7, 3], 1)];
    check_gradients(&x, 1e-2, 2e-3, |cx, t| bilinear(cx, &t[0], (3, 5)));
    check_gradients(&x, 1e-2, 2e-3, |cx, t| {
        asymmetric_bilinear(cx, &t[0], (3, 5))
    });
}

#[test]
fn shapes_are_checked() {
    assert!(area(&Cx::off(), &random([2, 3], 1), (1, 1)).is_err());
    assert!(bicubic(&Cx::off(), &random([1, 2, 2, 1], 1), (0, 1)).is_err());
}

#[test]
fn cuda_matches() {
    for (from, to) in SIZES {
        // Vectors of four channels, and single ones.
        for c in [32, 5] {
            let x = [(random([3, from.0, from.1, c], 1), Role::Float32)];
            // The same sums in the same order: not even a rounding apart.
            check_cuda(&x, [0.0; 3], |cx, t| {
                Ok(vec![
                    area(cx, &t[0], to)?,
                    bicubic(cx, &t[0], to)?,
                    bilinear(cx, &t[0], to)?,
                    asymmetric_bilinear(cx, &t[0], to)?,
                ])
            });
        }
    }
}
