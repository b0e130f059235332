use super::*;
use crate::ops::checks::{check_threads, run_all};
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

/// The norm in float64, means and variances in two passes.
fn naive(x: &Tensor, gamma: &Tensor, beta: &Tensor, groups: usize, silu: bool) -> Vec<f64> {
    let (b, c) = (x.dims()[0], x.shape().last());
    let pixels = x.numel() / b / c;
    let per_group = c / groups;
    let at = |s: usize, p: usize, ch: usize| f64::from(x.f32().unwrap()[(s * pixels + p) * c + ch]);
    let mut y = vec![0.0; x.numel()];
    for s in 0..b {
        for group in 0..groups {
            let all: Vec<(usize, usize)> = (0..pixels)
                .flat_map(|p| (0..per_group).map(move |i| (p, group * per_group + i)))
                .collect();
            let n = all.len() as f64;
            let mean = all.iter().map(|&(p, ch)| at(s, p, ch)).sum::<f64>() / n;
            let square = |&(p, ch): &(usize, usize)| (at(s, p, ch) - mean).powi(2);
            let var = all.iter().map(square).sum::<f64>() / n;
            for (p, ch) in all {
                let (g, b) = (gamma.f32().unwrap()[ch], beta.f32().unwrap()[ch]);
                let z = (at(s, p, ch) - mean) / (var + 1e-6).sqrt() * f64::from(g) + f64::from(b);
                let out = if silu { z / (1.0 + (-z).exp()) } else { z };
                y[(s * pixels + p) * c + ch] = out;
            }
        }
    }
    y
}

#[test]
fn forward_matches_f64() {
    for (b, h, w, c, groups) in [
        (1, 1, 2, 1, 1),
        (3, 5, 7, 32, 32),
        (2, 3, 3, 6, 2),
        (2, 40, 33, 32, 32),
        (1, 67, 31, 160, 32),
        (2, 9, 5, 320, 32),
        (2, 4, 4, 640, 32),
        (1, 2, 2, 1290, 3),
    ] {
        let x = random([b, h, w, c], 1);
        let (gamma, beta) = (random([c], 2), random([c], 3));
        for silu in [false, true] {
            let y = group_norm(&Cx::off(), &x, &gamma, &beta, groups, 1e-6, silu).unwrap();
            assert_eq!(y.dims(), x.dims());
            let off = worst(y.f32().unwrap(), &naive(&x, &gamma, &beta, groups, silu));
            assert!(off < 3e-6, "{h}x{w}x{c} in {groups}: {off:e}");
        }
    }
}

/// A mean far from zero must not eat the variance.
#[test]
fn a_large_mean_is_harmless() {
    let (c, groups) = (160, 32);
    let noise = random([1, 64, 64, c], 1);
    let shifted = noise.f32().unwrap().iter().map(|v| 100.0 + v).collect();
    let x = Tensor::from_vec(noise.shape(), shifted);
    let (gamma, beta) = (random([c], 2), random([c], 3));
    let y = group_norm(&Cx::off(), &x, &gamma, &beta, groups, 1e-6, false).unwrap();
    let off = worst(y.f32().unwrap(), &naive(&x, &gamma, &beta, groups, false));
    // Half a unit of float32 at 100 · γ is 4e-6 · γ.
    assert!(off < 3e-5, "{off:e}");
}

#[test]
fn gradients_match_differences() {
    for (b, h, w, c, groups) in [(2, 3, 2, 8, 4), (1, 3, 3, 32, 32), (2, 2, 3, 10, 1)] {
        let inputs = [random([b, h, w, c], 1), random([c], 2), random([c], 3)];
        for silu in [false, true] {
            check_gradients(&inputs, 1e-2, 3e-3, |cx, t| {
                group_norm(cx, &t[0], &t[1], &t[2], groups, 1e-6, silu)
            });
        }
    }
}

