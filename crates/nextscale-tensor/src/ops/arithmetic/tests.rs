use super::*;
use crate::DType;
use crate::ops::testing::{Role, check_cuda, check_gradients, gpu, random};

#[test]
fn sums_and_differences() {
    let (a, b) = (random([3, 5], 1), random([3, 5], 2));
    let (s, d) = (
        add(&Cx::off(), &a, &b).unwrap(),
        sub(&Cx::off(), &a, &b).unwrap(),
    );
    for i in 0..15 {
        let (x, y) = (a.f32().unwrap()[i], b.f32().unwrap()[i]);
        assert_eq!(s.f32().unwrap()[i], x + y);
        assert_eq!(d.f32().unwrap()[i], x - y);
    }
    check_gradients(&[a.clone(), b.clone()], 1e-2, 1e-3, |cx, t| {
        add(cx, &t[0], &t[1])
    });
    check_gradients(&[a.clone(), b], 1e-2, 1e-3, |cx, t| sub(cx, &t[0], &t[1]));
    // The same tensor twice gets both shares.
    check_gradients(std::slice::from_ref(&a), 1e-2, 1e-3, |cx, t| {
        add(cx, &t[0], &t[0])
    });
    assert!(add(&Cx::off(), &a, &random([5, 3], 1)).is_err());
}

#[test]
fn weighted_sums() {
    let terms = [random([1], 1), random([1], 2)];
    check_gradients(&terms, 1e-2, 1e-3, |cx, t| {
        weighted_sum(
            cx,
            &[
                (t[0].clone(), 0.5),
                (t[1].clone(), -3.0),
                (t[0].clone(), 2.0),
            ],
        )
    });
    assert!(weighted_sum(&Cx::off(), &[(random([2], 1), 1.0)]).is_err());
}

#[test]
fn cuda_matches() {
    for n in [7, 64, 30_011] {
        let of = |lane| (random([n], lane), Role::Activation);
        check_cuda(&[of(1), of(2)], [0.0, 4e-3, 5e-4], |cx, t| {
            Ok(vec![add(cx, &t[0], &t[1])?, sub(cx, &t[0], &t[1])?])
        });
        check_cuda(&[of(1)], [0.0, 4e-3, 5e-4], |cx, t| {
            add(cx, &t[0], &t[0]).map(|y| vec![y])
        });
    }
}

#[test]
fn cuda_takes_mixed_types_and_views() {
    let Some(device) = gpu() else { return };
    let (a, b) = (random([5, 9], 1), random([4, 9], 2));
    let want = add(&Cx::off(), &a.narrow(1, 4).unwrap(), &b).unwrap();
    // A view that begins between two vectors, and a half-precision operand.
    let there = a.to(device).unwrap().narrow(1, 4).unwrap();
    let got = add(&Cx::off(), &there, &b.to(device).unwrap()).unwrap();
    assert_eq!(
        got.to(Device::Cpu).unwrap().f32().unwrap(),
        want.f32().unwrap()
    );
    let half = b.to(device).unwrap().cast(DType::Bf16).unwrap();
    let rounded = half.to(Device::Cpu).unwrap();
    let want = add(&Cx::off(), &a.narrow(1, 4).unwrap(), &rounded).unwrap();
    let got = add(&Cx::off(), &there, &half).unwrap();
    assert_eq!(got.dtype(), DType::F32);
    assert_eq!(
        got.to(Device::Cpu).unwrap().f32().unwrap(),
        want.f32().unwrap()
    );
}

#[test]
fn cuda_weighs_sums() {
    // More terms than one launch takes, one of them twice.
    let terms: Vec<(Tensor, Role)> = (0..11).map(|i| (random([1], i), Role::Float32)).collect();
    check_cuda(&terms, [0.0; 3], |cx, t| {
        let mut all: Vec<(Tensor, f32)> = t
            .iter()
            .enumerate()
            .map(|(i, t)| (t.clone(), 0.3 * i as f32 - 1.0))
            .collect();
        all.push((t[4].clone(), 2.5));
        weighted_sum(cx, &all).map(|y| vec![y])
    });
}
