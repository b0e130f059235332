use super::*;
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
