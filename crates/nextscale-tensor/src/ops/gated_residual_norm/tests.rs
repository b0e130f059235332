use super::*;
use crate::ops::adaptive_norm::tests_naive;
use crate::ops::testing::{Role, check_cuda, check_gradients, dry_gpu, gpu, random, worst};
use crate::{DType, Math, Tape};
use std::sync::Arc;

fn run(cx: &Cx<'_>, t: &[Tensor], keep: Option<&[f32]>) -> Result<(Tensor, Tensor)> {
    let gate = Gate {
        table: &t[2],
        slot: 1,
    };
    let next = Modulation {
        table: &t[3],
        scale: 0,
        shift: 2,
    };
    let keep = keep
        .map(|k| Tensor::from_slice([k.len()], k).to(t[0].device()))
        .transpose()?;
    gated_residual_norm(cx, &t[0], &t[1], &gate, keep.as_ref(), &next, 1e-6)
}

fn inputs(b: usize, l: usize, c: usize) -> Vec<Tensor> {
    vec![
        random([b, l, c], 1),
        random([b, l, c], 2),
        random([b, 2, c], 3),
        random([b, 3, c], 4),
    ]
}

#[test]
fn matches_f64() {
    for (b, l, c) in [(2, 3, 9), (3, 40, 17)] {
        let t = inputs(b, l, c);
        let keep: Vec<f32> = (0..b).map(|b| if b == 1 { 0.0 } else { 1.25 }).collect();
        for keep in [None, Some(&keep[..])] {
            let (sum, y) = run(&Cx::off(), &t, keep).unwrap();
            let f: Vec<&[f32]> = t.iter().map(|t| t.f32().unwrap()).collect();
            let want: Vec<f64> = (0..b * l * c)
                .map(|i| {
                    let b = i / (l * c);
                    let k = keep.map_or(1.0, |k| f64::from(k[b]));
                    let gamma = f64::from(f[2][(b * 2 + 1) * c + i % c]);
                    f64::from(f[0][i]) + k * gamma * f64::from(f[1][i])
                })
                .collect();
            assert!(worst(sum.f32().unwrap(), &want) < 1e-6);
            let want = tests_naive(&want, &t[3], (b, l, c), (0, 2));
            assert!(worst(y.f32().unwrap(), &want) < 5e-6);
        }
    }
}

#[test]
fn gradients_match_differences() {
    let t = inputs(2, 37, 11);
    let keep = [0.5, 2.0];
    for keep in [None, Some(&keep[..])] {
        check_gradients(&t, 1e-2, 1e-2, |cx, t| Ok(run(cx, t, keep)?.1));
    }
    // Through the stream alone the norm's table has no influence.
    check_gradients(&t[..3], 1e-2, 1e-2, |cx, x| {
        let all = [x[0].clone(), x[1].clone(), x[2].clone(), t[3].clone()];
        Ok(run(cx, &all, Some(&keep))?.0)
    });
    // Both outputs, one table for gate and norm.
    let t = [t[0].clone(), t[1].clone(), random([2, 3, 11], 5)];
    check_gradients(&t, 1e-2, 1e-2, |cx, x| {
        let all = [x[0].clone(), x[1].clone(), x[2].clone(), x[2].clone()];
        let (sum, y) = run(cx, &all, None)?;
        let all = [sum, y, x[2].clone(), x[2].clone()];
        Ok(run(cx, &all, None)?.1)
    });
}

#[test]
fn shapes_are_checked() {
    let t = inputs(2, 3, 4);
    assert!(run(&Cx::off(), &t, Some(&[1.0])).is_err());
    let mut bad = t.clone();
    bad[1] = random([2, 2, 4], 2);
    assert!(run(&Cx::off(), &bad, None).is_err());
    bad = t;
    bad[2] = random([2, 1, 4], 2);
    assert!(run(&Cx::off(), &bad, None).is_err());
}

/// Three in a row, as blocks use them: the stream goes through all, each norm's output feeds the next branch.
fn chain(cx: &Cx<'_>, t: &[Tensor], keep: Option<&[f32]>) -> Result<Vec<Tensor>> {
    let (mut x, mut h) = (t[0].clone(), t[1].clone());
    for _ in 0..3 {
        (x, h) = run(cx, &[x, h, t[2].clone(), t[3].clone()], keep)?;
    }
    Ok(vec![x, h])
}

