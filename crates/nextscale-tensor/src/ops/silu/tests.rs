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
    for role in [Role::Activation, Role::Float32] {
        let inputs = [(random([3, 1037], 1), role)];
        let limits = [2e-6, 8e-3, 1e-3];
        check_cuda(&inputs, limits, |cx, t| Ok(vec![silu(cx, &t[0])?]));
    }
}
