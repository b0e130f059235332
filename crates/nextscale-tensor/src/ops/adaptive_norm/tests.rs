use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

/// LN(x)·(1 + scale) + shift in float64.
pub(crate) fn naive(
    x: &[f64],
    table: &Tensor,
    (b, l, c): (usize, usize, usize),
    slots: (usize, usize),
) -> Vec<f64> {
    let n = table.dims()[1];
    let t = table.f32().unwrap();
    let mut y = Vec::new();
    for row in 0..b * l {
        let x = &x[row * c..][..c];
        let mean = x.iter().sum::<f64>() / c as f64;
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
        for (i, x) in x.iter().enumerate() {
            let at = |slot: usize| f64::from(t[(row / l * n + slot) * c + i]);
            y.push((x - mean) / (var + 1e-6).sqrt() * (1.0 + at(slots.0)) + at(slots.1));
        }
    }
    y
}

fn m(table: &Tensor) -> Modulation<'_> {
    Modulation {
        table,
        scale: 2,
        shift: 4,
    }
}

#[test]
fn matches_f64_and_differences() {
    for (b, l, c) in [(1, 1, 7), (2, 5, 33), (3, 70, 16)] {
        let (x, table) = (random([b, l, c], 1), random([b, 6, c], 2));
        let y = adaptive_norm(&Cx::off(), &x, &m(&table), 1e-6).unwrap();
        let wide: Vec<f64> = x.f32().unwrap().iter().map(|&x| f64::from(x)).collect();
        let want = naive(&wide, &table, (b, l, c), (2, 4));
        assert!(worst(y.f32().unwrap(), &want) < 5e-6);
        check_gradients(&[x, table], 1e-2, 1e-2, |cx, t| {
            adaptive_norm(cx, &t[0], &m(&t[1]), 1e-6)
        });
    }
}

#[test]
fn shapes_are_checked() {
    let (x, table) = (random([2, 3, 4], 1), random([2, 2, 4], 2));
    let m = |scale| Modulation {
        table: &table,
        scale,
        shift: 0,
    };
    assert!(adaptive_norm(&Cx::off(), &x, &m(2), 1e-6).is_err());
    assert!(adaptive_norm(&Cx::off(), &random([3, 3, 4], 1), &m(1), 1e-6).is_err());
    assert!(adaptive_norm(&Cx::off(), &random([3, 4], 1), &m(1), 1e-6).is_err());
}

#[test]
fn a_gpu_agrees() {
    for (b, l, c) in [(2, 37, 64), (1, 3, 9), (3, 21, 1024), (1, 1, 1000)] {
        let inputs = [
            (random([b, l, c], 1), Role::Float32),
            (random([b, 6, c], 2), Role::Float32),
        ];
        check_cuda(&inputs, [5e-6, 8e-3, 1e-3], |cx, t| {
            Ok(vec![adaptive_norm(cx, &t[0], &m(&t[1]), 1e-6)?])
        });
    }
}

/// A row whose squares are beyond float32 does not become zeros.
#[test]
fn what_has_no_variance_is_no_number() {
    let devices = [Some(Device::Cpu), crate::ops::testing::gpu()];
    for device in devices.into_iter().flatten() {
        for c in [64, 9] {
            let mut values = random([1, 3, c], 1).f32().unwrap().to_vec();
            let norm = |values: &[f32]| {
                let x = Tensor::from_slice([1, 3, c], values).to(device).unwrap();
                let table = random([1, 6, c], 2).to(device).unwrap();
                let y = adaptive_norm(&Cx::off(), &x, &m(&table), 1e-6).unwrap();
                y.to(Device::Cpu).unwrap().f32().unwrap().to_vec()
            };
            let good = norm(&values);
            for x in &mut values[c..2 * c] {
                *x *= 1e25;
            }
            let bad = norm(&values);
            assert_eq!(bad[..c], good[..c], "{c}");
            assert!(bad[c..2 * c].iter().all(|y| y.is_nan()), "{c}");
            assert_eq!(bad[2 * c..], good[2 * c..], "{c}");
        }
    }
}
