use super::*;
use crate::ops::checks::{check_threads, run_all};
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

#[test]
fn matches_f64() {
    for (b, h, w, c) in [(1, 1, 1, 3), (2, 3, 5, 7), (1, 17, 19, 32)] {
        let qkv = random([b, h, w, 3 * c], 1);
        let y = spatial_attention(&Cx::off(), &qkv).unwrap();
        let x: Vec<f64> = qkv.f32().unwrap().iter().map(|&x| f64::from(x)).collect();
        let n = h * w;
        let mut want = Vec::new();
        for s in 0..b {
            let at = |i: usize, third: usize| &x[((s * n + i) * 3 + third) * c..][..c];
            for i in 0..n {
                let e: Vec<f64> = (0..n)
                    .map(|j| {
                        let dot: f64 = at(i, 0).iter().zip(at(j, 1)).map(|(a, b)| a * b).sum();
                        (dot / (c as f64).sqrt()).exp()
                    })
                    .collect();
                let sum: f64 = e.iter().sum();
                for ch in 0..c {
                    want.push((0..n).map(|j| e[j] / sum * at(j, 2)[ch]).sum());
                }
            }
        }
        assert!(worst(y.f32().unwrap(), &want) < 5e-6);
    }
}

#[test]
fn gradients_match_differences() {
    check_gradients(&[random([2, 3, 4, 15], 1)], 1e-2, 5e-3, |cx, t| {
        spatial_attention(cx, &t[0])
    });
    // More than one tile of queries.
    check_gradients(&[random([1, 17, 16, 6], 1)], 1e-2, 1e-2, |cx, t| {
        spatial_attention(cx, &t[0])
    });
}

#[test]
fn threads_and_shapes() {
    let x = [random([2, 9, 9, 24], 1)];
    check_threads(|| run_all(&x, |cx, t| spatial_attention(cx, &t[0])));
    assert!(spatial_attention(&Cx::off(), &random([1, 2, 2, 4], 1)).is_err());
    assert!(spatial_attention(&Cx::off(), &random([2, 3], 1)).is_err());
}

#[test]
fn a_gpu_agrees() {
    for dims in [
        [2, 3, 5, 21],
        [1, 1, 1, 24],
        [3, 16, 16, 192],
        [1, 17, 19, 96],
    ] {
        let inputs = [(random(dims, 1), Role::Activation)];
        check_cuda(&inputs, [1e-5, 1.5e-2, 2e-3], |cx, t| {
            Ok(vec![spatial_attention(cx, &t[0])?])
        });
    }
}
