use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};
use crate::rng::Purpose;

#[test]
fn drops_the_share_and_keeps_the_mean() {
    let x = Tensor::from_vec([50_000], vec![1.0; 50_000]);
    let s = Stream::new(1, Purpose::Test, 0, 0);
    let y = dropout(&Cx::off(), &x, 0.3, &s).unwrap();
    let zeros = y.f32().unwrap().iter().filter(|y| **y == 0.0).count() as f64 / 5e4;
    assert!((zeros - 0.3).abs() < 0.01);
    let mean = y.f32().unwrap().iter().map(|&y| f64::from(y)).sum::<f64>() / 5e4;
    assert!((mean - 1.0).abs() < 0.02);
    check_gradients(&[random([3, 9], 1)], 1e-2, 1e-3, |cx, t| {
        dropout(cx, &t[0], 0.4, &s)
    });
    assert!(dropout(&Cx::off(), &x, 1.0, &s).is_err());
}

#[test]
fn cuda_draws_the_same_mask() {
    let s = Stream::new(1 << 40, Purpose::Dropout, 9, 1 << 35);
    for n in [5, 40_003] {
        let x = [(random([n], 1), Role::Activation)];
        // A single element kept or dropped otherwise would be far outside.
        check_cuda(&x, [0.0, 4e-3, 5e-4], |cx, t| {
            dropout(cx, &t[0], 0.3, &s).map(|y| vec![y])
        });
    }
}
