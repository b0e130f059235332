use super::*;

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
