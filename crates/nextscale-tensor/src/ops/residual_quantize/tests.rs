use super::*;
use crate::ops::testing::{distance, gpu, random};

const SCALES: [(usize, usize); 10] = [
    (1, 1),
    (2, 2),
    (3, 3),
    (4, 4),
    (5, 5),
    (6, 6),
    (8, 8),
    (10, 10),
    (13, 13),
    (16, 16),
];

/// A codebook, a few φ and which of them every scale has.
struct Case {
    codebook: Tensor,
    phis: Vec<(Tensor, Tensor)>,
    scales: Vec<(usize, usize)>,
    f: Tensor,
}

impl Case {
    fn new(batch: usize, (v, c): (usize, usize), phis: usize, scales: &[(usize, usize)]) -> Self {
        let small = |x: Tensor, by: f32| {
            let values = x.f32().unwrap().iter().map(|x| x * by).collect();
            Tensor::from_vec(x.shape(), values)
        };
        let full = scales[scales.len() - 1];
        let all: Vec<(Tensor, Tensor)> = (0..phis as u64)
            .map(|i| {
                let weight = small(random([c, 3, 3, c], 10 + i), 0.06);
                (weight, small(random([c], 20 + i), 0.1))
            })
            .collect();
        let phis = (0..if phis > 0 { scales.len() } else { 0 })
            .map(|k| all[k * phis / scales.len()].clone())
            .collect();
        Self {
            codebook: small(random([v, c], 1), 0.7),
            phis,
            scales: scales.to_vec(),
            f: random([batch, full.0, full.1, c], 2),
        }
    }

    fn to(&self, device: Device) -> Self {
        let there = |x: &Tensor| x.to(device).unwrap();
        Self {
            codebook: there(&self.codebook),
            phis: self
                .phis
                .iter()
                .map(|(w, b)| (there(w), there(b)))
                .collect(),
            scales: self.scales.clone(),
            f: there(&self.f),
        }
    }

    fn codes(&self, by_angle: bool) -> ResidualCodes<'_> {
        ResidualCodes {
            codebook: &self.codebook,
            phis: &self.phis,
            rho: 0.5,
            by_angle,
        }
    }

    fn run(&self, by_angle: bool, active: usize) -> Residual {
        residual_quantize(&self.f, &self.codes(by_angle), &self.scales, active, None).unwrap()
    }
}

fn here(x: &Tensor) -> Vec<f32> {
    x.to(Device::Cpu).unwrap().f32().unwrap().to_vec()
}

fn tokens(r: &Residual) -> Vec<Vec<i32>> {
    let all = r.indices.iter();
    all.map(|t| t.to(Device::Cpu).unwrap().i32().unwrap().to_vec())
        .collect()
}

#[test]
fn tokens_make_the_input_again() {
    let case = Case::new(2, (50, 32), 2, &SCALES[..5]);
    let all = case.run(false, 5);
    let shapes: Vec<_> = all.indices.iter().map(|t| t.dims().to_vec()).collect();
    assert_eq!(shapes[4], [2, 25]);
    let input = all.input.unwrap();
    assert_eq!(input.dims(), [2, 4 + 9 + 16 + 25, 32]);
    let codes = case.codes(false);
    let again = var_input_from_tokens(&all.indices, &codes, &case.scales, 5)
        .unwrap()
        .unwrap();
    assert!(distance(again.f32().unwrap(), input.f32().unwrap()) == 0.0);
    // Fewer active scales are the beginning; one has no input.
    let short = var_input_from_tokens(&all.indices, &codes, &case.scales, 3)
        .unwrap()
        .unwrap();
    assert_eq!(short.dims(), [2, 13, 32]);
    assert_eq!(
        short.f32().unwrap()[..13 * 32],
        input.f32().unwrap()[..13 * 32]
    );
    assert!(case.run(false, 1).input.is_none());
    let none = var_input_from_tokens(&all.indices, &codes, &case.scales, 1).unwrap();
    assert!(none.is_none());
}

#[test]
fn every_scale_leaves_less() {
    let case = Case::new(2, (200, 8), 0, &SCALES[..6]);
    let left = std::cell::RefCell::new(Vec::new());
    let see = |_: usize, f_hat: &Tensor| {
        let gap = distance(f_hat.f32().unwrap(), case.f.f32().unwrap());
        left.borrow_mut().push(gap);
    };
    let codes = case.codes(false);
    residual_quantize(&case.f, &codes, &case.scales, 0, Some(&see)).unwrap();
    let left = left.into_inner();
    assert_eq!(left.len(), 6);
    assert!(left[5] < left[0], "{left:?}");
}

#[test]
fn shapes_are_checked() {
    let case = Case::new(1, (9, 4), 1, &SCALES[..3]);
    let codes = case.codes(false);
    assert!(residual_quantize(&case.f, &codes, &SCALES[..4], 0, None).is_err());
    assert!(residual_quantize(&case.codebook, &codes, &SCALES[..3], 0, None).is_err());
    let wrong = [Tensor::from_i32([1, 2], vec![0; 2])];
    assert!(var_input_from_tokens(&wrong, &codes, &SCALES[..3], 3).is_err());
}

