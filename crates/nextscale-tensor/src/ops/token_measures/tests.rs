use super::*;
use crate::ops::testing::{gpu, random};

#[test]
fn sums_by_range() {
    let costs = Tensor::from_vec([2, 3], vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
    let predicted = Tensor::from_i32([2, 3], vec![1, 2, 3, 4, 5, 6]);
    let targets = Tensor::from_i32([2, 3], vec![1, 0, 3, 4, 0, 0]);
    let of = |ranges: &[Range<usize>]| token_measures(&costs, &predicted, &targets, ranges);
    let y = of(&[0..1, 1..3, 2..2]).unwrap();
    assert_eq!(y.dims(), [3, 2]);
    assert_eq!(y.f32().unwrap(), [9.0, 2.0, 54.0, 1.0, 0.0, 0.0]);
    assert!(of(&[0..1, 1..4]).is_err());
    assert!(token_measures(&costs, &predicted, &targets.narrow(0, 1).unwrap(), &[]).is_err());
}

#[test]
fn same_on_a_gpu() {
    let Some(device) = gpu() else { return };
    let (b, l) = (37, 211);
    let costs = random([b, l], 3);
    let codes =
        |m: usize| Tensor::from_i32([b, l], (0..b * l).map(|i| (i * i % m) as i32).collect());
    let (predicted, targets) = (codes(5), codes(7));
    let ranges = [0..1, 1..5, 5..5, 5..140, 0..211];
    let there = |t: &Tensor| t.to(device).unwrap();
    let want = token_measures(&costs, &predicted, &targets, &ranges).unwrap();
    let run = || {
        let (c, p, t) = (there(&costs), there(&predicted), there(&targets));
        let y = token_measures(&c, &p, &t, &ranges).unwrap();
        y.to(Device::Cpu).unwrap()
    };
    let got = run();
    for (g, w) in got.f32().unwrap().iter().zip(want.f32().unwrap()) {
        assert!((g - w).abs() <= 1e-6 * w.abs(), "{g} {w}");
    }
    assert_eq!(got.f32().unwrap(), run().f32().unwrap());
}
