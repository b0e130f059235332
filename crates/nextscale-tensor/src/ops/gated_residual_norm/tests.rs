use super::*;
use crate::ops::adaptive_norm::tests_naive;
use crate::ops::testing::{check_gradients, random, worst};

fn run(cx: &Cx<'_>, t: &[Tensor], keep: Option<&[f32]>) -> Result<(Tensor, Tensor)> {
    let gate = Gate {
        table: &t[2],
        slot: 1,
    };
    let next = Modulation {
        table: &t[3],
        scale: 0,
        shift: 2,
    };
    gated_residual_norm(cx, &t[0], &t[1], &gate, keep, &next, 1e-6)
}

fn inputs(b: usize, l: usize, c: usize) -> Vec<Tensor> {
    vec![
        random([b, l, c], 1),
        random([b, l, c], 2),
        random([b, 2, c], 3),
        random([b, 3, c], 4),
    ]
}

#[test]
fn matches_f64() {
    for (b, l, c) in [(2, 3, 9), (3, 40, 17)] {
        let t = inputs(b, l, c);
        let keep: Vec<f32> = (0..b).map(|b| if b == 1 { 0.0 } else { 1.25 }).collect();
        for keep in [None, Some(&keep[..])] {
            let (sum, y) = run(&Cx::off(), &t, keep).unwrap();
            let f: Vec<&[f32]> = t.iter().map(|t| t.f32().unwrap()).collect();
            let want: Vec<f64> = (0..b * l * c)
                .map(|i| {
                    let b = i / (l * c);
                    let k = keep.map_or(1.0, |k| f64::from(k[b]));
                    let gamma = f64::from(f[2][(b * 2 + 1) * c + i % c]);
                    f64::from(f[0][i]) + k * gamma * f64::from(f[1][i])
                })
                .collect();
            assert!(worst(sum.f32().unwrap(), &want) < 1e-6);
            let want = tests_naive(&want, &t[3], (b, l, c), (0, 2));
            assert!(worst(y.f32().unwrap(), &want) < 5e-6);
        }
    }
}

#[test]
fn gradients_match_differences() {
    let t = inputs(2, 37, 11);
    let keep = [0.5, 2.0];
    for keep in [None, Some(&keep[..])] {
        check_gradients(&t, 1e-2, 1e-2, |cx, t| Ok(run(cx, t, keep)?.1));
    }
    // Through the stream alone the norm's table has no influence.
    check_gradients(&t[..3], 1e-2, 1e-2, |cx, x| {
        let all = [x[0].clone(), x[1].clone(), x[2].clone(), t[3].clone()];
        Ok(run(cx, &all, Some(&keep))?.0)
    });
    // Both outputs, one table for gate and norm.
    let t = [t[0].clone(), t[1].clone(), random([2, 3, 11], 5)];
    check_gradients(&t, 1e-2, 1e-2, |cx, x| {
        let all = [x[0].clone(), x[1].clone(), x[2].clone(), x[2].clone()];
        let (sum, y) = run(cx, &all, None)?;
        let all = [sum, y, x[2].clone(), x[2].clone()];
        Ok(run(cx, &all, None)?.1)
    });
}

#[test]
fn shapes_are_checked() {
    let t = inputs(2, 3, 4);
    assert!(run(&Cx::off(), &t, Some(&[1.0])).is_err());
    let mut bad = t.clone();
    bad[1] = random([2, 2, 4], 2);
    assert!(run(&Cx::off(), &bad, None).is_err());
    bad = t;
    bad[2] = random([2, 1, 4], 2);
    assert!(run(&Cx::off(), &bad, None).is_err());
}
