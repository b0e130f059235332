use super::*;
use crate::generate::Blend;
use crate::model::small::models;
use crate::model::var::InitScales;
use nextscale_tensor::{Device, Math};

fn options(more_smooth: bool, cfg: f32) -> SampleOptions {
    SampleOptions {
        cfg,
        top_k: 90,
        top_p: 0.9,
        more_smooth,
        noise: Noise::Seed(7),
    }
}

fn floats(x: &Tensor) -> Vec<f32> {
    x.to(Device::Cpu).unwrap().f32().unwrap().to_vec()
}

fn codes(x: &Sampled) -> Vec<Vec<i32>> {
    let here = |t: &Tensor| t.to(Device::Cpu).unwrap().i32().unwrap().to_vec();
    x.tokens.iter().map(here).collect()
}

fn agree(device: Device, math: Math) {
    let scales = InitScales {
        hd: 8.0,
        aln: 1.0,
        alng: 0.5,
        ..InitScales::default()
    };
    let (vqvae, var) = models(device, math, false, scales);
    let sampler = Sampler {
        var: &var,
        vqvae: &vqvae,
    };
    let labels = [3, 1, 4, 1, 5, 9, 2, 6, 5, 3, 5];
    for (more_smooth, cfg) in [(false, 1.5), (true, 1.5), (false, 0.0)] {
        let options = options(more_smooth, cfg);
        let mut batches = BatchSampler::new(sampler, options.clone(), 4);
        let mut kept = Vec::new();
        for (i, labels) in labels.chunks(4).chain(labels.chunks(3)).enumerate() {
            let first = 100 * i as u64;
            kept.push((batches.draw(labels, first).unwrap(), labels, first));
        }
        let mut all = Vec::new();
        // Looked at afterwards: later batches leave earlier ones alone.
        for (got, labels, first) in &kept {
            let want = sampler.draw(labels, *first, &options, None, None).unwrap();
            assert_eq!(got.images.dims()[0], labels.len());
            if labels.len() == 4 || device == Device::Cpu {
                assert_eq!(codes(got), codes(&want));
                assert!(floats(&got.images) == floats(&want.images));
                assert!(floats(&got.f_hat) == floats(&want.f_hat));
            }
            all.extend(codes(got).concat());
            let mut watch = |_: usize, _: &Tensor, _: &Tensor| Ok(());
            let watched = sampler
                .draw(labels, *first, &options, None, Some(&mut watch))
                .unwrap();
            assert_eq!(codes(&watched), codes(&want));
        }
        all.sort_unstable();
        all.dedup();
        assert!(all.len() > 20, "only {} different codes", all.len());
        assert_eq!(batches.graph_bytes() > 0, device.is_async());
        assert!(batches.draw(&[11], 0).is_err());
    }
}

#[test]
fn drawing_ends_after_the_scale_that_it_is_asked_to_end_after() {
    let (vqvae, var) = models(Device::Cpu, Math::FULL, false, InitScales::default());
    let sampler = Sampler {
        var: &var,
        vqvae: &vqvae,
    };
    let options = options(false, 1.5);
    let scales = var.config.pyramid.count();
    assert!(scales > 2);
    for last in [1, 2, scales + 1] {
        let mut asked = 0;
        let drawn = sampler.draw_while(&[3, 1], 5, &options, &mut || {
            asked += 1;
            match asked < last {
                true => Ok(()),
                false => Err(crate::Error::Stopped),
            }
        });
        match drawn {
            Err(e) => assert!(matches!(e, crate::Error::Stopped) && asked == last),
            Ok(drawn) => {
                assert_eq!((asked, last), (scales, scales + 1));
                let want = sampler.draw(&[3, 1], 5, &options, None, None).unwrap();
                assert!(floats(&drawn.images) == floats(&want.images));
            }
        }
    }
}

/// At their ends blends are the classes, and between them neither; with guidance and without.
fn blends_lie_between_classes(device: Device, math: Math) {
    let scales = InitScales {
        hd: 8.0,
        aln: 1.0,
        alng: 0.5,
        ..InitScales::default()
    };
    let (vqvae, var) = models(device, math, false, scales);
    let sampler = Sampler {
        var: &var,
        vqvae: &vqvae,
    };
    let (from, to) = (3, 5);
    let of = |share: f32| Blend { from, to, share };
    for cfg in [1.5, 0.0] {
        let options = options(false, cfg);
        let drawn = |share: f32| {
            sampler
                .draw_between(&[of(share)], 7, &options, None)
                .unwrap()
        };
        let class = |label: i32| sampler.draw(&[label], 7, &options, None, None).unwrap();
        for (share, label) in [(0.0, from), (1.0, to)] {
            let (got, want) = (drawn(share), class(label));
            assert_eq!(codes(&got), codes(&want));
            assert!(floats(&got.images) == floats(&want.images));
        }
        // Logits of the first scale: a small change need not turn a token.
        let logits = |share: f32| {
            let mut first = Vec::new();
            let mut watch = |k: usize, logits: &Tensor, _: &Tensor| {
                if k == 0 {
                    first = floats(logits);
                }
                Ok(())
            };
            let blend = [of(share)];
            sampler
                .draw_between(&blend, 7, &options, Some(&mut watch))
                .unwrap();
            first
        };
        let (start, half, end) = (logits(0.0), logits(0.5), logits(1.0));
        assert!(start != end && half != start && half != end);
    }
    let cond = |rows: &[i32]| {
        Tensor::from_i32([rows.len()], rows.to_vec())
            .to(device)
            .unwrap()
    };
    let mixed = var
        .blended_condition(&cond(&[from, from]), &cond(&[to, to]), &[0.25, 1.0])
        .unwrap();
    let cx = nextscale_tensor::Cx::off().with(math).full();
    let rows = |label| floats(&var.condition(&cx, &cond(&[label])).unwrap());
    let (a, b) = (rows(from), rows(to));
    let want = a.iter().zip(&b).map(|(a, b)| 0.75 * a + 0.25 * b);
    let want: Vec<f32> = want.chain(b.iter().copied()).collect();
    let got = floats(&mixed);
    assert_eq!(got.len(), want.len());
    assert!(got.iter().zip(&want).all(|(g, w)| (g - w).abs() < 1e-6));
    for bad in [-0.1, 1.1, f32::NAN] {
        let blend = [of(bad)];
        assert!(
            sampler
                .draw_between(&blend, 0, &options(false, 1.0), None)
                .is_err()
        );
    }
    assert!(
        var.blended_condition(&cond(&[1]), &cond(&[2]), &[])
            .is_err()
    );
}

#[test]
fn blends_are_between_classes() {
    blends_lie_between_classes(Device::Cpu, Math::FULL);
}

#[test]
fn blends_on_a_gpu_are_between_classes() {
    if nextscale_tensor::cuda::count() == 0 {
        println!("skipped: no CUDA device");
        return;
    }
    blends_lie_between_classes(Device::Cuda(0), Math::FULL);
}

#[test]
fn batches_are_the_samplers_own() {
    agree(Device::Cpu, Math::FULL);
}

#[test]
fn batches_on_a_gpu_are_the_samplers_own() {
    if nextscale_tensor::cuda::count() == 0 {
        println!("skipped: no CUDA device");
        return;
    }
    agree(Device::Cuda(0), Math::FULL);
    let bf16 = Math {
        operands: DType::Bf16,
        tf32: true,
    };
    agree(Device::Cuda(0), bf16);
}
