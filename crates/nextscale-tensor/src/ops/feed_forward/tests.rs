use super::*;
use crate::ops::checks::run_all;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

fn inputs(m: usize, k: usize, h: usize, n: usize) -> Vec<Tensor> {
    vec![
        random([m, k], 1),
        random([h, k], 2),
        random([h], 3),
        random([n, h], 4),
        random([n], 5),
    ]
}

fn run(cx: &Cx<'_>, t: &[Tensor]) -> Result<Tensor> {
    let f = FeedForward {
        w1: &t[1],
        b1: &t[2],
        w2: &t[3],
        b2: &t[4],
    };
    feed_forward(cx, &t[0], &f)
}

#[test]
fn is_two_linear_layers() {
    let t = inputs(33, 12, 40, 9);
    let two = run_all(&t, |cx, t| {
        let a = linear(cx, &t[0], &t[1], Bias::Full(&t[2]), Activation::Gelu)?;
        linear(cx, &a, &t[3], Bias::Full(&t[4]), Activation::None)
    });
    assert!(run_all(&t, run) == two);
    check_gradients(&inputs(5, 4, 7, 3), 1e-2, 1e-2, run);
}

#[test]
fn a_gpu_agrees() {
    for (m, k, h, n) in [(300, 64, 128, 72), (37, 9, 21, 5)] {
        // Sums over k and h of about unit size.
        let mut t = inputs(m, k, h, n);
        for (i, len) in [(1, k), (3, h)] {
            let factor = 1.0 / (len as f32).sqrt();
            let small = t[i].f32().unwrap().iter().map(|x| x * factor).collect();
            t[i] = Tensor::from_vec(t[i].shape(), small);
        }
        let roles = [
            Role::Activation,
            Role::Float32,
            Role::Float32,
            Role::Float32,
            Role::Float32,
        ];
        let inputs: Vec<_> = t.into_iter().zip(roles).collect();
        check_cuda(&inputs, [1e-5, 8e-3, 1e-3], |cx, t| Ok(vec![run(cx, t)?]));
    }
}

#[test]
fn shapes_are_checked() {
    let t = inputs(3, 4, 5, 6);
    for (i, bad) in [
        (0, random([3, 5], 1)),
        (2, random([4], 1)),
        (3, random([6, 4], 1)),
        (4, random([5], 1)),
    ] {
        let mut t = t.clone();
        t[i] = bad;
        assert!(run(&Cx::off(), &t).is_err());
    }
}
