use super::*;
use crate::ops::conv2d;
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

#[test]
fn blends_the_convolution() {
    let (x, w, b) = (
        random([2, 4, 5, 6], 1),
        random([6, 3, 3, 6], 2),
        random([6], 3),
    );
    let plain = conv2d(&Cx::off(), &x, &w, &b, Conv::same(3), None).unwrap();
    for rho in [0.0f32, 0.5, 1.0] {
        let y = phi(&Cx::off(), &x, &w, &b, rho).unwrap();
        let r = f64::from(rho);
        let want: Vec<f64> = x
            .f32()
            .unwrap()
            .iter()
            .zip(plain.f32().unwrap())
            .map(|(x, c)| (1.0 - r) * f64::from(*x) + r * f64::from(*c))
            .collect();
        assert!(worst(y.f32().unwrap(), &want) < 1e-5);
    }
}

#[test]
fn gradients_match_differences() {
    let inputs = [
        random([2, 4, 5, 6], 1),
        random([6, 3, 3, 6], 2),
        random([6], 3),
    ];
    check_gradients(&inputs, 1e-2, 3e-3, |cx, t| {
        phi(cx, &t[0], &t[1], &t[2], 0.5)
    });
}

#[test]
fn weight_must_be_square() {
    let (x, w, b) = (
        random([1, 4, 4, 6], 1),
        random([5, 3, 3, 6], 2),
        random([5], 3),
    );
    assert!(phi(&Cx::off(), &x, &w, &b, 0.5).is_err());
}

#[test]
fn a_gpu_agrees() {
    for (b, h, w, c) in [(2, 16, 16, 32), (3, 5, 19, 32), (1, 1, 1, 32), (2, 4, 5, 6)] {
        let inputs = [
            (random([b, h, w, c], 1), Role::Float32),
            (random([c, 3, 3, c], 2), Role::Float32),
            (random([c], 3), Role::Float32),
        ];
        // Float32 whatever the arithmetic of products is.
        check_cuda(&inputs, [2e-6; 3], |cx, t| {
            Ok(vec![phi(cx, &t[0], &t[1], &t[2], 0.5)?])
        });
    }
}
