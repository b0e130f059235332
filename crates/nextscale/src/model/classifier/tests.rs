use super::*;
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Cx, Precision, Tape, cuda};

/// Two levels of two blocks for images of 16 pixels.
fn tiny() -> ClassifierConfig {
    ClassifierConfig {
        side: 16,
        widths: vec![8, 16],
        blocks: 2,
        classes: 3,
    }
}

fn random(shape: [usize; 4], lane: u64) -> Tensor {
    let mut s = Stream::new(7, Purpose::Test, 0, lane);
    let count = shape.iter().product();
    Tensor::from_vec(shape, (0..count).map(|_| s.normal() * 0.5).collect())
}

/// A loss that reads everything that the network gives: logits by cross entropy, maps and features by their distance from others.
fn loss(net: &Classifier, cx: &Cx<'_>, images: &Tensor) -> Tensor {
    let out = net.forward(&ForwardPass::on(*cx), images).unwrap();
    let batch = images.dims()[0];
    let there = |t: Tensor| t.to(images.device()).unwrap();
    let targets = Tensor::from_i32([batch, 1], (0..batch).map(|i| (i % 3) as i32).collect());
    let logits = out.logits.reshape([batch, 1, 3]).unwrap();
    let cost = ops::cross_entropy(cx, logits, &there(targets), &[1.0], 0.1).unwrap();
    let mut terms = vec![(cost.loss, 1.0)];
    let features = out.features.reshape([batch, 1, 1, 16]).unwrap();
    for (lane, map) in out.maps.iter().chain([&features]).enumerate() {
        let dims: [usize; 4] = map.dims().try_into().unwrap();
        let other = there(random(dims, 50 + lane as u64));
        terms.push((ops::mse(cx, map, &other).unwrap(), 0.7));
    }
    ops::weighted_sum(cx, &terms).unwrap()
}

/// Gradients of all parameters by name, and of the images.
fn gradients(net: &Classifier, images: &Tensor) -> (Vec<(String, Vec<f32>)>, Vec<f32>) {
    let tape = Tape::new();
    let cx = Cx::on(&tape).with(net.math);
    let (leaf, key) = cx.leaf(images);
    let value = loss(net, &cx, &leaf);
    drop(leaf);
    let mut grads = net.params.buffer().unwrap();
    let seed = Tensor::from_vec([1], vec![1.0]).to(net.device()).unwrap();
    let target = (&net.params, &mut grads);
    let wanted = tape
        .backward_from(&value, seed, Some(target), &[key])
        .unwrap();
    let of_images = wanted[0].as_ref().unwrap().to(Device::Cpu).unwrap();
    let infos = net.params.infos().iter();
    let all = infos.map(|info| (info.name.clone(), grads.export(info).unwrap()));
    (all.collect(), of_images.f32().unwrap().to_vec())
}

#[test]
fn gradients_of_all_weights_and_of_the_images_are_those_of_differences() {
    const STEP: f32 = 1e-2;
    let mut net = Classifier::new(tiny(), true).unwrap();
    net.init(3).unwrap();
    let images = random([3, 16, 16, 3], 1);
    let value =
        |net: &Classifier, x: &Tensor| f64::from(loss(net, &Cx::off(), x).scalar().unwrap());
    let check = |what: &str, got: f32, up: f64, down: f64| {
        let want = (up - down) / f64::from(2.0 * STEP);
        let error = (f64::from(got) - want).abs();
        assert!(
            error < 2e-3 * want.abs().max(1.0),
            "{what}: {got} against {want}"
        );
        want != 0.0
    };
    let (of_weights, of_images) = gradients(&net, &images);
    for (name, grads) in &of_weights {
        let before = net.params.export(name).unwrap();
        let mut matters = false;
        for at in [0, before.len() / 3, before.len() - 1] {
            let mut at_step = |delta: f32| {
                let mut values = before.clone();
                values[at] += delta;
                net.params.import(name, &values).unwrap();
                value(&net, &images)
            };
            let (up, down) = (at_step(STEP), at_step(-STEP));
            matters |= check(&format!("{name}[{at}]"), grads[at], up, down);
        }
        assert!(matters, "{name} has no influence");
        net.params.import(name, &before).unwrap();
    }
    let pixels = images.f32().unwrap();
    for at in (0..pixels.len()).step_by(97) {
        let at_step = |delta: f32| {
            let mut values = pixels.to_vec();
            values[at] += delta;
            value(&net, &Tensor::from_vec(images.shape(), values))
        };
        check(
            &format!("pixel {at}"),
            of_images[at],
            at_step(STEP),
            at_step(-STEP),
        );
    }
}

