use super::*;
use crate::format::StateDict;
use crate::format::host::HostTensor;
use crate::model::layers::Conv2d;
use crate::model::state::expected;
use nextscale_tensor::ops::Conv;

/// Small numbers by a formula, in [-1, 1).
fn numbers(seed: usize) -> impl Iterator<Item = f32> {
    (0..).map(move |i: usize| ((i * 7919 + seed * 104_729) % 2003) as f32 / 1001.5 - 1.0)
}

fn tensor(shape: &[usize], values: impl Iterator<Item = f32>) -> HostTensor {
    let values: Vec<f32> = values.take(shape.iter().product()).collect();
    HostTensor::from_f32(shape, &values).unwrap()
}

/// A state dict as the PyTorch ports save it, all zero but for the norms' variances.
fn published() -> StateDict {
    let mut dict = StateDict::new();
    for (name, shape) in expected(&Inception::new().unwrap().params) {
        let Some(layer) = name.strip_suffix(".conv.bias") else {
            dict.insert(name, HostTensor::zeros_f32(&shape).unwrap());
            continue;
        };
        for part in ["weight", "bias", "running_mean", "running_var"] {
            let value = if part == "running_var" { 1.0 } else { 0.0 };
            let name = format!("{layer}.bn.{part}");
            dict.insert(name, tensor(&shape, std::iter::repeat(value)));
        }
        let counter = HostTensor::from_i64(&[], &[0]).unwrap();
        dict.insert(format!("{layer}.bn.num_batches_tracked"), counter);
    }
    dict
}

#[test]
fn what_is_no_such_network_is_refused_in_a_line() {
    let mut net = Inception::new().unwrap();
    let mut refused = |change: &dyn Fn(&mut StateDict)| {
        let mut dict = published();
        change(&mut dict);
        let told = state_dict::load(&mut net, &dict, "file.pth").unwrap_err();
        assert_eq!(told.exit_code(), 2);
        let told = told.to_string();
        assert!(
            told.starts_with("file.pth: ") && !told.contains('\n'),
            "{told}"
        );
        told
    };
    let without = |gone: &'static str| {
        move |dict: &mut StateDict| {
            let kept = dict.iter().filter(|(name, _)| *name != gone);
            *dict = kept.map(|(n, t)| (n.to_owned(), t.clone())).collect();
        }
    };
    for gone in ["fc.weight", "Mixed_6d.branch1x1.bn.running_var"] {
        let told = refused(&without(gone));
        assert!(told.contains("lacks") && told.contains(gone), "{told}");
    }
    // The frameworks' own Inception v3 has 1,000 outputs.
    let told = refused(&|dict| {
        dict.insert("fc.weight", HostTensor::zeros_f32(&[1000, 2048]).unwrap());
    });
    assert!(
        told.contains("[1000, 2048]") && told.contains("[1008, 2048]"),
        "{told}"
    );
    let told = refused(&|dict| {
        dict.insert("head.weight", HostTensor::zeros_f32(&[3]).unwrap());
    });
    assert!(told.contains("head.weight"), "{told}");
    let norm = "Mixed_5b.branch_pool.bn.running_var";
    for (value, says) in [(f32::NAN, "1 of its 32"), (-0.5, "negative variance")] {
        let told = refused(&|dict| {
            let values = std::iter::once(value).chain(std::iter::repeat(1.0));
            dict.insert(norm, tensor(&[32], values));
        });
        assert!(told.contains(norm) && told.contains(says), "{told}");
    }
    let told = refused(&|dict| {
        dict.insert(
            "fc.bias",
            HostTensor::from_i64(&[1008], &[0; 1008]).unwrap(),
        );
    });
    assert!(told.contains("fc.bias") && told.contains("I64"), "{told}");
}

#[test]
fn what_scores_do_not_use_is_passed_over() {
    let mut dict = published();
    dict.insert(
        "AuxLogits.fc.weight",
        HostTensor::zeros_f32(&[1008, 768]).unwrap(),
    );
    let mut net = Inception::new().unwrap();
    assert!(state_dict::fits(&dict));
    state_dict::load(&mut net, &dict, "file.pth").unwrap();
    let first = expected(&net.params).remove(0);
    assert!(!state_dict::fits(
        &[(first.0, HostTensor::zeros_f32(&[1]).unwrap())]
            .into_iter()
            .collect()
    ));
}

/// A convolution, then its norm, by the definition in float64.
#[test]
fn a_norm_folded_into_its_convolution_gives_what_both_give() {
    let layer = "Mixed_6d.branch7x7_2";
    let mut dict = published();
    // 160 channels from 160, a kernel of one row and seven columns.
    let shape = [160, 160, 1, 7];
    dict.insert(format!("{layer}.conv.weight"), tensor(&shape, numbers(1)));
    for (seed, part) in ["weight", "bias", "running_mean", "running_var"]
        .iter()
        .enumerate()
    {
        let values = numbers(seed + 2).map(|v| match *part {
            "running_var" => 1.0 + 0.9 * v,
            _ => v,
        });
        dict.insert(format!("{layer}.bn.{part}"), tensor(&[160], values));
    }
    let mut net = Inception::new().unwrap();
    state_dict::load(&mut net, &dict, "file.pth").unwrap();
    let mut b = ParamsBuilder::new();
    let pad = [0, 3, 0, 3];
    let conv = Conv2d::oblong(&mut b, layer, (160, 160), (1, 7), Conv { stride: 1, pad });
    let mut params = b.build(false);
    for part in ["weight", "bias"] {
        let values = net.params.export(&format!("{layer}.conv.{part}")).unwrap();
        params.import(&format!("{layer}.{part}"), &values).unwrap();
    }
    let x: Vec<f32> = numbers(9).take(9 * 160).collect();
    let pass = ForwardPass::plain(Math::FULL);
    let maps = Tensor::from_vec([1, 1, 9, 160], x.clone());
    let found = conv.forward(&pass, &params, &maps).unwrap();
    let values = |name: &str| -> Vec<f64> {
        let tensor = dict.get(&format!("{layer}.{name}")).unwrap();
        tensor.to_f32_vec().into_iter().map(f64::from).collect()
    };
    let weight = values("conv.weight");
    let [gamma, beta, mean, variance] =
        ["weight", "bias", "running_mean", "running_var"].map(|part| values(&format!("bn.{part}")));
    for column in 0..9usize {
        for o in 0..160 {
            let mut sum = 0.0;
            for tap in 0..7 {
                let Some(from) = (column + tap).checked_sub(3usize).filter(|c| *c < 9) else {
                    continue;
                };
                for i in 0..160 {
                    sum += weight[(o * 160 + i) * 7 + tap] * f64::from(x[from * 160 + i]);
                }
            }
            let want = (sum - mean[o]) / (variance[o] + 1e-3).sqrt() * gamma[o] + beta[o];
            let got = f64::from(found.f32().unwrap()[column * 160 + o]);
            assert!(
                (got - want).abs() < 1e-4 * (1.0 + want.abs()),
                "{column} {o}: {got} {want}"
            );
        }
    }
}

#[test]
fn images_of_another_size_are_refused() {
    let net = Inception::new().unwrap();
    let x = Tensor::zeros([1, 256, 256, 3]);
    assert!(net.forward(&ForwardPass::plain(Math::FULL), &x).is_err());
}