/// The gradient over several chunks and samples against the formula in float64.
#[test]
fn gradients_of_many_chunks_match_f64() {
    let (b, h, w, c, groups) = (2, 47, 41, 40, 8);
    let x = random([b, h, w, c], 1);
    let (gamma, beta) = (random([c], 2), random([c], 3));
    for silu in [false, true] {
        let all = run_all(&[x.clone(), gamma.clone(), beta.clone()], |cx, t| {
            group_norm(cx, &t[0], &t[1], &t[2], groups, 1e-6, silu)
        });
        let (pixels, per_group) = (h * w, c / groups);
        // The upstream gradient that `run_all` gives.
        let up = random(x.shape(), 999);
        let up = up.f32().unwrap();
        let ones = Tensor::from_vec([c], vec![1.0; c]);
        let xhat = naive(&x, &ones, &Tensor::zeros([c]), groups, false);
        let z = naive(&x, &gamma, &beta, groups, false);
        let dz: Vec<f64> = z
            .iter()
            .zip(up)
            .map(|(z, up)| {
                let s = 1.0 / (1.0 + (-z).exp());
                let slope = if silu { s * (1.0 + z * (1.0 - s)) } else { 1.0 };
                f64::from(*up) * slope
            })
            .collect();
        let (mut dgamma, mut dbeta) = (vec![0.0; c], vec![0.0; c]);
        for (i, dz) in dz.iter().enumerate() {
            dgamma[i % c] += dz * xhat[i];
            dbeta[i % c] += dz;
        }
        let n = (pixels * per_group) as f64;
        let mut dx = vec![0.0; x.numel()];
        for s in 0..b {
            for group in 0..groups {
                let all: Vec<usize> = (0..pixels * c)
                    .filter(|i| i % c / per_group == group)
                    .map(|i| s * pixels * c + i)
                    .collect();
                let g = |i: usize| f64::from(gamma.f32().unwrap()[i % c]);
                let v: Vec<f64> = all
                    .iter()
                    .map(|&i| f64::from(x.f32().unwrap()[i]))
                    .collect();
                let mean = v.iter().sum::<f64>() / n;
                let var = v.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
                let one = all.iter().map(|&i| dz[i] * g(i)).sum::<f64>() / n;
                let two = all.iter().map(|&i| dz[i] * g(i) * xhat[i]).sum::<f64>() / n;
                for &i in &all {
                    dx[i] = (dz[i] * g(i) - one - xhat[i] * two) / (var + 1e-6).sqrt();
                }
            }
        }
        let (y, grads) = all.split_at(x.numel());
        assert!(worst(y, &naive(&x, &gamma, &beta, groups, silu)) < 3e-6);
        let (gx, rest) = grads.split_at(x.numel());
        let (ggamma, gbeta) = rest.split_at(c);
        assert!(worst(gx, &dx) < 1e-5, "{:e}", worst(gx, &dx));
        assert!(
            worst(ggamma, &dgamma) < 3e-5,
            "{:e}",
            worst(ggamma, &dgamma)
        );
        assert!(worst(gbeta, &dbeta) < 3e-5, "{:e}", worst(gbeta, &dbeta));
    }
}

#[test]
fn threads_do_not_matter() {
    let inputs = [random([2, 50, 41, 40], 1), random([40], 2), random([40], 3)];
    check_threads(|| {
        run_all(&inputs, |cx, t| {
            group_norm(cx, &t[0], &t[1], &t[2], 8, 1e-6, true)
        })
    });
}

#[test]
fn shapes_are_checked() {
    let (x, g) = (random([2, 3, 3, 6], 1), random([6], 2));
    let norm = |x: &Tensor, gamma: &Tensor, groups| {
        group_norm(&Cx::off(), x, gamma, &g, groups, 1e-6, false)
    };
    assert!(norm(&x, &g, 2).is_ok());
    assert!(norm(&x, &g, 4).is_err());
    assert!(norm(&x, &g, 0).is_err());
    assert!(norm(&x, &random([3], 1), 2).is_err());
    assert!(norm(&g, &g, 2).is_err());
    let none = norm(&Tensor::zeros([0, 3, 3, 6]), &g, 2).unwrap();
    assert_eq!(none.numel(), 0);
}

#[test]
fn a_gpu_agrees() {
    for (dims, groups) in [
        ([2, 16, 16, 32], 32),
        ([3, 9, 13, 160], 32),
        ([2, 70, 66, 64], 8),
        ([2, 5, 7, 12], 4),
        ([1, 1, 1, 640], 32),
        ([2, 33, 40, 320], 32),
    ] {
        let c = dims[3];
        for (silu, mean) in [(true, 0.0), (false, 0.0), (true, 30.0)] {
            let x = random(dims, 1);
            let x: Vec<f32> = x.f32().unwrap().iter().map(|x| x + mean).collect();
            let inputs = [
                (Tensor::from_vec(dims, x), Role::Activation),
                (random([c], 2), Role::Float32),
                (random([c], 3), Role::Float32),
            ];
            // One position a group has no variance, and differences of rounded numbers close to a mean lose bits.
            let far = if mean > 0.0 { 20.0 } else { 1.0 };
            check_cuda(&inputs, [3e-6 * far, 4e-3, 6e-4], |cx, t| {
                Ok(vec![group_norm(
                    cx, &t[0], &t[1], &t[2], groups, 1e-6, silu,
                )?])
            });
        }
    }
}

/// Values whose squares are beyond float32, which a norm would make zeros of, and such as are no numbers stay to be seen.
#[test]
fn what_has_no_variance_is_no_number() {
    let devices = [Some(Device::Cpu), crate::ops::testing::gpu()];
    for device in devices.into_iter().flatten() {
        for c in [64, 12] {
            let dims = [2, 9, 7, c];
            let mut values = random(dims, 1).f32().unwrap().to_vec();
            let plain = values.clone();
            // Of the second sample alone.
            for x in &mut values[9 * 7 * c..] {
                *x *= 1e25;
            }
            let [gamma, beta] = [2, 3].map(|seed| random([c], seed).to(device).unwrap());
            let norm = |values: &[f32]| {
                let x = Tensor::from_slice(dims, values).to(device).unwrap();
                let y = group_norm(&Cx::off(), &x, &gamma, &beta, 4, 1e-6, true).unwrap();
                y.to(Device::Cpu).unwrap().f32().unwrap().to_vec()
            };
            let (good, bad) = (norm(&plain), norm(&values));
            let half = 9 * 7 * c;
            assert_eq!(bad[..half], good[..half], "{c}");
            assert!(bad[half..].iter().all(|y| y.is_nan()), "{c}");
        }
    }
}
