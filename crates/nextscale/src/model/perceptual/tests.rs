use super::*;
use crate::model::classifier::ClassifierConfig;
use nextscale_tensor::{Tape, cuda};

/// A classifier with drawn weights.
fn by_features(side: usize) -> Perceptual {
    let config = ClassifierConfig::for_side(side, 3).unwrap();
    let mut classifier = Classifier::new(config, false).unwrap();
    classifier.init(5).unwrap();
    Perceptual::Features(Box::new(FeatureDistance::new(classifier).unwrap()))
}

fn images(side: usize, salt: usize) -> Tensor {
    let n = 2 * side * side * 3;
    let value = |i: usize| ((i * 7919 + salt * 104_729) % 2003) as f32 / 1001.5 - 1.0;
    Tensor::from_vec([2, side, side, 3], (0..n).map(value).collect())
}

fn distance(network: &Perceptual, a: &Tensor, b: &Tensor) -> f32 {
    network.mean(&Cx::off(), a, b).unwrap().scalar().unwrap()
}

#[test]
fn it_is_the_definition_on_the_maps() {
    let network = by_features(32);
    let Perceptual::Features(own) = &network else {
        unreachable!("made above")
    };
    let (a, b) = (images(32, 1), images(32, 2));
    let maps = |x: &Tensor| {
        let pass = ForwardPass::off();
        own.classifier.forward(&pass, x).unwrap().maps
    };
    let (of_a, of_b) = (maps(&a), maps(&b));
    let mut want = 0.0;
    for (x, y) in of_a.iter().zip(&of_b) {
        let c = x.dims()[3];
        let unit = |t: &Tensor| -> Vec<f64> {
            let rows = t.f32().unwrap().chunks(c);
            rows.flat_map(|row| {
                let length = row.iter().map(|v| f64::from(v * v)).sum::<f64>().sqrt();
                row.iter()
                    .map(move |v| f64::from(*v) / (length + 1e-10))
                    .collect::<Vec<_>>()
            })
            .collect()
        };
        let squares = unit(x)
            .iter()
            .zip(unit(y))
            .map(|(a, b)| (a - b).powi(2))
            .sum::<f64>();
        want += squares / (x.numel() / c) as f64 / of_a.len() as f64;
    }
    let got = f64::from(distance(&network, &a, &b));
    assert!((got - want).abs() < 1e-5 * want, "{got} {want}");
    assert_eq!(distance(&network, &a, &a), 0.0);
}

#[test]
fn images_of_any_side_are_compared_and_have_gradients() {
    for side in [24, 32, 48] {
        let network = by_features(32);
        let (a, b) = (images(side, 1), images(side, 2));
        let tape = Tape::new();
        let cx = Cx::on(&tape);
        let (leaf, key) = cx.leaf(&b);
        let y = network.mean(&cx, &a, &leaf).unwrap();
        let found = tape.backward(&y, 1.0, None, &[key]).unwrap();
        let g = found[0].as_ref().unwrap();
        // Against central differences along a direction.
        let direction = images(side, 3);
        let moved = |by: f32| {
            let values = b.f32().unwrap().iter().zip(direction.f32().unwrap());
            let values = values.map(|(v, d)| v + by * d).collect();
            f64::from(distance(&network, &a, &Tensor::from_vec(b.shape(), values)))
        };
        let step = 1e-2;
        let want = (moved(step) - moved(-step)) / f64::from(2.0 * step);
        let along = g.f32().unwrap().iter().zip(direction.f32().unwrap());
        let got: f64 = along.map(|(g, d)| f64::from(g * d)).sum();
        assert!(
            (got - want).abs() < 2e-2 * want.abs().max(1e-3),
            "{side}: {got} {want}"
        );
    }
}

#[test]
fn a_gpu_gives_what_the_cpu_gives() {
    if cuda::count() == 0 {
        println!("skipped: no CUDA device");
        return;
    }
    let (a, b) = (images(32, 1), images(32, 2));
    let want = distance(&by_features(32), &a, &b);
    let there = |x: &Tensor| x.to(Device::Cuda(0)).unwrap();
    let network = by_features(32)
        .to_device(Device::Cuda(0), Math::FULL)
        .unwrap();
    let got = network.mean(&Cx::off(), &there(&a), &there(&b)).unwrap();
    let got = got.to(Device::Cpu).unwrap().scalar().unwrap();
    assert!((got - want).abs() < 1e-4 * want, "{got} {want}");
}
