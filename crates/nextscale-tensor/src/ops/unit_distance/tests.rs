use super::*;
use crate::Tape;
use crate::ops::testing::{Role, check_cuda, check_gradients, random, worst};

/// Every pair's distance by the definition, in float64.
fn naive(a: &Tensor, b: &Tensor, w: &Tensor) -> Vec<f64> {
    let &[batch, h, width, c] = a.dims() else {
        panic!()
    };
    let at = |t: &Tensor, i: usize| f64::from(t.f32().unwrap()[i]);
    let mut out = vec![0.0; batch];
    for pixel in 0..batch * h * width {
        let scaled = |t: &Tensor| -> Vec<f64> {
            let x: Vec<f64> = (0..c).map(|k| at(t, pixel * c + k)).collect();
            let norm = x.iter().map(|x| x * x).sum::<f64>().sqrt();
            x.iter().map(|x| x / (norm + 1e-10)).collect()
        };
        let sides = scaled(a).into_iter().zip(scaled(b)).enumerate();
        let sum: f64 = sides.map(|(k, (x, y))| at(w, k) * (x - y).powi(2)).sum();
        out[pixel / (h * width)] += sum / (h * width) as f64;
    }
    out
}

#[test]
fn it_is_the_definition() {
    for (batch, h, w, c) in [(1, 1, 1, 1), (2, 3, 5, 37), (3, 20, 17, 64)] {
        let (a, b) = (random([batch, h, w, c], 1), random([batch, h, w, c], 2));
        let weight = random([c], 3);
        let y = unit_distance(&Cx::off(), &a, &b, &weight).unwrap();
        assert_eq!(y.dims(), [batch]);
        let error = worst(y.f32().unwrap(), &naive(&a, &b, &weight));
        assert!(error < 1e-5, "{error}");
        let same = unit_distance(&Cx::off(), &a, &a, &weight).unwrap();
        assert!(same.f32().unwrap().iter().all(|y| *y == 0.0));
    }
}

#[test]
fn gradients_match_differences() {
    let (a, b) = (random([2, 2, 3, 7], 1), random([2, 2, 3, 7], 2));
    let w = random([7], 3);
    check_gradients(&[a, b], 1e-3, 2e-3, |cx, t| {
        unit_distance(cx, &t[0], &t[1], &w)
    });
}

#[test]
fn a_pixel_without_a_direction_has_no_gradient() {
    let a = Tensor::from_vec([1, 1, 2, 2], vec![0.0, 0.0, 3.0, 4.0]);
    let b = random([1, 1, 2, 2], 1);
    let w = Tensor::from_vec([2], vec![1.0, 2.0]);
    let tape = Tape::new();
    let (leaf, key) = Cx::on(&tape).leaf(&a);
    let y = unit_distance(&Cx::on(&tape), &leaf, &b, &w).unwrap();
    drop(leaf);
    let grads = tape.backward(&y, 1.0, None, &[key]).unwrap();
    let g = grads[0].as_ref().unwrap().f32().unwrap().to_vec();
    assert_eq!(g[..2], [0.0, 0.0]);
    // Longer or shorter changes nothing.
    assert!(
        g[2] != 0.0 && (3.0 * g[2] + 4.0 * g[3]).abs() < 1e-6,
        "{g:?}"
    );
}

#[test]
fn shapes_must_fit() {
    let off = Cx::off();
    let x = |shape: &[usize]| Tensor::zeros(shape);
    assert!(unit_distance(&off, &x(&[2, 3]), &x(&[2, 3]), &x(&[3])).is_err());
    assert!(unit_distance(&off, &x(&[1, 2, 2, 3]), &x(&[1, 2, 1, 3]), &x(&[3])).is_err());
    assert!(unit_distance(&off, &x(&[1, 2, 2, 3]), &x(&[1, 2, 2, 3]), &x(&[2])).is_err());
    assert!(unit_distance(&off, &x(&[1, 0, 2, 3]), &x(&[1, 0, 2, 3]), &x(&[3])).is_err());
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let (w, _) = cx.leaf(&x(&[3]));
    assert!(unit_distance(&cx, &x(&[1, 2, 2, 3]), &x(&[1, 2, 2, 3]), &w).is_err());
}

#[test]
fn a_gpu_agrees() {
    for (batch, h, w, c) in [
        (1, 1, 1, 1),
        (3, 9, 15, 37),
        (2, 32, 32, 64),
        (2, 4, 4, 512),
    ] {
        let weight = random([c], 3);
        let inputs = [
            (random([batch, h, w, c], 1), Role::Activation),
            (random([batch, h, w, c], 2), Role::Activation),
        ];
        check_cuda(&inputs, [1e-5, 1e-2, 2e-3], |cx, t| {
            let weight = weight.to(t[0].device())?;
            Ok(vec![unit_distance(cx, &t[0], &t[1], &weight)?])
        });
    }
}
