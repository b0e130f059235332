use super::*;
use crate::ops::testing::{check_gradients, random};
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
