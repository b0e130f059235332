use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

#[test]
fn matches_f64_and_differences() {
    let x = random([3, 37], 1);
    let y = silu(&Cx::off(), &x).unwrap();
    let want: Vec<f64> = x
        .f32()
        .unwrap()
        .iter()
        .map(|&x| f64::from(x) / (1.0 + (-f64::from(x)).exp()))
        .collect();
    assert!(worst(y.f32().unwrap(), &want) < 1e-6);
    check_gradients(&[x], 1e-2, 1e-3, |cx, t| silu(cx, &t[0]));
}

#[test]
fn a_gpu_agrees() {
    for n in [1, 37, 4096, 100_003] {
        let inputs = [(random([n], 1), Role::Activation)];
        check_cuda(&inputs, [1e-6, 3e-3, 4e-4], |cx, t| {
            Ok(vec![silu(cx, &t[0])?])
        });
    }
}
