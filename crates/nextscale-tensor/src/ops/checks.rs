//! More of what operator tests share: thread counts, and outputs together with gradients.

use super::testing::random;
use crate::{Cx, Result, Tape, Tensor};

/// Checks that `f` gives the same bits on one, two and five threads.
pub(crate) fn check_threads(f: impl Fn() -> Vec<f32> + Send + Sync) {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        let bits = |v: Vec<f32>| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        bits(pool.unwrap().install(&f))
    };
    let one = on(1);
    assert!(!one.is_empty(), "nothing to compare");
    assert!(one == on(2), "two threads differ from one");
    assert!(one == on(5), "five threads differ from one");
}

/// The output of `f` and the gradients of all inputs for the upstream gradient `random(shape of y, 999)`, one after the
/// other.
pub(crate) fn run_all(
    inputs: &[Tensor],
    f: impl Fn(&Cx<'_>, &[Tensor]) -> Result<Tensor>,
) -> Vec<f32> {
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let (leaves, keys): (Vec<_>, Vec<_>) = inputs.iter().map(|x| cx.leaf(x)).unzip();
    let y = f(&cx, &leaves).unwrap();
    let mut all = y.f32().unwrap().to_vec();
    let mut loss = Tensor::zeros([1]);
    let (up, to) = (random(y.shape(), 999), y.clone());
    cx.record_one(&mut loss, move |_, grads| grads.add(&to, up));
    drop((leaves, y));
    for g in tape.backward(&loss, 1.0, None, &keys).unwrap() {
        all.extend_from_slice(g.expect("every input wants a gradient").f32().unwrap());
    }
    all
}
