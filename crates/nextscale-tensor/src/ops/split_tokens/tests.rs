use super::*;
use crate::ops::concat_tokens;
use crate::ops::testing::gpu;

fn rows(batch: usize, row: usize) -> Tensor {
    Tensor::from_i32([batch, row], (0..(batch * row) as i32).collect())
}

#[test]
fn parts_of_rows() {
    let parts = split_tokens(&rows(2, 5), &[1, 4]).unwrap();
    assert_eq!(parts[0].dims(), [2, 1]);
    assert_eq!(parts[0].i32().unwrap(), [0, 5]);
    assert_eq!(parts[1].i32().unwrap(), [1, 2, 3, 4, 6, 7, 8, 9]);
    let joined = concat_tokens(&parts.iter().collect::<Vec<_>>()).unwrap();
    assert_eq!(joined.i32().unwrap(), rows(2, 5).i32().unwrap());
    assert!(split_tokens(&rows(2, 5), &[1, 3]).is_err());
    assert!(split_tokens(&Tensor::zeros([2, 5]), &[1, 4]).is_err());
    assert_eq!(
        split_tokens(&rows(0, 5), &[1, 4]).unwrap()[1].dims(),
        [0, 4]
    );
}

#[test]
fn cuda_takes_apart_the_same() {
    let Some(device) = gpu() else { return };
    let lengths: Vec<usize> = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16].map(|n| n * n).to_vec();
    let x = rows(7, 680);
    let want = split_tokens(&x, &lengths).unwrap();
    let got = split_tokens(&x.to(device).unwrap(), &lengths).unwrap();
    assert_eq!(got.len(), want.len());
    for (a, b) in got.iter().zip(&want) {
        assert_eq!(a.dims(), b.dims());
        assert_eq!(a.to(Device::Cpu).unwrap().i32().unwrap(), b.i32().unwrap());
    }
    assert!(split_tokens(&Tensor::zeros([2, 5]).to(device).unwrap(), &[1, 4]).is_err());
}
