use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

/// The layer in float64.
fn naive(x: &Tensor, w: &Tensor, b: &[f64], activation: Activation) -> Vec<f64> {
    let (m, k, n) = (x.shape().rows(), x.shape().last(), w.dims()[0]);
    let (x, w) = (x.f32().unwrap(), w.f32().unwrap());
    let mut y = Vec::new();
    for i in 0..m {
        for j in 0..n {
            let s: f64 = (0..k)
                .map(|t| f64::from(x[i * k + t]) * f64::from(w[j * k + t]))
                .sum::<f64>()
                + b[j];
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (s + 0.044_715 * s.powi(3));
            y.push(match activation {
                Activation::None => s,
                Activation::Gelu => 0.5 * s * (1.0 + inner.tanh()),
            });
        }
    }
    y
}

#[test]
fn forward_matches_f64() {
    for (m, k, n) in [
        (1, 1, 3),
        (5, 33, 9),
        (16, 64, 96),
        (70, 100, 51),
        (131, 300, 66),
    ] {
        let (x, w, b) = (random([m, k], 1), random([n, k], 2), random([n], 3));
        let full: Vec<f64> = b.f32().unwrap().iter().map(|&x| f64::from(x)).collect();
        for activation in [Activation::None, Activation::Gelu] {
            let y = linear(&Cx::off(), &x, &w, Bias::Full(&b), activation).unwrap();
            assert!(worst(y.f32().unwrap(), &naive(&x, &w, &full, activation)) < 2e-5);
        }
        let (q, v) = (random([n / 3], 4), random([n / 3], 5));
        let mut b = vec![0.0; n];
        for i in 0..n / 3 {
            b[i] = f64::from(q.f32().unwrap()[i]);
            b[2 * n / 3 + i] = f64::from(v.f32().unwrap()[i]);
        }
        let y = linear(
            &Cx::off(),
            &x,
            &w,
            Bias::QkV { q: &q, v: &v },
            Activation::None,
        )
        .unwrap();
        assert!(worst(y.f32().unwrap(), &naive(&x, &w, &b, Activation::None)) < 2e-5);
    }
}

#[test]
fn gradients_match_differences() {
    for (m, k, n) in [(3, 7, 6), (40, 12, 33)] {
        let inputs = [random([m, k], 1), random([n, k], 2), random([n], 3)];
        for activation in [Activation::None, Activation::Gelu] {
            check_gradients(&inputs, 1e-2, 2e-3, |cx, t| {
                linear(cx, &t[0], &t[1], Bias::Full(&t[2]), activation)
            });
        }
        let inputs = [
            random([m, k], 1),
            random([n, k], 2),
            random([n / 3], 3),
            random([n / 3], 4),
        ];
        check_gradients(&inputs, 1e-2, 2e-3, |cx, t| {
            let bias = Bias::QkV { q: &t[2], v: &t[3] };
            linear(cx, &t[0], &t[1], bias, Activation::None)
        });
    }
}

#[test]
fn shapes_are_checked() {
    let third = random([1], 1);
    let bias = Bias::QkV {
        q: &third,
        v: &third,
    };
    let outputs = |n| {
        linear(
            &Cx::off(),
            &random([2, 3], 1),
            &random([n, 3], 2),
            bias,
            Activation::None,
        )
    };
    assert!(outputs(3).is_ok() && outputs(4).is_err() && outputs(5).is_err());
    let (x, w, b) = (random([2, 3], 1), random([4, 3], 2), random([5], 3));
    let cx = Cx::off();
    assert!(linear(&cx, &x, &random([4, 2], 2), Bias::None, Activation::None).is_err());
    assert!(linear(&cx, &x, &w, Bias::Full(&b), Activation::None).is_err());
    assert!(
        linear(
            &cx,
            &x,
            &x.reshape([6]).unwrap(),
            Bias::None,
            Activation::None
        )
        .is_err()
    );
}

#[test]
fn a_gpu_agrees() {
    let limits = [1e-5, 8e-3, 1e-3];
    for (m, k, n) in [(300, 72, 144), (37, 13, 21), (1, 64, 24)] {
        let factor = 1.0 / (k as f32).sqrt();
        let w = random([n, k], 2);
        let w = Tensor::from_vec(
            [n, k],
            w.f32().unwrap().iter().map(|w| w * factor).collect(),
        );
        let inputs = [
            (random([m, k], 1), Role::Activation),
            (w, Role::Float32),
            (random([n], 3), Role::Float32),
            (random([n / 3], 4), Role::Float32),
            (random([n / 3], 5), Role::Float32),
        ];
        for activation in [Activation::None, Activation::Gelu] {
            check_cuda(&inputs[..3], limits, |cx, t| {
                Ok(vec![linear(
                    cx,
                    &t[0],
                    &t[1],
                    Bias::Full(&t[2]),
                    activation,
                )?])
            });
            check_cuda(&inputs[..2], limits, |cx, t| {
                Ok(vec![linear(cx, &t[0], &t[1], Bias::None, activation)?])
            });
            // Without a tape, and with float32 results and inputs.
            check_cuda(&inputs[..3], limits, |cx, t| {
                let cx = Cx::off().with(cx.math());
                Ok(vec![linear(
                    &cx,
                    &t[0],
                    &t[1],
                    Bias::Full(&t[2]),
                    activation,
                )?])
            });
        }
        check_cuda(&inputs, limits, |cx, t| {
            let bias = Bias::QkV { q: &t[3], v: &t[4] };
            Ok(vec![linear(cx, &t[0], &t[1], bias, Activation::None)?])
        });
        let mut wide = inputs[..3].to_vec();
        wide[0].1 = Role::Float32;
        check_cuda(&wide, limits, |cx, t| {
            let y = linear(
                &cx.wide(),
                &t[0],
                &t[1],
                Bias::Full(&t[2]),
                Activation::None,
            )?;
            let full = linear(
                &cx.full(),
                &t[0],
                &t[1],
                Bias::Full(&t[2]),
                Activation::None,
            )?;
            assert!(y.dtype() == crate::DType::F32 && full.dtype() == y.dtype());
            Ok(vec![y, full])
        });
    }
}
