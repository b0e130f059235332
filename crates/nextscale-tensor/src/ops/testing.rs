//! What operator tests share: random tensors and gradients against central differences.

use crate::rng::{Purpose, Stream};
use crate::{Cx, Result, Shape, Tape, Tensor};

/// Standard normal numbers; `lane` names the sequence.
pub(crate) fn random(shape: impl Into<Shape>, lane: u64) -> Tensor {
    let shape = shape.into();
    let mut s = Stream::new(20, Purpose::Test, 0, lane);
    Tensor::from_vec(shape, (0..shape.numel()).map(|_| s.normal()).collect())
}

/// Largest difference, relative to the magnitude of `want` where that exceeds one.
pub(crate) fn worst(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter()
        .zip(want)
        .map(|(g, w)| (f64::from(*g) - w).abs() / w.abs().max(1.0))
        .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

/// Weighs a tensor with fixed random numbers into a scalar on the tape, so that every output element has its own
/// upstream gradient.
fn weigh(cx: &Cx<'_>, y: &Tensor) -> Result<(Tensor, f64)> {
    let w = random(y.shape(), 999);
    let value: f64 = y
        .f32()?
        .iter()
        .zip(w.f32()?)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    let mut s = Tensor::from_vec([1], vec![value as f32]);
    if cx.records(&[y]) {
        let y = y.clone();
        cx.record_one(&mut s, move |g, grads| {
            let seed = g.scalar()?;
            let up = w.f32()?.iter().map(|w| w * seed).collect();
            grads.add(&y, Tensor::from_vec(y.shape(), up))
        });
    }
    Ok((s, value))
}

/// Compares every input's gradient of a random projection of `f`'s output with central differences at up to 40
/// positions each. `step` is the difference's half width; `tolerance` is absolute, relative for large values.
pub(crate) fn check_gradients(
    inputs: &[Tensor],
    step: f32,
    tolerance: f64,
    f: impl Fn(&Cx<'_>, &[Tensor]) -> Result<Tensor>,
) {
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let (leaves, keys): (Vec<_>, Vec<_>) = inputs.iter().map(|x| cx.leaf(x)).unzip();
    let y = f(&cx, &leaves).unwrap();
    let (loss, _) = weigh(&cx, &y).unwrap();
    drop((leaves, y));
    let grads = tape.backward(&loss, 1.0, None, &keys).unwrap();
    let value = |inputs: &[Tensor]| {
        let off = Cx::off();
        weigh(&off, &f(&off, inputs).unwrap()).unwrap().1
    };
    for (which, (x, g)) in inputs.iter().zip(&grads).enumerate() {
        let g = g
            .as_ref()
            .unwrap_or_else(|| panic!("input {which} got no gradient"));
        let g = g.f32().unwrap();
        let n = x.numel();
        let mut nonzero = false;
        for t in 0..n.min(40) {
            let at = t * n / n.min(40);
            let moved = |delta: f32| {
                let mut v = x.f32().unwrap().to_vec();
                v[at] += delta;
                let exact = f64::from(v[at]) - f64::from(x.f32().unwrap()[at]);
                let mut all = inputs.to_vec();
                all[which] = Tensor::from_vec(x.shape(), v);
                (value(&all), exact)
            };
            let ((up, du), (down, dd)) = (moved(step), moved(-step));
            let want = (up - down) / (du - dd);
            nonzero |= want != 0.0;
            let error = (f64::from(g[at]) - want).abs() / want.abs().max(1.0);
            assert!(
                error <= tolerance,
                "input {which} element {at}: gradient {} against {want}",
                g[at]
            );
        }
        assert!(
            nonzero,
            "input {which} has no influence: the test shows nothing"
        );
    }
}
