use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, gpu, random, worst};

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

#[test]
fn a_target_that_is_no_code_has_no_cost() {
    let x = random([1, 3, 40], 1);
    let t = Tensor::from_i32([1, 3], vec![7, crate::ops::NO_CODE, 39]);
    for smoothing in [0.0, 0.1] {
        let tape = crate::Tape::new();
        let cx = Cx::on(&tape);
        let (leaf, key) = cx.leaf(&x);
        let out = cross_entropy(&cx, leaf, &t, &[1.0; 3], smoothing).unwrap();
        assert!(out.loss.scalar().unwrap().is_nan());
        for costs in [&out.plain, &out.smoothed] {
            let bad: Vec<bool> = costs.f32().unwrap().iter().map(|c| c.is_nan()).collect();
            assert_eq!(bad, [false, true, false]);
        }
        let g = tape.backward(&out.loss, 1.0, None, &[key]).unwrap();
        let g = g[0].clone().unwrap();
        let rows = g.f32().unwrap().chunks_exact(40);
        let bad: Vec<bool> = rows.map(|r| r.iter().all(|g| g.is_nan())).collect();
        assert_eq!(bad, [false, true, false]);
    }
}

#[test]
fn same_on_a_gpu() {
    for (b, l, v) in [
        (2, 3, 1),
        (3, 5, 33),
        (1, 3, 1024),
        (2, 7, 4096),
        (2, 2, 5003),
    ] {
        let x = random([b, l, v], 1);
        let t: Vec<i32> = (0..b * l).map(|i| (i * 977 % v) as i32).collect();
        let t = Tensor::from_i32([b, l], t);
        let w: Vec<f32> = (0..l).map(|i| 1.0 / (i + 2) as f32).collect();
        for s in [0.0, 0.1] {
            // The gradient of a single code without smoothing is 0.
            if v == 1 {
                continue;
            }
            let inputs = [(x.clone(), Role::Activation)];
            check_cuda(&inputs, [2e-6, 8e-3, 1e-3], |cx, x| {
                let t = t.to(x[0].device())?;
                let out = cross_entropy(cx, x[0].clone(), &t, &w, s)?;
                Ok(vec![out.loss, out.smoothed, out.plain])
            });
        }
        let Some(device) = gpu() else { return };
        let mut x = x.f32().unwrap().to_vec();
        // Several maxima, far apart and side by side.
        x[v / 2] = 9.0;
        x[v - 1] = 9.0;
        x[v / 3] = 9.0;
        let x = Tensor::from_vec([b, l, v], x);
        let off = Cx::off();
        let want = cross_entropy(&off, x.clone(), &t, &w, 0.0).unwrap();
        let there = x.to(device).unwrap();
        let got = cross_entropy(&off, there, &t.to(device).unwrap(), &w, 0.0).unwrap();
        let got = got.predicted.to(Device::Cpu).unwrap();
        assert_eq!(got.i32().unwrap(), want.predicted.i32().unwrap());
    }
}

#[test]
fn a_gpu_writes_the_gradient_in_place_and_marks_bad_targets() {
    let Some(device) = gpu() else { return };
    let x = random([2, 3, 1030], 4).to(device).unwrap();
    let gradient = |keep: bool, targets: Vec<i32>| {
        let t = Tensor::from_i32([2, 3], targets).to(device).unwrap();
        let tape = crate::Tape::new();
        let cx = Cx::on(&tape);
        let own = x.copied().unwrap();
        let at = own.device_ptr().unwrap().0.address();
        let kept = keep.then(|| own.clone());
        let (leaf, key) = cx.leaf(&own);
        drop(own);
        let out = cross_entropy(&cx, leaf, &t, &[1.0, 0.5, 0.25], 0.1).unwrap();
        let g = tape.backward(&out.loss, 2.0, None, &[key]).unwrap();
        let g = g[0].clone().unwrap();
        drop(kept);
        let moved = g.device_ptr().unwrap().0.address() != at;
        let plain = out.plain.to(Device::Cpu).unwrap();
        (
            moved,
            g.to(Device::Cpu).unwrap(),
            plain,
            out.loss.scalar().unwrap(),
        )
    };
    let good = vec![0, 1029, 512, 7, 8, 9];
    let (here, there) = (gradient(false, good.clone()), gradient(true, good));
    assert!(!here.0 && there.0);
    assert_eq!(here.1.f32().unwrap(), there.1.f32().unwrap());
    let (_, g, plain, loss) = gradient(false, vec![0, 1030, 512, 7, -1, 9]);
    let bad: Vec<bool> = plain.f32().unwrap().iter().map(|p| p.is_nan()).collect();
    assert_eq!(bad, [false, true, false, false, true, false]);
    assert!(loss.is_nan());
    for (row, bad) in g.f32().unwrap().chunks_exact(1030).zip(bad) {
        assert!(row.iter().all(|g| g.is_nan() == bad));
    }
}
