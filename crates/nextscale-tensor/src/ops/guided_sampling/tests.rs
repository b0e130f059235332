use super::*;
use crate::ops::testing::random;
use proptest::prelude::*;

#[test]
fn guidance() {
    let x = Tensor::from_vec([2, 1, 2], vec![1.0, 2.0, 3.0, 5.0]);
    assert_eq!(guide(&x, Some(2.0)).unwrap().f32().unwrap(), [-3.0, -4.0]);
    assert_eq!(guide(&x, None).unwrap().dims(), [2, 1, 2]);
    assert!(guide(&random([3, 1, 2], 1), Some(1.0)).is_err());
}

#[test]
fn filters_by_hand() {
    let x = Tensor::from_vec([1, 1, 8], vec![1.0, 1.0, 1.0, 0.0, 0.0, -1.0, 2.0, 2.0]);
    let kept = |k, p| -> Vec<bool> {
        let y = filter_logits(&x, k, p).unwrap();
        y.f32().unwrap().iter().map(|x| x.is_finite()).collect()
    };
    // Ties with the k-th stay.
    assert_eq!(kept(1, 0.0).iter().filter(|k| **k).count(), 2);
    assert_eq!(kept(3, 0.0).iter().filter(|k| **k).count(), 5);
    assert_eq!(kept(0, 0.0).iter().filter(|k| **k).count(), 8);
    assert_eq!(kept(100, 0.0).iter().filter(|k| **k).count(), 8);
    assert_eq!(
        kept(0, 1e-6),
        [false, false, false, false, false, false, false, true]
    );
    assert!(filter_logits(&x, 0, 1.5).is_err());
    assert!(filter_logits(&x, 0, f32::NAN).is_err());
}

#[test]
fn draws_follow_the_probabilities_and_not_the_batch() {
    let row = [0.0f32, 1.0, 2.0, f32::NEG_INFINITY];
    let images = 4000;
    let x = Tensor::from_vec([images, 1, 4], row.repeat(images));
    let draw = |x: &Tensor, first| {
        let noise = Draw::Seed {
            seed: 5,
            scale: 1,
            first,
        };
        draw_tokens(x, &noise).unwrap().i32().unwrap().to_vec()
    };
    let all = draw(&x, 0);
    let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
    for (code, x) in row.iter().enumerate() {
        let share = all.iter().filter(|&&i| i as usize == code).count() as f64 / images as f64;
        assert!((share - f64::from(*x).exp() / total).abs() < 0.03);
    }
    let tail = Tensor::from_vec([10, 1, 4], row.repeat(10));
    assert_eq!(draw(&tail, 100), all[100..110]);
    let wrong = Draw::Given(&[1.0]);
    assert!(draw_tokens(&tail, &wrong).is_err());
}

#[test]
fn parameters_of_a_device_are_the_seeds() {
    let x = random([2, 3, 50], 2);
    let (seed, first, scale) = (u64::MAX - 3, 1 << 40, 2);
    let params = Tensor::from_i32([4], draw_params(seed, first).to_vec());
    let of = |draw: &Draw<'_>| sample_tokens(&x, Some(1.0), 30, 0.9, draw).unwrap();
    let a = of(&Draw::Seed { seed, scale, first });
    let b = of(&Draw::Device {
        params: &params,
        scale,
    });
    assert_eq!(a.i32().unwrap(), b.i32().unwrap());
    let filtered = filter_logits(&guide(&x, Some(1.0)).unwrap(), 30, 0.9).unwrap();
    let apart = draw_tokens(&filtered, &Draw::Seed { seed, scale, first }).unwrap();
    assert_eq!(a.i32().unwrap(), apart.i32().unwrap());
    let short = Tensor::from_i32([3], vec![0; 3]);
    let bad = Draw::Device {
        params: &short,
        scale,
    };
    assert!(draw_tokens(&x, &bad).is_err());
}

