use super::*;
use crate::Tape;
use crate::ops::mse;
use crate::ops::testing::{Role, check_cuda, random};

#[test]
fn value_of_one_gradient_to_the_other() {
    let (f, q, target) = (random([7], 1), random([7], 2), random([7], 3));
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let (lf, kf) = cx.leaf(&f);
    let y = straight_through(&cx, &lf, &q).unwrap();
    for (y, q) in y.f32().unwrap().iter().zip(q.f32().unwrap()) {
        assert!((y - q).abs() < 1e-6);
    }
    let loss = mse(&cx, &y, &target).unwrap();
    let g = tape
        .backward(&loss, 1.0, None, &[kf])
        .unwrap()
        .remove(0)
        .unwrap();
    for (i, g) in g.f32().unwrap().iter().enumerate() {
        let want = 2.0 * (y.f32().unwrap()[i] - target.f32().unwrap()[i]) / 7.0;
        assert!((g - want).abs() < 1e-6);
    }
}

#[test]
fn cuda_matches() {
    let of = |lane| (random([3, 4111], lane), Role::Float32);
    check_cuda(&[of(1), of(2)], [0.0; 3], |cx, t| {
        straight_through(cx, &t[0], &t[1]).map(|y| vec![y])
    });
}
