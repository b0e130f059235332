use super::*;
use crate::ops::testing::{check_gradients, random};

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
