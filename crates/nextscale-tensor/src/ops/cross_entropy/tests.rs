use super::*;
use crate::ops::testing::{check_gradients, random, worst};

fn targets(n: usize, v: usize) -> Tensor {
    let idx: Vec<i32> = (0..n).map(|i| ((i * 7 + 3) % v) as i32).collect();
    Tensor::from_i32([2, n / 2], idx)
}

#[test]
fn matches_f64() {
    for (l, v) in [(1, 1), (5, 33), (9, 300)] {
        let x = random([2, l, v], 1);
        let t = targets(2 * l, v);
        let w: Vec<f32> = (0..l).map(|i| 1.0 / (i + 1) as f32).collect();
        for s in [0.0f32, 0.1] {
            let out = cross_entropy(&Cx::off(), x.clone(), &t, &w, s).unwrap();
            let (mut plain, mut smoothed, mut total) = (vec![], vec![], 0.0);
            for (i, row) in x.f32().unwrap().chunks_exact(v).enumerate() {
                let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
                let lse = row.iter().map(|x| x.exp()).sum::<f64>().ln();
                let p = lse - row[t.i32().unwrap()[i] as usize];
                let mean = row.iter().sum::<f64>() / v as f64;
                let sm = (1.0 - f64::from(s)) * p + f64::from(s) * (lse - mean);
                total += sm * f64::from(w[i % l]) / 2.0;
                plain.push(p);
                smoothed.push(sm);
                let best = (0..v).fold(0, |b, j| if row[j] > row[b] { j } else { b });
                assert_eq!(out.predicted.i32().unwrap()[i] as usize, best);
            }
            assert!(worst(out.plain.f32().unwrap(), &plain) < 1e-6);
            assert!(worst(out.smoothed.f32().unwrap(), &smoothed) < 1e-6);
            assert!((f64::from(out.loss.scalar().unwrap()) - total).abs() < 1e-6 * total.max(1.0));
        }
    }
}

#[test]
fn gradients_match_differences() {
    let x = random([2, 3, 11], 1);
    let t = targets(6, 11);
    for s in [0.0, 0.2] {
        check_gradients(std::slice::from_ref(&x), 1e-2, 1e-3, |cx, x| {
            Ok(cross_entropy(cx, x[0].clone(), &t, &[0.5, 1.0, 2.0], s)?.loss)
        });
    }
}

#[test]
fn first_maximum_and_checks() {
    let x = Tensor::from_vec([1, 1, 4], vec![1.0, 3.0, 3.0, 0.0]);
    let t = Tensor::from_i32([1, 1], vec![0]);
    let out = cross_entropy(&Cx::off(), x.clone(), &t, &[1.0], 0.0).unwrap();
    assert_eq!(out.predicted.i32().unwrap(), [1]);
    let bad = Tensor::from_i32([1, 1], vec![4]);
    assert!(cross_entropy(&Cx::off(), x.clone(), &bad, &[1.0], 0.0).is_err());
    assert!(cross_entropy(&Cx::off(), x, &t, &[1.0, 1.0], 0.0).is_err());
}
