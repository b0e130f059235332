use super::*;
use crate::ops::testing::random;

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
