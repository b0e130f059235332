use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

#[test]
fn repeats_pixels_and_sums_gradients() {
    let x = random([2, 3, 5, 4], 1);
    let y = upsample_nearest2x(&Cx::off(), &x).unwrap();
    assert_eq!(y.dims(), [2, 6, 10, 4]);
    for (i, v) in y.f32().unwrap().iter().enumerate() {
        let (c, col, row, b) = (i % 4, i / 4 % 10, i / 40 % 6, i / 240);
        assert_eq!(
            *v,
            x.f32().unwrap()[((b * 3 + row / 2) * 5 + col / 2) * 4 + c]
        );
    }
    check_gradients(&[x], 1e-2, 1e-3, |cx, t| upsample_nearest2x(cx, &t[0]));
    assert!(upsample_nearest2x(&Cx::off(), &random([2, 2], 1)).is_err());
}

#[test]
fn a_gpu_agrees() {
    for dims in [[2, 3, 5, 4], [1, 7, 6, 160], [3, 1, 1, 8]] {
        let inputs = [(random(dims, 1), Role::Activation)];
        check_cuda(&inputs, [1e-7, 3e-3, 4e-4], |cx, t| {
            Ok(vec![upsample_nearest2x(cx, &t[0])?])
        });
    }
}
