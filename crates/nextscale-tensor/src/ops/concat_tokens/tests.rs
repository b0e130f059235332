use super::*;

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
