use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

#[test]
fn keeps_what_is_positive() {
    let x = Tensor::from_vec([5], vec![-1.0, 0.0, 2.5, f32::NAN, f32::INFINITY]);
    let y = relu(&Cx::off(), &x).unwrap();
    let y = y.f32().unwrap();
    assert_eq!([y[0], y[1], y[2], y[4]], [0.0, 0.0, 2.5, f32::INFINITY]);
    assert!(y[3].is_nan());
    assert!(relu(&Cx::off(), &Tensor::from_i32([1], vec![1])).is_err());
}

#[test]
fn gradients_match_differences() {
    // No element within a step of the kink.
    let away = |v: &f32| if v.abs() < 0.05 { v + 0.2 } else { *v };
    let x = random([3, 37], 1);
    let x = Tensor::from_vec(x.shape(), x.f32().unwrap().iter().map(away).collect());
    check_gradients(&[x], 1e-2, 1e-3, |cx, t| relu(cx, &t[0]));
}

#[test]
fn a_gpu_agrees() {
    for n in [1, 37, 4096, 100_003] {
        let inputs = [(random([n], 1), Role::Activation)];
        check_cuda(&inputs, [0.0; 3], |cx, t| Ok(vec![relu(cx, &t[0])?]));
    }
}
