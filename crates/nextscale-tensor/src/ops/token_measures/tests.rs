use super::*;

#[test]
fn sums_by_range() {
    let costs = Tensor::from_vec([2, 3], vec![1.0, 2.0, 4.0, 8.0, 16.0, 32.0]);
    let predicted = Tensor::from_i32([2, 3], vec![1, 2, 3, 4, 5, 6]);
    let targets = Tensor::from_i32([2, 3], vec![1, 0, 3, 4, 0, 0]);
    let of = |ranges: &[Range<usize>]| token_measures(&costs, &predicted, &targets, ranges);
    let y = of(&[0..1, 1..3, 2..2]).unwrap();
    assert_eq!(y.dims(), [3, 2]);
    assert_eq!(y.f32().unwrap(), [9.0, 2.0, 54.0, 1.0, 0.0, 0.0]);
    assert!(of(&[1..4]).is_err());
    assert!(token_measures(&costs, &predicted, &targets.narrow(0, 1).unwrap(), &[]).is_err());
}
