use super::*;
use crate::DType;
use crate::cpu::CHUNK;
use crate::params::{Layout, Params, ParamsBuilder};
use crate::rng::{Purpose, Stream};

fn store(sizes: &[usize]) -> Params {
    let mut b = ParamsBuilder::new();
    for (i, n) in sizes.iter().enumerate() {
        b.add(format!("p{i}"), [*n], Layout::Same);
    }
    b.build(true)
}

#[test]
fn matches_f64_over_several_steps() {
    let mut params = store(&[5, CHUNK + 77, 3]);
    let ranges: Vec<_> = params
        .infos()
        .iter()
        .enumerate()
        .map(|(i, info)| (info.range(), if i == 1 { 1.0 } else { 0.0 }))
        .collect();
    let n = params.flat_len();
    let (mut g, mut m, mut v) = (
        params.buffer().unwrap(),
        params.buffer().unwrap(),
        params.buffer().unwrap(),
    );
    let mut draw = Stream::new(1, Purpose::Test, 0, 7);
    let inside = |i: usize| ranges.iter().position(|r| r.0.contains(&i));
    for i in 0..n {
        if inside(i).is_some() {
            params.flat_mut().unwrap()[i] = draw.normal();
        }
    }
    let mut want: Vec<[f64; 3]> = params
        .flat()
        .unwrap()
        .iter()
        .map(|&p| [f64::from(p), 0.0, 0.0])
        .collect();
    let mut steps = Steps::new(&params, ranges.clone(), StepsProgress::default()).unwrap();
    for step in 1..=3 {
        for i in 0..n {
            g.cpu_mut().unwrap()[i] = draw.normal();
        }
        let hyper = AdamW {
            lr: 1e-3,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.05,
            // Halves the gradients.
            clip: Some(0.5 * (grad_norm(&g).unwrap() + 1e-6)),
        };
        let before = g.cpu().unwrap().to_vec();
        let mut buffers = Moments {
            grads: &mut g,
            exp_avg: &mut m,
            exp_avg_sq: &mut v,
        };
        let found = steps.step(&mut params, &mut buffers, &hyper).unwrap();
        assert_eq!(found.read().unwrap().updates, step);
        assert!(g.cpu().unwrap().iter().all(|g| *g == 0.0));
        for (i, w) in want.iter_mut().enumerate() {
            let Some(r) = inside(i) else { continue };
            let g = f64::from(before[i]) * 0.5;
            w[0] *= 1.0 - 1e-3 * 0.05 * f64::from(ranges[r].1);
            w[1] = 0.9 * w[1] + 0.1 * g;
            w[2] = 0.95 * w[2] + 0.05 * g * g;
            let (c1, c2) = (
                1.0 - 0.9f64.powi(step as i32),
                1.0 - 0.95f64.powi(step as i32),
            );
            w[0] -= 1e-3 / c1 * w[1] / ((w[2] / c2).sqrt() + 1e-8);
        }
    }
    for (p, w) in params.flat().unwrap().iter().zip(&want) {
        assert!((f64::from(*p) - w[0]).abs() < 2e-6, "{p} {}", w[0]);
    }
}