#[test]
fn a_gpu_agrees() {
    for (b, l, c) in [(2, 37, 64), (3, 5, 9), (2, 19, 1024)] {
        let roles = [
            Role::Float32,
            Role::Activation,
            Role::Float32,
            Role::Float32,
        ];
        let inputs: Vec<_> = inputs(b, l, c).into_iter().zip(roles).collect();
        let keep: Vec<f32> = (0..b).map(|b| if b == 1 { 0.0 } else { 1.25 }).collect();
        let limits = [5e-6, 8e-3, 1e-3];
        for keep in [None, Some(&keep[..])] {
            check_cuda(&inputs, limits, |cx, t| {
                let (sum, y) = run(cx, t, keep)?;
                Ok(vec![sum, y])
            });
            check_cuda(&inputs, limits, |cx, t| Ok(vec![run(cx, t, keep)?.1]));
            check_cuda(&inputs, limits, |cx, t| Ok(vec![run(cx, t, keep)?.0]));
            check_cuda(&inputs, [1e-5, 1.5e-2, 2e-3], |cx, t| chain(cx, t, keep));
            // One table for gate and norm, and a float32 norm behind a branch in half precision.
            check_cuda(&inputs, limits, |cx, t| {
                let t = [&t[0], &t[1], &t[3], &t[3]].map(Tensor::clone);
                let (sum, y) = run(&cx.full(), &t, keep)?;
                Ok(vec![sum, y])
            });
        }
    }
}

#[test]
fn the_stream_is_kept_once() {
    let Some(device) = gpu() else { return };
    let there = |t: &Tensor| t.to(device).unwrap();
    let t: Vec<Tensor> = inputs(2, 5, 24).iter().map(there).collect();
    let tape = Tape::new();
    let cx = Cx::on(&tape).with(Math {
        operands: DType::Bf16,
        tf32: false,
    });
    let (mut x, key) = cx.leaf(&t[0].copied().unwrap());
    let mut h = t[1].cast(DType::Bf16).unwrap();
    let mut streams = vec![];
    for _ in 0..4 {
        (x, h) = run(&cx, &[x, h, t[2].clone(), t[3].clone()], None).unwrap();
        streams.push(Arc::downgrade(&x.on_gpu().unwrap().buffer));
    }
    let loss = x.without_data();
    drop((x, h));
    let kept: Vec<bool> = streams.iter().map(|s| s.upgrade().is_some()).collect();
    assert_eq!(kept, [false, false, false, true]);
    let up = Tensor::zeros_on(device, loss.shape(), DType::F32).unwrap();
    let grads = tape.backward_from(&loss, up, None, &[key]).unwrap();
    assert!(grads[0].is_some());
}

/// Gradients are written where those behind them lie: no rule finds somebody else holding what it overwrites.
#[test]
fn gradients_are_not_copied_on_the_way() {
    let (device, gpu) = dry_gpu();
    for operands in [DType::F32, DType::Bf16] {
        let tape = Tape::new();
        let cx = Cx::on(&tape).with(Math {
            operands,
            tf32: false,
        });
        let zeros = |dims: &[usize]| Tensor::zeros_on(device, dims, DType::F32).unwrap();
        let (leaves, keys): (Vec<_>, Vec<_>) = [&[2, 40, 64][..], &[2, 2, 64], &[2, 3, 64]]
            .map(|dims| cx.leaf(&zeros(dims)))
            .into_iter()
            .unzip();
        let mut stream = leaves[0].clone();
        let mut y = leaves[0].clone();
        for _ in 0..3 {
            let h = y.cast(operands).unwrap();
            let h = cx.leaf(&h).0;
            let t = [stream, h, leaves[1].clone(), leaves[2].clone()];
            (stream, y) = run(&cx, &t, None).unwrap();
        }
        // A model lets go of the stream as well.
        drop(stream);
        let seed = zeros(&[2, 40, 64]).cast(y.dtype()).unwrap();
        let before = gpu.dry_copied();
        let grads = tape.backward_from(&y, seed, None, &keys).unwrap();
        assert!(grads.iter().all(Option::is_some));
        assert_eq!(gpu.dry_copied(), before, "{}", operands.name());
    }
}
