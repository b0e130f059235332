use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};
use crate::rng::Purpose;

#[test]
fn drops_the_share_and_keeps_the_mean() {
    let x = Tensor::from_vec([50_000], vec![1.0; 50_000]);
    let s = Stream::new(1, Purpose::Test, 0, 0);
    let y = dropout(&Cx::off(), &x, 0.3, &s, 0).unwrap();
    let zeros = y.f32().unwrap().iter().filter(|y| **y == 0.0).count() as f64 / 5e4;
    assert!((zeros - 0.3).abs() < 0.01);
    let mean = y.f32().unwrap().iter().map(|&y| f64::from(y)).sum::<f64>() / 5e4;
    assert!((mean - 1.0).abs() < 0.02);
    check_gradients(&[random([3, 9], 1)], 1e-2, 1e-3, |cx, t| {
        dropout(cx, &t[0], 0.4, &s, 7)
    });
    assert!(dropout(&Cx::off(), &x, 1.0, &s, 0).is_err());
}

#[test]
fn cuda_draws_the_same_mask() {
    let s = Stream::new(1 << 40, Purpose::Dropout, 9, 1 << 35);
    for (n, from) in [(5, 0), (40_003, 0), (40_003, 1 << 33), (9, 3), (40_003, 18)] {
        let x = [(random([n], 1), Role::Activation)];
        // A single element kept or dropped otherwise would be far outside.
        check_cuda(&x, [0.0, 4e-3, 5e-4], |cx, t| {
            dropout(cx, &t[0], 0.3, &s, from).map(|y| vec![y])
        });
    }
}

#[test]
fn a_part_is_masked_as_within_the_whole() {
    let s = Stream::new(3, Purpose::Test, 0, 0);
    let whole = random([3000], 2);
    let all = dropout(&Cx::off(), &whole, 0.5, &s, 40).unwrap();
    for (from, to) in [(0, 1000), (1000, 3000), (17, 18), (2999, 3000)] {
        let part = Tensor::from_slice([to - from], &whole.f32().unwrap()[from..to]);
        let part = dropout(&Cx::off(), &part, 0.5, &s, 40 + from as u64).unwrap();
        assert_eq!(part.f32().unwrap(), &all.f32().unwrap()[from..to]);
    }
}
