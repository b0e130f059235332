use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

const WIDTHS: [&[usize]; 4] = [
    &[3],
    &[1, 2, 5],
    &[64, 64, 96, 32],
    &[8, 7, 1, 1, 2, 3, 4, 5, 6, 9],
];

fn parts(widths: &[usize]) -> Vec<Tensor> {
    let part = |(i, &c): (usize, &usize)| random([2, 3, 5, c], i as u64);
    widths.iter().enumerate().map(part).collect()
}

#[test]
fn channels_lie_one_after_the_other() {
    for widths in WIDTHS {
        let parts = parts(widths);
        let y = concat_channels(&Cx::off(), &parts.iter().collect::<Vec<_>>()).unwrap();
        let all: usize = widths.iter().sum();
        assert_eq!(y.dims(), [2, 3, 5, all]);
        for (pixel, y) in y.f32().unwrap().chunks_exact(all).enumerate() {
            let want = parts.iter().flat_map(|p| {
                let c = p.dims()[3];
                &p.f32().unwrap()[pixel * c..][..c]
            });
            assert!(want.eq(y));
        }
        check_gradients(&parts, 1e-2, 1e-3, |cx, t| {
            concat_channels(cx, &t.iter().collect::<Vec<_>>())
        });
    }
}

#[test]
fn channels_are_taken_out() {
    let x = random([2, 3, 1, 7], 1);
    for which in [0..7, 0..3, 2..5, 6..7] {
        let y = channels(&Cx::off(), &x, which.clone()).unwrap();
        let want = x
            .f32()
            .unwrap()
            .chunks_exact(7)
            .flat_map(|p| &p[which.clone()]);
        assert!(want.eq(y.f32().unwrap()));
        let inputs = [x.clone()];
        check_gradients(&inputs, 1e-2, 1e-3, |cx, t| {
            channels(cx, &t[0], which.clone())
        });
        let inputs = [(x.clone(), Role::Activation)];
        check_cuda(&inputs, [0.0; 3], |cx, t| {
            Ok(vec![channels(cx, &t[0], which.clone())?])
        });
    }
    for wrong in [3..3, 5..8] {
        assert!(channels(&Cx::off(), &x, wrong).is_err());
    }
}

#[test]
fn shapes_are_checked() {
    let (cx, x) = (Cx::off(), random([1, 2, 2, 3], 1));
    assert!(concat_channels(&cx, &[]).is_err());
    assert!(concat_channels(&cx, &[&x, &random([1, 2, 1, 3], 1)]).is_err());
    assert!(concat_channels(&cx, &[&random([4, 3], 1)]).is_err());
    assert!(concat_channels(&cx, &[&x, &random([4, 3], 1)]).is_err());
}

#[test]
fn a_gpu_agrees() {
    for widths in WIDTHS {
        let inputs: Vec<_> = parts(widths)
            .into_iter()
            .map(|p| (p, Role::Activation))
            .collect();
        check_cuda(&inputs, [0.0; 3], |cx, t| {
            Ok(vec![concat_channels(cx, &t.iter().collect::<Vec<_>>())?])
        });
    }
}
