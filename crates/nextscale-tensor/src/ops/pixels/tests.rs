use super::*;
use crate::ops::testing::{gpu, random};

#[test]
fn every_level_survives_the_round_trip() {
    let levels: Vec<u8> = (0..=255).collect();
    let x = from_pixels([1, 16, 16, 1], &levels).unwrap();
    assert_eq!(x.f32().unwrap()[0], -1.0);
    assert_eq!(x.f32().unwrap()[255], 1.0);
    assert_eq!(to_pixels(&to_unit_range(&x).unwrap()).unwrap(), levels);
    assert!(from_pixels([3], &levels).is_err());
}

#[test]
fn limits() {
    let x = Tensor::from_vec([3], vec![-2.0, 0.25, 7.0]);
    assert_eq!(
        clamp(&x, -1.0, 1.0).unwrap().f32().unwrap(),
        [-1.0, 0.25, 1.0]
    );
    assert_eq!(to_pixels(&x).unwrap(), [0, 64, 255]);
}

#[test]
fn cuda_matches() {
    let Some(device) = gpu() else { return };
    let levels: Vec<u8> = (0..259).map(|i| i as u8).collect();
    let want = from_pixels([1, 7, 37, 1], &levels).unwrap();
    let here = |x: &Tensor| x.to(Device::Cpu).unwrap().f32().unwrap().to_vec();
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        let got = from_pixels_on(device, dtype, want.shape(), &levels).unwrap();
        assert_eq!(got.dtype(), dtype);
        let cast = want.to(device).unwrap().cast(dtype).unwrap();
        assert_eq!(here(&got), here(&cast));
    }
    assert!(from_pixels_on(device, DType::F32, [3], &levels).is_err());
    let x = random([5, 801], 1);
    let there = x.to(device).unwrap();
    assert_eq!(to_pixels(&there).unwrap(), to_pixels(&x).unwrap());
    let x = random([3, 411], 2);
    let there = x.to(device).unwrap();
    assert_eq!(
        here(&to_unit_range(&there).unwrap()),
        here(&to_unit_range(&x).unwrap())
    );
    assert_eq!(
        here(&clamp(&there, -0.5, 1.0).unwrap()),
        here(&clamp(&x, -0.5, 1.0).unwrap())
    );
    // Rows of a view do not begin at a vector.
    let (rows, view) = (x.narrow(1, 2).unwrap(), there.narrow(1, 2).unwrap());
    assert_eq!(to_pixels(&view).unwrap(), to_pixels(&rows).unwrap());
}

/// Values that are no numbers go through limits as such, and are counted before they would become pixels.
#[test]
fn what_is_no_number_is_counted() {
    let n = 5 * 801;
    let mut values = random([5, 801], 1).f32().unwrap().to_vec();
    let bad = [
        (3, f32::NAN),
        (17, -f32::NAN),
        (1000, f32::INFINITY),
        (n - 1, f32::NEG_INFINITY),
    ];
    for (at, v) in bad {
        values[at] = v;
    }
    let x = Tensor::from_vec([5, 801], values);
    let devices = [Some(Device::Cpu), gpu()];
    for device in devices.into_iter().flatten() {
        let x = x.to(device).unwrap();
        let limited = clamp(&x, -1.0, 1.0).unwrap();
        let here = limited.to(Device::Cpu).unwrap();
        for (i, v) in here.f32().unwrap().iter().enumerate() {
            assert_eq!(v.is_nan(), bad.iter().any(|(at, _)| *at == i), "{i}");
        }
        for y in [&x, &to_unit_range(&limited).unwrap()] {
            match to_pixels(y) {
                Err(Error::NotNumbers { bad: 4, of, .. }) => assert_eq!(of, n),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(to_pixels(&x.narrow(2, 1).unwrap()).unwrap().len(), 801);
    }
}