#[test]
fn norm_in_f64() {
    let params = store(&[100_000]);
    let mut g = params.buffer().unwrap();
    let mut draw = Stream::new(1, Purpose::Test, 0, 8);
    g.cpu_mut()
        .unwrap()
        .iter_mut()
        .for_each(|g| *g = draw.normal());
    let want = g
        .cpu()
        .unwrap()
        .iter()
        .map(|&g| f64::from(g).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!((grad_norm(&g).unwrap() / want - 1.0).abs() < 1e-6);
}

#[test]
fn buffers_must_fit() {
    let (mut a, b) = (store(&[4]), store(&[40]));
    let hyper = AdamW {
        lr: 1.0,
        beta1: 0.9,
        beta2: 0.9,
        eps: 1.0,
        weight_decay: 0.0,
        clip: None,
    };
    let mut of_b = Steps::new(&b, vec![], StepsProgress::default()).unwrap();
    let mut of_a = Steps::new(&a, vec![], StepsProgress::default()).unwrap();
    let mut moments = [&b, &a, &a].map(|p| p.buffer().unwrap());
    let [grads, exp_avg, exp_avg_sq] = &mut moments;
    let mut buffers = Moments {
        grads,
        exp_avg,
        exp_avg_sq,
    };
    assert!(of_a.step(&mut a, &mut buffers, &hyper).is_err());
    assert!(of_b.step(&mut a, &mut buffers, &hyper).is_err());
    let new = |ranges| Steps::new(&a, ranges, StepsProgress::default());
    assert!(new(vec![(0..5, 0.0)]).is_err());
    assert!(new(vec![(0..3, 0.0), (2..4, 0.0)]).is_err());
    assert!(new(vec![(0..2, 0.0), (2..4, 0.0)]).is_ok());
}

#[test]
fn an_overflow_updates_nothing() {
    let mut params = store(&[20]);
    let ranges = vec![(0..20, 1.0)];
    let scaling = Scaling {
        scale: 1024.0,
        growth_factor: 2.0,
        backoff_factor: 0.5,
        growth_interval: 2,
        growth_tracker: 0,
    };
    let start = StepsProgress {
        updates: 6,
        scaling: Some(scaling),
    };
    let mut steps = Steps::new(&params, ranges, start).unwrap();
    let mut buffers = [(); 3].map(|()| params.buffer().unwrap());
    let hyper = AdamW {
        lr: 0.1,
        beta1: 0.9,
        beta2: 0.9,
        eps: 1e-8,
        weight_decay: 0.0,
        clip: None,
    };
    let mut run = |value: f32| {
        let [grads, exp_avg, exp_avg_sq] = &mut buffers;
        grads.cpu_mut().unwrap()[..20].fill(2.0);
        grads.cpu_mut().unwrap()[3] = value;
        let mut buffers = Moments {
            grads,
            exp_avg,
            exp_avg_sq,
        };
        let found = steps.step(&mut params, &mut buffers, &hyper).unwrap();
        let seed = steps.seed(4).unwrap().scalar().unwrap();
        let found = found.read().unwrap();
        assert_eq!(f64::from(seed), found.scale / 4.0);
        assert_eq!(found.updates, steps.progress().unwrap().updates);
        (found, params.flat().unwrap()[0])
    };
    let (one, p) = run(2.0);
    assert!(!one.skipped && p != 0.0);
    assert!((one.norm - 80f64.sqrt() / 1024.0).abs() < 1e-9);
    for bad in [f32::INFINITY, f32::NAN] {
        let (two, q) = run(bad);
        assert!(two.skipped && q == p && two.updates == 7);
    }
    assert_eq!(run(2.0).0.scale, 256.0);
    assert_eq!(run(2.0).0.scale, 512.0);
}

/// Twenty steps with clipping, decay, overflows and growth on both devices, in every type of the weights' copy.
#[test]
fn a_gpu_agrees() {
    let Some(device) = crate::ops::testing::gpu() else {
        return;
    };
    for (half, scaled) in [
        (None, false),
        (Some(DType::Bf16), false),
        (Some(DType::F16), true),
    ] {
        let scaling = scaled.then_some(Scaling {
            scale: 32768.0,
            growth_factor: 2.0,
            backoff_factor: 0.5,
            growth_interval: 3,
            growth_tracker: 1,
        });
        let start = StepsProgress {
            updates: 4,
            scaling,
        };
        let sizes = [5, 40_000, 16, 33];
        let (mut here, mut there) = (store(&sizes), store(&sizes));
        let ranges: Vec<_> = here
            .infos()
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != 2)
            .map(|(i, info)| (info.range(), [0.0, 1.0, 9.0, 0.5][i]))
            .collect();
        let mut draw = Stream::new(3, Purpose::Test, 0, 1);
        let names: Vec<_> = here.infos().to_vec();
        for info in &names {
            let values: Vec<f32> = info.range().map(|_| draw.normal()).collect();
            here.import(&info.name, &values).unwrap();
            there.import(&info.name, &values).unwrap();
        }
        there.to_device(device, half).unwrap();
        let mut on_cpu = Steps::new(&here, ranges.clone(), start).unwrap();
        let mut on_gpu = Steps::new(&there, ranges, start).unwrap();
        let mut a = [(); 3].map(|()| here.buffer().unwrap());
        let mut b = [(); 3].map(|()| there.buffer().unwrap());
        for step in 0..20 {
            let hyper = AdamW {
                lr: 1e-2,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.05,
                clip: (step % 2 == 0).then_some(3.0),
            };
            let seed = [&on_cpu, &on_gpu].map(|s| s.seed(3).unwrap().scalar().unwrap());
            assert_eq!(seed[0], seed[1]);
            for info in &names {
                let mut values: Vec<f32> = info.range().map(|_| seed[0] * draw.normal()).collect();
                if scaled && [2, 3, 9, 17].contains(&step) && info.name == "p3" {
                    values[32] = if step == 3 { f32::NAN } else { f32::INFINITY };
                }
                a[0].import(info, &values).unwrap();
                b[0].import(info, &values).unwrap();
            }
            let norms = [grad_norm(&a[0]).unwrap(), grad_norm(&b[0]).unwrap()];
            let run = |steps: &mut Steps, params: &mut Params, moments: &mut [GradBuffer; 3]| {
                let [grads, exp_avg, exp_avg_sq] = moments;
                let mut buffers = Moments {
                    grads,
                    exp_avg,
                    exp_avg_sq,
                };
                let found = steps.step(params, &mut buffers, &hyper).unwrap();
                found.read().unwrap()
            };
            let x = run(&mut on_cpu, &mut here, &mut a);
            let y = run(&mut on_gpu, &mut there, &mut b);
            assert_eq!(
                (x.scale, x.skipped, x.updates),
                (y.scale, y.skipped, y.updates)
            );
            if x.skipped {
                assert!(!norms[1].is_finite() && !y.norm.is_finite());
            } else {
                assert!((norms[0] / norms[1] - 1.0).abs() < 1e-6, "{norms:?}");
                assert!(
                    (x.norm / y.norm - 1.0).abs() < 1e-6,
                    "{} {}",
                    x.norm,
                    y.norm
                );
            }
            assert!(
                b[0].tensor()
                    .unwrap()
                    .to(Device::Cpu)
                    .unwrap()
                    .f32()
                    .unwrap()
                    .iter()
                    .all(|g| *g == 0.0)
            );
        }
        assert_eq!(on_cpu.progress().unwrap(), on_gpu.progress().unwrap());
        assert_eq!(
            on_gpu.progress().unwrap().updates,
            if scaled { 20 } else { 24 }
        );
        let whole = there.whole().to(Device::Cpu).unwrap();
        let d = crate::ops::testing::distance(whole.f32().unwrap(), here.flat().unwrap());
        assert!(d < 1e-6, "off by {d:e}");
        for i in 1..3 {
            let moment = b[i].tensor().unwrap().to(Device::Cpu).unwrap();
            let d = crate::ops::testing::distance(moment.f32().unwrap(), a[i].cpu().unwrap());
            assert!(d < 1e-6, "moment {i} off by {d:e}");
        }
        if let Some(dtype) = half {
            let copy = there.half().unwrap().to(Device::Cpu).unwrap();
            let want = there.whole().cast(dtype).unwrap().to(Device::Cpu).unwrap();
            assert_eq!(copy.f32().unwrap(), want.f32().unwrap());
        }
    }
}
