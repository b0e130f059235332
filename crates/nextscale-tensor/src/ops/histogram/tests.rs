use super::*;
use crate::ops::testing::gpu;
use crate::rng::{Purpose, Stream};

fn indices(n: usize, bins: u32) -> Vec<i32> {
    let mut s = Stream::new(3, Purpose::Test, 0, 0);
    (0..n).map(|_| s.below(bins) as i32).collect()
}

#[test]
fn counts_every_index() {
    let x = Tensor::from_i32([2, 3], vec![0, 4, 4, 1, 4, 0]);
    assert_eq!(histogram(&x, 6).unwrap().i32().unwrap(), [2, 1, 0, 0, 3, 0]);
    assert!(histogram(&x, 4).is_err());
    assert!(histogram(&Tensor::from_i32([1], vec![-2]), 4).is_err());
    let none = Tensor::from_i32([3], vec![NO_CODE, 2, NO_CODE]);
    assert_eq!(histogram(&none, 3).unwrap().i32().unwrap(), [0, 0, 1]);
    assert!(histogram(&Tensor::zeros([1]), 4).is_err());
}

#[test]
fn cuda_counts_the_same() {
    let Some(device) = gpu() else { return };
    // In shared memory, in global memory for few indices and for many bins.
    for (n, bins) in [(100_003, 4096), (77, 4096), (30_001, 9000)] {
        let x = Tensor::from_i32([n], indices(n, bins as u32));
        let want = histogram(&x, bins).unwrap();
        let got = histogram(&x.to(device).unwrap(), bins).unwrap();
        assert_eq!(got.device(), device);
        let got = got.to(Device::Cpu).unwrap();
        assert_eq!(got.i32().unwrap(), want.i32().unwrap(), "{n} in {bins}");
    }
}
