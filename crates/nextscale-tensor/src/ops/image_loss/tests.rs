use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

#[test]
fn matches_f64_and_differences() {
    let (a, b) = (random([3, 411], 1), random([3, 411], 2));
    let d: Vec<f64> = a
        .f32()
        .unwrap()
        .iter()
        .zip(b.f32().unwrap())
        .map(|(a, b)| f64::from(*a) - f64::from(*b))
        .collect();
    let n = d.len() as f64;
    let want = d.iter().map(|d| d * d).sum::<f64>() / n;
    let got = f64::from(mse(&Cx::off(), &a, &b).unwrap().scalar().unwrap());
    assert!((got / want - 1.0).abs() < 1e-6);
    let want = d.iter().map(|d| d.abs()).sum::<f64>() / n;
    let got = f64::from(l1(&Cx::off(), &a, &b).unwrap().scalar().unwrap());
    assert!((got / want - 1.0).abs() < 1e-6);
    let small = [random([2, 9], 1), random([2, 9], 2)];
    check_gradients(&small, 1e-3, 1e-3, |cx, t| mse(cx, &t[0], &t[1]));
    check_gradients(&small, 1e-3, 1e-3, |cx, t| l1(cx, &t[0], &t[1]));
    assert!(mse(&Cx::off(), &a, &random([411, 3], 1)).is_err());
}

#[test]
fn cuda_matches() {
    // Less than a vector, less than a part, several parts with an odd end.
    for n in [3, 4111, 50_003] {
        let (a, b) = (random([n], 1), random([n], 2));
        // One side in the type of activations, as a decoder leaves it, and one in float32.
        let inputs = [(a, Role::Activation), (b, Role::Float32)];
        check_cuda(&inputs, [2e-7, 4e-3, 5e-4], |cx, t| {
            Ok(vec![mse(cx, &t[0], &t[1])?, l1(cx, &t[0], &t[1])?])
        });
    }
}
