use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

#[test]
fn adds_and_differentiates() {
    let (shared, own) = (random([3, 2, 5], 1), random([1, 1, 2, 5], 2));
    let y = add_table(&Cx::off(), &shared, &own).unwrap();
    for (i, y) in y.f32().unwrap().iter().enumerate() {
        assert_eq!(*y, shared.f32().unwrap()[i] + own.f32().unwrap()[i % 10]);
    }
    check_gradients(&[shared.clone(), own], 1e-2, 1e-3, |cx, t| {
        add_table(cx, &t[0], &t[1])
    });
    assert!(add_table(&Cx::off(), &shared, &random([1, 1, 2, 4], 2)).is_err());
}

#[test]
fn a_gpu_agrees() {
    let inputs = [
        (random([300, 6, 13], 1), Role::Float32),
        (random([1, 1, 6, 13], 2), Role::Float32),
    ];
    check_cuda(&inputs, [2e-6; 3], |cx, t| {
        Ok(vec![add_table(cx, &t[0], &t[1])?])
    });
}
