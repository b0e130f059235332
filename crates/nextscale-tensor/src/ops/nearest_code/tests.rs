use super::*;
use crate::ops::testing::{gpu, random};

#[test]
fn matches_f64_search() {
    for (m, v, c) in [(1, 1, 1), (5, 33, 32), (200, 130, 7), (97, 512, 32)] {
        let (x, e) = (random([m, c], 1), random([v, c], 2));
        for by_angle in [false, true] {
            let got = nearest_code(&x, &e, by_angle).unwrap();
            for (i, x) in x.f32().unwrap().chunks_exact(c).enumerate() {
                let cost: Vec<f64> = e
                    .f32()
                    .unwrap()
                    .chunks_exact(c)
                    .map(|e| {
                        let dot = |a: &[f32], b: &[f32]| -> f64 {
                            a.iter()
                                .zip(b)
                                .map(|(a, b)| f64::from(*a) * f64::from(*b))
                                .sum()
                        };
                        if by_angle {
                            -dot(x, e) / (dot(x, x) * dot(e, e)).sqrt()
                        } else {
                            dot(x, x) + dot(e, e) - 2.0 * dot(x, e)
                        }
                    })
                    .collect();
                let best = cost.iter().copied().fold(f64::INFINITY, f64::min);
                let chosen = got.i32().unwrap()[i] as usize;
                // Equal up to rounding; the very index where the margin is clear.
                assert!(cost[chosen] - best < 1e-5, "{m} {v} {c} {i}");
            }
        }
    }
}

#[test]
fn first_of_equal_codes_wins() {
    let x = Tensor::from_vec([1, 2], vec![1.0, 0.0]);
    let e = Tensor::from_vec([3, 2], vec![5.0, 5.0, 1.0, 0.0, 1.0, 0.0]);
    assert_eq!(nearest_code(&x, &e, false).unwrap().i32().unwrap(), [1]);
    assert_eq!(nearest_code(&x, &e, true).unwrap().i32().unwrap(), [1]);
    assert!(nearest_code(&x, &random([3, 4], 1), false).is_err());
}

/// ‖x − e‖² or minus the cosine, in float64.
fn cost(x: &[f32], e: &[f32], by_angle: bool) -> f64 {
    let dot = |a: &[f32], b: &[f32]| -> f64 {
        let pairs = a.iter().zip(b);
        pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    };
    match by_angle {
        true => -dot(x, e) / (dot(x, x) * dot(e, e)).sqrt(),
        false => dot(x, x) + dot(e, e) - 2.0 * dot(x, e),
    }
}

#[test]
fn cuda_chooses_the_same() {
    let Some(device) = gpu() else { return };
    // One block and many, one pass over the codes and several, narrow, wide and very wide codes.
    for (m, v, c) in [
        (1, 1, 1),
        (5, 33, 32),
        (1003, 4096, 32),
        (40_000, 1025, 32),
        (300, 1500, 7),
        (517, 700, 64),
        (61, 555, 50),
        (83, 600, 300),
    ] {
        let (x, e) = (random([m, c], 1), random([v, c], 2));
        let (there, codes) = (x.to(device).unwrap(), e.to(device).unwrap());
        for by_angle in [false, true] {
            let want = nearest_code(&x, &e, by_angle).unwrap();
            let got = nearest_code(&there, &codes, by_angle).unwrap();
            let got = got.to(Device::Cpu).unwrap();
            let mut other = 0;
            let pairs = got.i32().unwrap().iter().zip(want.i32().unwrap());
            for (i, (&got, &want)) in pairs.enumerate() {
                if got != want {
                    other += 1;
                    let (x, e) = (x.f32().unwrap(), e.f32().unwrap());
                    let of = |code: i32| {
                        let row = &e[code as usize * c..][..c];
                        cost(&x[i * c..][..c], row, by_angle)
                    };
                    let gap = (of(got) - of(want)).abs();
                    assert!(gap < 1e-5, "{m} {v} {c} {i}: {got} for {want}, {gap}");
                }
            }
            println!(
                "{m} of {c} channels among {v}, by angle {by_angle}: {other} chosen otherwise"
            );
            assert!(other * 1000 <= m, "{other} of {m}");
        }
    }
}

#[test]
fn cuda_takes_the_first_of_equal_codes() {
    let Some(device) = gpu() else { return };
    // Every code a hundred times: within a thread, a warp, a block's pass and beyond.
    let (x, e) = (random([300, 32], 1), random([41, 32], 2));
    let many = Tensor::from_vec([4100, 32], e.f32().unwrap().repeat(100));
    let (there, many) = (x.to(device).unwrap(), many.to(device).unwrap());
    for by_angle in [false, true] {
        let want = nearest_code(&x, &e, by_angle).unwrap();
        let got = nearest_code(&there, &many, by_angle).unwrap();
        assert_eq!(
            got.to(Device::Cpu).unwrap().i32().unwrap(),
            want.i32().unwrap()
        );
    }
}

/// Vectors that are no numbers, or too long for their squares, have no code; others are coded as ever.
#[test]
fn what_is_no_number_has_no_code() {
    let (m, v) = (70, 100);
    for c in [7, 32, 50, 300] {
        let (x, e) = (random([m, c], 1), random([v, c], 2));
        let mut values = x.f32().unwrap().to_vec();
        let spoilt = [
            (3, f32::NAN),
            (9, f32::INFINITY),
            (33, f32::NEG_INFINITY),
            (69, 1e30),
        ];
        for (row, value) in spoilt {
            values[row * c + c - 1] = value;
        }
        let bad = Tensor::from_vec([m, c], values);
        for by_angle in [false, true] {
            let mut want = nearest_code(&x, &e, by_angle)
                .unwrap()
                .i32()
                .unwrap()
                .to_vec();
            for (row, _) in spoilt {
                want[row] = NO_CODE;
            }
            let got = nearest_code(&bad, &e, by_angle).unwrap();
            assert_eq!(got.i32().unwrap(), want, "{c} {by_angle}");
            let Some(device) = gpu() else { continue };
            let (there, codes) = (bad.to(device).unwrap(), e.to(device).unwrap());
            let got = nearest_code(&there, &codes, by_angle).unwrap();
            let got = got.to(Device::Cpu).unwrap();
            assert_eq!(got.i32().unwrap(), want, "on a GPU: {c} {by_angle}");
        }
    }
}
