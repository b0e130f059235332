//! The PyPI package's numbers, with weights by a formula that Python computed too.

use super::*;
use crate::format::HostTensor;
use nextscale_tensor::{Cx, Tape};

/// Numbers in [−1, 1), by a hash of their place.
fn noise(n: usize, salt: u32) -> Vec<f32> {
    let of = |i: usize| {
        let mut h = (i as u32)
            .wrapping_mul(2_654_435_761)
            .wrapping_add(salt.wrapping_mul(40_503))
            .wrapping_add(12_345);
        h ^= h >> 15;
        h = h.wrapping_mul(2_246_822_519);
        h ^= h >> 13;
        h = h.wrapping_mul(3_266_489_917);
        h ^= h >> 16;
        (f64::from(h >> 8) / f64::from(1 << 24) * 2.0 - 1.0) as f32
    };
    (0..n).map(of).collect()
}

fn times(values: Vec<f32>, f: f32) -> Vec<f32> {
    values.into_iter().map(|v| v * f).collect()
}

/// The network's and the heads' tensors.
fn weights() -> (StateDict, StateDict) {
    let (mut vgg, mut heads) = (StateDict::new(), StateDict::new());
    let put = |dict: &mut StateDict, name: String, shape: &[usize], values: Vec<f32>| {
        dict.insert(name, HostTensor::from_f32(shape, &values).unwrap());
    };
    let layers = [0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28];
    let channels = [
        64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512,
    ];
    let mut i = 3;
    for (k, (layer, o)) in layers.into_iter().zip(channels).enumerate() {
        let bound = (6.0 / (i * 9) as f64).sqrt() as f32;
        let weight = times(noise(o * i * 9, 2 * k as u32), bound);
        put(
            &mut vgg,
            format!("features.{layer}.weight"),
            &[o, i, 3, 3],
            weight,
        );
        let bias = times(noise(o, 2 * k as u32 + 1), 0.1);
        put(&mut vgg, format!("features.{layer}.bias"), &[o], bias);
        i = o;
    }
    put(&mut vgg, "classifier.0.bias".into(), &[2], vec![0.0; 2]);
    for (k, c) in CHANNELS.into_iter().enumerate() {
        let head = noise(c, 100 + k as u32).iter().map(|v| v.abs()).collect();
        put(
            &mut heads,
            format!("lin{k}.model.1.weight"),
            &[1, c, 1, 1],
            head,
        );
    }
    (vgg, heads)
}

/// Two batches of two images, the second between the first and others.
fn images(h: usize, w: usize) -> (Tensor, Tensor) {
    let (n, shape) = (2 * h * w * 3, [2, h, w, 3]);
    let a = noise(n, 200);
    let b = noise(n, 201)
        .iter()
        .zip(&a)
        .map(|(n, a)| n * 0.5 + a * 0.5)
        .collect();
    (Tensor::from_vec(shape, a), Tensor::from_vec(shape, b))
}

fn near(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs() / expected.abs();
    assert!(error < 1e-4, "{what}: {found} and not {expected}");
}

#[test]
fn values_and_gradients_are_the_package_s() {
    let mut lpips = Lpips::new().unwrap();
    let (vgg, heads) = weights();
    lpips.load((&vgg, "vgg"), (&heads, "heads")).unwrap();
    // lpips 0.1.4 in float64: values of both pairs; of the gradients of v₀ + 2·v₁ for both sides the length, and some elements.
    for ((h, w), values, gradients) in [
        (
            (16, 16),
            [0.406797128350589, 0.41904420657363123],
            [
                (
                    0.1390585120153091,
                    [
                        0.0016846809295340626,
                        -0.0015889685551192427,
                        0.0008818437733492448,
                    ],
                ),
                (
                    0.19454190566375112,
                    [
                        -0.0023187489029157754,
                        0.0012259036059540562,
                        0.00012129803354982583,
                    ],
                ),
            ],
        ),
        (
            (33, 20),
            [0.40564422570969316, 0.3959999334346979],
            [
                (
                    0.09142785447875759,
                    [
                        -0.0001880725727647617,
                        -0.0002563363751668651,
                        0.0002575006904937507,
                    ],
                ),
                (
                    0.12881935845948503,
                    [
                        -0.00034958519376585684,
                        -0.0002901430775295704,
                        -0.0008083883204450949,
                    ],
                ),
            ],
        ),
    ] {
        let (a, b) = images(h, w);
        let tape = Tape::new();
        let cx = Cx::on(&tape).with(Math::FULL);
        let ((a, of_a), (b, of_b)) = (cx.leaf(&a), cx.leaf(&b));
        let y = lpips.forward(&ForwardPass::on(cx), &a, &b).unwrap();
        for (found, expected) in y.f32().unwrap().iter().zip(values) {
            near(f64::from(*found), expected, "value");
        }
        let middle = a.numel() / 2;
        drop((a, b));
        let seed = Tensor::from_vec([2], vec![1.0, 2.0]);
        let grads = tape.backward_from(&y, seed, None, &[of_a, of_b]).unwrap();
        for (g, (length, elements)) in grads.iter().zip(gradients) {
            let g = g.as_ref().unwrap().f32().unwrap().to_vec();
            let found = g.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>().sqrt();
            near(found, length, "length of a gradient");
            for (at, expected) in [0, 1, middle].into_iter().zip(elements) {
                let error = (f64::from(g[at]) - expected).abs();
                assert!(
                    error < 1e-4 * length,
                    "element {at}: {} and not {expected}",
                    g[at]
                );
            }
        }
    }
}

#[test]
fn wrong_images_and_files_are_refused() {
    let mut lpips = Lpips::new().unwrap();
    let x = |shape: [usize; 4]| Tensor::zeros(shape);
    for (a, b) in [
        ([1, 16, 15, 3], [1, 16, 15, 3]),
        ([1, 16, 16, 3], [2, 16, 16, 3]),
        ([1, 16, 16, 4], [1, 16, 16, 4]),
    ] {
        assert!(lpips.forward(&ForwardPass::off(), &x(a), &x(b)).is_err());
    }
    let (vgg, heads) = weights();
    let error = lpips
        .load((&heads, "first"), (&heads, "second"))
        .unwrap_err();
    assert!(error.to_string().starts_with("first: lacks "), "{error}");
    let error = lpips.load((&vgg, "first"), (&vgg, "second")).unwrap_err();
    assert!(error.to_string().starts_with("second: lacks "), "{error}");
    let mut wide = heads;
    wide.insert(
        "lin0.model.1.weight",
        HostTensor::zeros_f32(&[1, 192, 1, 1]).unwrap(),
    );
    let error = lpips.load((&vgg, "first"), (&wide, "second")).unwrap_err();
    assert!(error.to_string().contains("[1, 192, 1, 1]"), "{error}");
}
