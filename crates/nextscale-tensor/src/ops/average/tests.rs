use super::*;
use crate::ops::testing::random;
use crate::params::Layout;
use crate::{DType, ParamsBuilder};

/// Parameters of odd sizes, and an average with other values.
fn models(device: Device, half: Option<DType>) -> (Params, GradBuffer) {
    let mut b = ParamsBuilder::new();
    for (i, n) in [37, 4096, 100_003].into_iter().enumerate() {
        b.add(format!("w{i}"), [n], Layout::Same);
    }
    let mut params = b.build(true);
    let mut average = params.buffer().unwrap();
    for (i, info) in params.infos().to_vec().iter().enumerate() {
        let n = info.shape.numel();
        let values = random([n], i as u64);
        params.import(&info.name, values.f32().unwrap()).unwrap();
        let values = random([n], 10 + i as u64);
        average.import(info, values.f32().unwrap()).unwrap();
    }
    params.to_device(device, half).unwrap();
    average.to_device(device).unwrap();
    (params, average)
}

fn of(params: &Params, buffer: &GradBuffer) -> Vec<f32> {
    let all = params.infos().iter().map(|i| buffer.export(i).unwrap());
    all.collect::<Vec<_>>().concat()
}

fn weights(params: &Params) -> Vec<f32> {
    let all = params.infos().iter().map(|i| params.export(&i.name));
    all.collect::<Result<Vec<_>>>().unwrap().concat()
}

#[test]
fn it_moves_by_its_share_and_a_decay_of_zero_copies() {
    let (params, mut buffer) = models(Device::Cpu, None);
    let (w, before) = (weights(&params), of(&params, &buffer));
    average(&mut buffer, &params, 0.9).unwrap();
    for ((a, b), w) in of(&params, &buffer).iter().zip(&before).zip(&w) {
        let want = f64::from(*b) + 0.1 * (f64::from(*w) - f64::from(*b));
        assert!((f64::from(*a) - want).abs() < 1e-6, "{a} {want}");
    }
    average(&mut buffer, &params, 0.0).unwrap();
    assert_eq!(of(&params, &buffer), w);
    let other = ParamsBuilder::new().build(true);
    assert!(average(&mut buffer, &other, 0.5).is_err());
}

#[test]
fn weights_and_average_change_places_and_back() {
    for device in [Device::Cpu].into_iter().chain(crate::ops::testing::gpu()) {
        for half in [None, Some(DType::Bf16)] {
            let (mut params, mut buffer) = models(device, half);
            let (w, a) = (weights(&params), of(&params, &buffer));
            params.swap(&mut buffer).unwrap();
            assert!(weights(&params) == a && of(&params, &buffer) == w);
            if let Some(copy) = params.half() {
                let want = params.whole().cast(DType::Bf16).unwrap();
                let f32s = |t: &crate::Tensor| {
                    let t = t.cast(DType::F32).unwrap().to(Device::Cpu).unwrap();
                    t.f32().unwrap().to_vec()
                };
                assert_eq!(f32s(&copy), f32s(&want));
            }
            params.swap(&mut buffer).unwrap();
            assert!(weights(&params) == w && of(&params, &buffer) == a);
            // While somebody holds the weights they stay where they are.
            let held = params.whole();
            assert!(params.swap(&mut buffer).is_err());
            drop(held);
        }
    }
}

#[test]
fn a_gpu_agrees() {
    let Some(device) = crate::ops::testing::gpu() else {
        return;
    };
    for decay in [0.0, 0.5, 0.9999] {
        let both = [Device::Cpu, device].map(|device| {
            let (params, mut buffer) = models(device, Some(DType::Bf16));
            average(&mut buffer, &params, decay).unwrap();
            of(&params, &buffer)
        });
        assert!(both[0] == both[1], "decay {decay}");
    }
}