/// Compares a GPU's tokens, f̂ and input with the CPU's. All sums run in one order on both, so tokens have to be
/// equal; how many differ is printed by scale.
fn compare(case: &Case, there: &Case, by_angle: bool) {
    let active = case.scales.len();
    let (want, got) = (case.run(by_angle, active), there.run(by_angle, active));
    let again = there.run(by_angle, active);
    assert_eq!(tokens(&got), tokens(&again), "two runs differ");
    let name = format!("{} among {}", case.f.shape(), case.codebook.shape());
    let (mut other, mut total) = (0, 0);
    for (k, (got, want)) in tokens(&got).iter().zip(tokens(&want)).enumerate() {
        let differ = got.iter().zip(&want).filter(|(g, w)| g != w).count();
        println!(
            "{name}, scale {k}: {differ} of {} tokens differ",
            want.len()
        );
        other += differ;
        total += want.len();
    }
    assert_eq!(other, 0, "{other} of {total} tokens differ");
    let (f_hat, input) = (here(&got.f_hat), here(got.input.as_ref().unwrap()));
    let off = [
        distance(&f_hat, &here(&want.f_hat)),
        distance(&input, &here(want.input.as_ref().unwrap())),
    ];
    println!("{name}: f_hat off by {:e}, input by {:e}", off[0], off[1]);
    assert!(off.iter().all(|d| *d <= 1e-6), "{off:?}");
    // From the tokens as they came, and from tokens that lie apart.
    let codes = there.codes(by_angle);
    let apart: Vec<Tensor> = got.indices.iter().map(|t| t.copied().unwrap()).collect();
    for indices in [&got.indices, &apart] {
        let again = var_input_from_tokens(indices, &codes, &there.scales, active)
            .unwrap()
            .unwrap();
        assert!(here(&again) == input, "tokens make another input");
    }
    let short = var_input_from_tokens(&apart[..2], &codes, &there.scales, 3)
        .unwrap()
        .unwrap();
    let (b, l) = (short.dims()[0], short.dims()[1]);
    let (short, row) = (here(&short), input.len() / b);
    for i in 0..b {
        let width = l * CHANNELS;
        assert!(short[i * width..(i + 1) * width] == input[i * row..][..width]);
    }
}

const CHANNELS: usize = 32;

#[test]
fn cuda_matches() {
    let Some(device) = gpu() else { return };
    let odd = [(1, 2), (3, 2), (5, 4), (5, 7)];
    let repeated = [(2, 2), (4, 4), (4, 4)];
    for (batch, v, phis, scales) in [
        (5, 4096, 4, &SCALES[..]),
        (150, 300, 1, &SCALES[..4]),
        (3, 1500, 4, &odd[..]),
        (2, 77, 0, &repeated[..]),
    ] {
        let case = Case::new(batch, (v, CHANNELS), phis, scales);
        let there = case.to(device);
        for by_angle in [false, true] {
            assert!(cuda::fits(&there.f, &there.codes(by_angle), scales).unwrap());
            compare(&case, &there, by_angle);
        }
    }
}

#[test]
fn cuda_takes_parameters_where_they_lie() {
    let Some(device) = gpu() else { return };
    let case = Case::new(2, (100, CHANNELS), 1, &SCALES[..4]);
    let want = case.run(false, 4);
    // Weight and bias in one buffer, as a model's parameters are.
    let (w, b) = &case.phis[0];
    let all = [w.f32().unwrap(), b.f32().unwrap()].concat();
    let flat = Tensor::from_vec([all.len()], all).to(device).unwrap();
    let mut there = case.to(device);
    let weight = flat
        .narrow(0, w.numel())
        .unwrap()
        .reshape(w.shape())
        .unwrap();
    let bias = flat.narrow(w.numel(), CHANNELS).unwrap();
    there.phis = vec![(weight, bias); 4];
    let got = there.run(false, 4);
    assert_eq!(tokens(&got), tokens(&want));
    assert!(distance(&here(&got.f_hat), &here(&want.f_hat)) <= 1e-6);
}

/// Features that are no numbers have no tokens and no f̂, on either device; other images are coded as ever.
#[test]
fn what_is_no_number_has_no_tokens() {
    let devices = [Some(Device::Cpu), gpu()];
    for device in devices.into_iter().flatten() {
        for (value, by_angle) in [
            (f32::NAN, false),
            (f32::NEG_INFINITY, true),
            (1e30, false),
            (1e30, true),
        ] {
            let case = Case::new(3, (90, CHANNELS), 2, &SCALES[..5]);
            let good = case.to(device).run(by_angle, 5);
            let mut f = case.f.f32().unwrap().to_vec();
            let each = f.len() / 3;
            f[each + 7] = value;
            let bad = Case {
                f: Tensor::from_vec(case.f.shape(), f),
                ..case
            };
            let got = bad.to(device).run(by_angle, 5);
            // The one token of the first scale sees every feature.
            assert_eq!(
                tokens(&got)[0][1],
                crate::ops::NO_CODE,
                "{value} {by_angle}"
            );
            let (want, have) = (here(&good.f_hat), here(&got.f_hat));
            assert!(have[each..2 * each].iter().all(|x| x.is_nan()));
            for part in [0..each, 2 * each..3 * each] {
                assert_eq!(have[part.clone()], want[part]);
            }
            for (got, want) in tokens(&got).iter().zip(tokens(&good)) {
                let l = want.len() / 3;
                assert_eq!((&got[..l], &got[2 * l..]), (&want[..l], &want[2 * l..]));
            }
        }
    }
}
