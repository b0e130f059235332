use super::*;
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
            step,
            grad_scale: 0.5,
        };
        let flat = params.flat_mut().unwrap();
        adamw_step(flat, &g, &mut m, &mut v, &hyper, &ranges).unwrap();
        for (i, w) in want.iter_mut().enumerate() {
            let Some(r) = inside(i) else { continue };
            let g = f64::from(g.cpu().unwrap()[i]) * 0.5;
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
        step: 1,
        grad_scale: 1.0,
    };
    let (g, mut m, mut v) = (
        b.buffer().unwrap(),
        a.buffer().unwrap(),
        a.buffer().unwrap(),
    );
    assert!(adamw_step(a.flat_mut().unwrap(), &g, &mut m, &mut v, &hyper, &[]).is_err());
    let g = a.buffer().unwrap();
    let wide = [(0..5, 0.0)];
    assert!(adamw_step(a.flat_mut().unwrap(), &g, &mut m, &mut v, &hyper, &wide).is_err());
}