#[test]
fn smooth_blend() {
    let x = Tensor::from_vec([1, 1, 3], vec![0.0, 1.0, f32::NEG_INFINITY]);
    let codebook = Tensor::from_vec([3, 2], vec![1.0, 0.0, 0.0, 1.0, 50.0, 50.0]);
    let g = [0.3f32, -0.1, 9.0];
    let y = smooth_codes(&x, 0.5, &Draw::Given(&g), &codebook).unwrap();
    let tau = smooth_temperature(0.5);
    let (a, b) = (0.3 / tau, (1.5 - 0.1) / tau);
    let share = (a - b).exp() / ((a - b).exp() + 1.0);
    assert!((f64::from(y.f32().unwrap()[0]) - share).abs() < 1e-6);
    assert!((f64::from(y.f32().unwrap()[1]) - (1.0 - share)).abs() < 1e-6);
    assert_eq!(smooth_temperature(1.0), 0.27 * (1.0 - 0.95));
}

proptest! {
    #[test]
    fn filters_keep_what_they_promise(
        row in proptest::collection::vec(-20.0f32..20.0, 1..60),
        k in 0usize..70,
        p in 0.0f32..=1.0,
    ) {
        let v = row.len();
        let x = Tensor::from_vec([1, 1, v], row.clone());
        let y = filter_logits(&x, k, p).unwrap();
        let y = y.f32().unwrap();
        let kept: Vec<usize> = (0..v).filter(|&i| y[i].is_finite()).collect();
        // The largest always stays, kept values are unchanged, nothing kept is smaller than something removed.
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        prop_assert!(kept.iter().any(|&i| row[i] == max));
        let least = kept.iter().map(|&i| row[i]).fold(f32::MAX, f32::min);
        for i in 0..v {
            if y[i].is_finite() {
                prop_assert_eq!(y[i], row[i]);
            } else {
                prop_assert!(row[i] <= least);
            }
        }
        if p == 0.0 && k > 0 {
            prop_assert!(kept.len() >= k.min(v));
        }
        if k == 0 && p > 0.0 {
            // What stays has at least probability p.
            let z: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
            let share: f64 = kept.iter().map(|&i| f64::from(row[i] - max).exp()).sum::<f64>() / z;
            prop_assert!(share >= f64::from(p) - 1e-5);
        }
    }
}

/// A row whose logits are no numbers draws no code; the others are what they are without it.
#[test]
fn rows_without_probabilities_draw_no_code() {
    let (b, l, v) = (4, 3, 70);
    let good = random([b, l, v], 3);
    for (at, value) in [
        (0, f32::NAN),
        (v * l + 5, -f32::NAN),
        (v * 2 * l + 69, f32::INFINITY),
    ] {
        let mut x = good.f32().unwrap().to_vec();
        x[at] = value;
        let x = Tensor::from_vec([b, l, v], x);
        let draw = Draw::Seed {
            seed: 1,
            scale: 2,
            first: 3,
        };
        let devices = [Some(Device::Cpu), crate::ops::testing::gpu()];
        for device in devices.into_iter().flatten() {
            let (x, good) = (x.to(device).unwrap(), good.to(device).unwrap());
            for (t, k, p) in [
                (None, 0, 0.0),
                (None, 9, 0.9),
                (Some(1.5), 0, 0.5),
                (Some(1.5), 3, 0.0),
            ] {
                let codes = |x: &Tensor| {
                    let y = sample_tokens(x, t, k, p, &draw).unwrap();
                    let apart = filter_logits(&guide(x, t).unwrap(), k, p).unwrap();
                    let apart = draw_tokens(&apart, &draw).unwrap().to(Device::Cpu).unwrap();
                    let y = y.to(Device::Cpu).unwrap().i32().unwrap().to_vec();
                    assert_eq!(apart.i32().unwrap(), y);
                    y
                };
                let rows = if t.is_some() { b / 2 * l } else { b * l };
                let bad = at / v % rows;
                for (row, (got, want)) in codes(&x).iter().zip(codes(&good)).enumerate() {
                    let want = if row == bad { NO_CODE } else { want };
                    assert_eq!(*got, want, "row {row} of {device:?}, {t:?} {k} {p}");
                }
            }
            let y = filter_logits(&x, 5, 0.9).unwrap().to(Device::Cpu).unwrap();
            for (row, y) in y.f32().unwrap().chunks(v).enumerate() {
                assert_eq!(y.iter().all(|y| y.is_nan()), row == at / v);
            }
        }
    }
}
