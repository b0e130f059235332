use super::*;
use crate::ops::testing::{check_gradients, random};

#[test]
fn gathers_and_scatters() {
    let table = random([5, 3], 1);
    let idx = Tensor::from_i32([2, 3], vec![4, 0, 4, 4, 1, 2]);
    let y = gather_rows(&Cx::off(), &table, &idx).unwrap();
    assert_eq!(y.dims(), [2, 3, 3]);
    assert_eq!(y.f32().unwrap()[..3], table.f32().unwrap()[12..15]);
    check_gradients(std::slice::from_ref(&table), 1e-2, 1e-3, |cx, t| {
        gather_rows(cx, &t[0], &idx)
    });
    let bad = Tensor::from_i32([1], vec![5]);
    assert!(gather_rows(&Cx::off(), &table, &bad).is_err());
    let bad = Tensor::from_i32([1], vec![-1]);
    assert!(gather_rows(&Cx::off(), &table, &bad).is_err());
    assert!(gather_rows(&Cx::off(), &table, &table).is_err());
}
