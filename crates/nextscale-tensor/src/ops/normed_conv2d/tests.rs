use super::*;
use crate::ops::testing::{check_gradients, distance, gpu, random, rounded, same_bits};
use crate::{DType, Device, Math};

/// Batch, height, width, inputs, outputs, groups.
const CASES: [[usize; 6]; 7] = [
    [1, 16, 16, 32, 160, 32],
    [2, 16, 16, 160, 160, 32],
    [3, 33, 17, 64, 160, 8],
    [2, 5, 7, 96, 320, 32],
    [1, 1, 1, 32, 160, 4],
    // Not for the kernel: outputs, channels.
    [2, 8, 8, 32, 96, 32],
    [2, 8, 8, 40, 160, 8],
];

/// x, γ, β, weight, bias, residual.
fn inputs([b, h, w, i, o, _]: [usize; 6]) -> [Tensor; 6] {
    [
        random([b, h, w, i], 1),
        random([i], 2),
        random([i], 3),
        random([o, 3, 3, i], 4),
        random([o], 5),
        random([b, h, w, o], 6),
    ]
}

fn norm(t: &[Tensor], groups: usize, silu: bool) -> InputNorm<'_> {
    InputNorm {
        gamma: &t[1],
        beta: &t[2],
        groups,
        eps: 1e-6,
        silu,
    }
}

fn run(cx: &Cx<'_>, t: &[Tensor], groups: usize, silu: bool, added: bool) -> Result<Tensor> {
    let norm = norm(t, groups, silu);
    let residual = added.then_some(&t[5]);
    normed_conv2d(cx, &t[0], norm, (&t[3], &t[4]), Conv::same(3), residual)
}

#[test]
fn it_is_norm_and_convolution() {
    let t = inputs([2, 4, 3, 6, 5, 3]);
    let cx = Cx::off();
    let normed = group_norm(&cx, &t[0], &t[1], &t[2], 3, 1e-6, true).unwrap();
    let want = conv2d(&cx, &normed, &t[3], &t[4], Conv::same(3), Some(&t[5])).unwrap();
    let y = run(&cx, &t, 3, true, true).unwrap();
    assert_eq!(y.f32().unwrap(), want.f32().unwrap());
}

#[test]
fn gradients_match_differences() {
    let t = inputs([1, 3, 4, 4, 3, 2]);
    check_gradients(&t, 1e-2, 1e-2, |cx, t| run(cx, t, 2, true, true));
}

#[test]
fn shapes_are_checked() {
    let t = inputs([1, 4, 4, 32, 160, 32]);
    assert!(run(&Cx::off(), &t, 5, true, false).is_err());
    let mut wrong = t.clone();
    wrong[1] = random([31], 1);
    assert!(run(&Cx::off(), &wrong, 32, true, false).is_err());
}

/// The way that is taken, and the kernel whether it is taken or not. Gradients are those of the parts, tested there.
#[test]
fn a_gpu_agrees() {
    let Some(device) = gpu() else { return };
    let mut taken = 0;
    for (dtype, limit) in [(DType::F32, 3e-6), (DType::Bf16, 6e-3), (DType::F16, 8e-4)] {
        let math = Math {
            operands: dtype,
            tf32: false,
        };
        for case in CASES {
            for (silu, added) in [(true, false), (true, true), (false, true)] {
                let t = inputs(case).map(|x| rounded(&x, dtype));
                let want = run(&Cx::off(), &t, case[5], silu, added).unwrap();
                let mut there = t.map(|x| x.to(device).unwrap());
                for activation in [0, 5] {
                    there[activation] = there[activation].cast(dtype).unwrap();
                }
                let here = |y: Tensor| y.to(Device::Cpu).unwrap().f32().unwrap().to_vec();
                let near = |y: &[f32], how: &str| {
                    let d = distance(y, want.f32().unwrap());
                    assert!(d <= limit, "{case:?} {} {how}: off by {d:e}", dtype.name());
                };
                let cx = Cx::off().with(math);
                near(
                    &here(run(&cx, &there, case[5], silu, added).unwrap()),
                    "as chosen",
                );
                let residual = added.then_some(&there[5]);
                let (norm, layer) = (norm(&there, case[5], silu), (&there[3], &there[4]));
                let call =
                    cuda::Call::new(math, &there[0], norm, layer, Conv::same(3), residual).unwrap();
                let Some(call) = call else { continue };
                taken += 1;
                let [first, again] = [0, 1].map(|_| here(call.together().unwrap()));
                assert!(same_bits(&first, &again), "{case:?}: two runs differ");
                near(&first, "together");
            }
        }
    }
    if taken == 0 {
        println!("skipped: no GPU that has the kernel");
    }
}