#[test]
fn images_have_gradients_without_those_of_the_weights() {
    let mut net = Classifier::new(tiny(), false).unwrap();
    net.init(3).unwrap();
    let images = random([1, 16, 16, 3], 1);
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let (leaf, key) = cx.leaf(&images);
    let value = loss(&net, &cx, &leaf);
    drop(leaf);
    let wanted = tape.backward(&value, 1.0, None, &[key]).unwrap();
    let grads = wanted[0].as_ref().unwrap();
    assert!(grads.f32().unwrap().iter().any(|g| *g != 0.0));
}

#[test]
fn what_it_gives_has_the_shapes_that_its_configuration_tells() {
    for (side, blocks) in [(16, 1), (17, 2), (32, 1), (50, 1)] {
        let config = ClassifierConfig {
            blocks,
            ..ClassifierConfig::for_side(side, 5).unwrap()
        };
        let mut net = Classifier::new(config.clone(), false).unwrap();
        net.init(1).unwrap();
        assert_eq!(net.params.count() as u64, config.parameters(), "{side}");
        let x = random([2, side, side, 3], 4);
        let out = net.forward(&ForwardPass::off(), &x).unwrap();
        let maps: Vec<_> = out.maps.iter().map(|m| m.dims().to_vec()).collect();
        let want: Vec<_> = config.maps().map(|(s, c)| vec![2, s, s, c]).collect();
        assert_eq!(maps, want, "{side}");
        assert_eq!(out.features.dims(), [2, config.features()]);
        assert_eq!(out.logits.dims(), [2, 5]);
        // An image gives the same in any company.
        let one = Tensor::from_vec(
            [1, side, side, 3],
            x.f32().unwrap()[..3 * side * side].into(),
        );
        let alone = net.forward(&ForwardPass::off(), &one).unwrap().features;
        let together = &out.features.f32().unwrap()[..config.features()];
        for (a, b) in alone.f32().unwrap().iter().zip(together) {
            assert!((a - b).abs() < 1e-5, "{a} {b}");
        }
        assert!(together.iter().all(|v| v.is_finite()));
    }
}

#[test]
fn images_of_another_size_are_refused() {
    let net = Classifier::new(tiny(), false).unwrap();
    for shape in [[1, 16, 17, 3], [1, 32, 32, 3], [1, 16, 16, 4]] {
        let e = net.forward(&ForwardPass::off(), &random(shape, 1));
        assert!(
            e.err()
                .unwrap()
                .to_string()
                .contains("takes images [B, 16, 16, 3]")
        );
    }
}

#[test]
fn a_gpu_gives_what_the_cpu_gives() {
    if cuda::count() == 0 {
        println!("skipped: no CUDA device");
        return;
    }
    let images = random([3, 16, 16, 3], 1);
    let on = |device: Device, precision: Precision| {
        let mut net = Classifier::new(tiny(), true).unwrap();
        net.init(3).unwrap();
        net.to_device(device, precision.math()).unwrap();
        let x = images.to(device).unwrap();
        let out = net.forward(&ForwardPass::plain(net.math), &x).unwrap();
        let host = |t: &Tensor| {
            let t = t.to(Device::Cpu).unwrap();
            t.f32().unwrap().to_vec()
        };
        let (mut weights, of_images) = gradients(&net, &x);
        weights.push(("images".into(), of_images));
        weights.push(("features".into(), host(&out.features)));
        weights.push(("logits".into(), host(&out.logits)));
        weights
    };
    let want = on(Device::Cpu, Precision::Fp32);
    for (precision, tolerance) in [
        (Precision::Fp32, 1e-4),
        (Precision::Tf32, 2e-2),
        (Precision::Bf16, 6e-2),
    ] {
        for ((name, got), (_, want)) in on(Device::Cuda(0), precision).iter().zip(&want) {
            assert_eq!(got.len(), want.len(), "{name}");
            let largest = want.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
            let apart = got.iter().zip(want).map(|(a, b)| (a - b).abs());
            let apart = apart.fold(0.0_f32, f32::max);
            assert!(
                apart <= tolerance * largest.max(1e-3),
                "{precision} {name}: {apart} apart of {largest}"
            );
        }
    }
}
