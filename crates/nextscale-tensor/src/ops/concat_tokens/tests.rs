use super::*;
use crate::DType;
use crate::ops::testing::{gpu, random, rounded};

#[test]
fn joins_floats_and_indices() {
    let a = Tensor::from_vec([2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]);
    let b = Tensor::from_vec([2, 2, 2], (10..18).map(|x| x as f32).collect());
    let y = concat_tokens(&[&a, &b]).unwrap();
    assert_eq!(y.dims(), [2, 3, 2]);
    assert_eq!(
        y.f32().unwrap(),
        [
            1.0, 2.0, 10.0, 11.0, 12.0, 13.0, 3.0, 4.0, 14.0, 15.0, 16.0, 17.0
        ]
    );
    let i = Tensor::from_i32([2, 1], vec![1, 2]);
    let j = Tensor::from_i32([2, 2], vec![3, 4, 5, 6]);
    assert_eq!(
        concat_tokens(&[&i, &j]).unwrap().i32().unwrap(),
        [1, 3, 4, 2, 5, 6]
    );
    assert!(concat_tokens(&[]).is_err());
    assert!(concat_tokens(&[&a, &i]).is_err());
    assert!(concat_tokens(&[&a, &a.reshape([1, 2, 2]).unwrap()]).is_err());
}

#[test]
fn cuda_joins_the_same() {
    let Some(device) = gpu() else { return };
    // Widths for units of 16, 4 and 2 bytes; more parts than one launch takes.
    for (c, dtype) in [
        (32, DType::F32),
        (3, DType::F32),
        (8, DType::Bf16),
        (3, DType::F16),
    ] {
        let parts: Vec<Tensor> = (1..=10)
            .map(|i| rounded(&random([3, i * i, c], i as u64), dtype))
            .collect();
        let want = concat_tokens(&parts.iter().collect::<Vec<_>>()).unwrap();
        let there: Vec<Tensor> = parts
            .iter()
            .map(|p| p.to(device).unwrap().cast(dtype).unwrap())
            .collect();
        let got = concat_tokens(&there.iter().collect::<Vec<_>>()).unwrap();
        assert_eq!((got.dims(), got.dtype()), (want.dims(), dtype));
        assert_eq!(
            got.to(Device::Cpu).unwrap().f32().unwrap(),
            want.f32().unwrap()
        );
    }
    let tokens =
        |l: usize, from: i32| Tensor::from_i32([5, l], (from..from + 5 * l as i32).collect());
    let (a, b) = (tokens(1, 7), tokens(4, 100));
    let want = concat_tokens(&[&a, &b]).unwrap();
    let got = concat_tokens(&[&a.to(device).unwrap(), &b.to(device).unwrap()]).unwrap();
    assert_eq!(
        got.to(Device::Cpu).unwrap().i32().unwrap(),
        want.i32().unwrap()
    );
    let mixed = concat_tokens(&[
        &a.to(device).unwrap(),
        &random([5, 4], 1).to(device).unwrap(),
    ]);
    assert!(mixed.is_err());
}
