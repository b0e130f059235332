//! The CPU's numbers on a GPU.

use super::*;
use crate::DType;
use crate::ops::testing::{distance, gpu, random};

/// Logits of which some are equal: rounded to eighths.
fn coarse(shape: [usize; 3], lane: u64) -> Tensor {
    let x = random(shape, lane);
    let x = x.f32().unwrap().iter().map(|x| (x * 16.0).round() / 8.0);
    Tensor::from_vec(shape, x.collect())
}

fn here(x: &Tensor) -> Tensor {
    x.to(Device::Cpu).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    x.f32().unwrap().iter().map(|x| x.to_bits()).collect()
}

const FILTERS: [(usize, f32); 8] = [
    (0, 0.0),
    (1, 0.0),
    (20, 0.0),
    (900, 0.96),
    (0, 0.8),
    (7, 0.5),
    (50, 1.0),
    (100_000, 1e-6),
];

#[test]
fn filters_and_guidance_are_those_of_the_cpu() {
    let Some(device) = gpu() else { return };
    for (b, l, v) in [
        (2, 3, 1),
        (4, 5, 37),
        (2, 9, 4096),
        (2, 1, 6001),
        (2, 2, 16384),
    ] {
        for x in [random([b, l, v], 5), coarse([b, l, v], 6)] {
            let there = x.to(device).unwrap();
            let want = guide(&x, Some(1.3)).unwrap();
            let got = guide(&there, Some(1.3)).unwrap();
            assert_eq!(bits(&here(&got)), bits(&want));
            for (k, p) in FILTERS {
                let want = filter_logits(&want, k, p).unwrap();
                let got = filter_logits(&got, k, p).unwrap();
                assert!(bits(&here(&got)) == bits(&want), "{v} codes, k {k}, p {p}");
            }
        }
    }
    let wide = Tensor::zeros_on(device, [1, 1, 16385], DType::F32).unwrap();
    assert!(filter_logits(&wide, 1, 0.5).is_err());
}

#[test]
fn draws_are_those_of_the_cpu_however_they_are_asked_for() {
    let Some(device) = gpu() else { return };
    for (b, l, v) in [(2, 3, 1), (4, 5, 37), (6, 40, 4096), (2, 3, 6001)] {
        let x = random([b, l, v], 7);
        let there = x.to(device).unwrap();
        let (seed, first) = (0x1234_5678_9abc_def0, (1 << 33) + 5);
        let params = Tensor::from_i32([4], draw_params(seed, first).to_vec());
        let on_device = params.to(device).unwrap();
        let numbers = random([b / 2, l, v], 8);
        let given: Vec<f32> = numbers
            .f32()
            .unwrap()
            .iter()
            .map(|x| x * x + 0.01)
            .collect();
        for (k, p) in FILTERS {
            let scale = 3;
            let counted = Draw::Seed { seed, scale, first };
            let params = Draw::Device {
                params: &params,
                scale,
            };
            let there_params = Draw::Device {
                params: &on_device,
                scale,
            };
            let want = sample_tokens(&x, Some(0.7), k, p, &counted).unwrap();
            let same = sample_tokens(&x, Some(0.7), k, p, &params).unwrap();
            assert_eq!(same.i32().unwrap(), want.i32().unwrap());
            for draw in [counted, there_params] {
                let got = sample_tokens(&there, Some(0.7), k, p, &draw).unwrap();
                assert_eq!(
                    here(&got).i32().unwrap(),
                    want.i32().unwrap(),
                    "{v} {k} {p}"
                );
                let filtered = filter_logits(&guide(&there, Some(0.7)).unwrap(), k, p).unwrap();
                let apart = draw_tokens(&filtered, &draw).unwrap();
                assert_eq!(here(&apart).i32().unwrap(), want.i32().unwrap());
            }
            let draw = Draw::Given(&given);
            let want = sample_tokens(&x, Some(0.7), k, p, &draw).unwrap();
            let got = sample_tokens(&there, Some(0.7), k, p, &draw).unwrap();
            assert_eq!(here(&got).i32().unwrap(), want.i32().unwrap());
        }
        let draw = Draw::Seed {
            seed,
            scale: 0,
            first,
        };
        let want = sample_tokens(&x, None, 9, 0.9, &draw).unwrap();
        let got = sample_tokens(&there, None, 9, 0.9, &draw).unwrap();
        assert_eq!(here(&got).i32().unwrap(), want.i32().unwrap());
        assert!(sample_tokens(&there.narrow(0, 1).unwrap(), Some(0.7), 0, 0.0, &draw).is_err());
        assert!(sample_tokens(&there, None, 0, 0.0, &Draw::Given(&given)).is_err());
    }
}

#[test]
fn blends_are_those_of_the_cpu() {
    let Some(device) = gpu() else { return };
    for (b, l, v, c) in [(1, 2, 5, 4), (3, 7, 4096, 32), (1, 3, 5000, 33)] {
        let x = filter_logits(&random([b, l, v], 9), v / 2, 0.9).unwrap();
        let codebook = random([v, c], 10);
        let noise = random([b, l, v], 11);
        for ratio in [0.0, 0.4, 1.0] {
            let counted = Draw::Seed {
                seed: 3,
                scale: 2,
                first: 1,
            };
            for draw in [counted, Draw::Given(noise.f32().unwrap())] {
                let want = smooth_codes(&x, ratio, &draw, &codebook).unwrap();
                let (x, codebook) = (x.to(device).unwrap(), codebook.to(device).unwrap());
                let got = smooth_codes(&x, ratio, &draw, &codebook).unwrap();
                let d = distance(here(&got).f32().unwrap(), want.f32().unwrap());
                assert!(d < 2e-5, "{v} codes at {ratio}: off by {d:e}");
            }
        }
    }
}

/// GPUs whose blocks have 99 KiB of shared memory keep a row's pairs elsewhere.
#[test]
fn little_shared_memory_draws_the_same() {
    let Some(device) = gpu() else { return };
    for (b, l, v) in [(4, 3, 4097), (2, 5, 8192), (2, 2, 16384)] {
        let x = random([b, l, v], 12).to(device).unwrap();
        let draw = Draw::Seed {
            seed: 5,
            scale: 1,
            first: 2,
        };
        for (k, p) in FILTERS {
            let of = |most| {
                let y = cuda::sample_tokens("test", &x, Some(0.7), (k, p), &draw, most).unwrap();
                let filtered = cuda::filter_logits(&x, k, p, most).unwrap();
                (here(&y).i32().unwrap().to_vec(), bits(&here(&filtered)))
            };
            assert!(of(99 << 10) == of(200 << 10), "{v} codes, k {k}, p {p}");
        }
    }
}
