use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

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
    let bad = Tensor::from_i32([1], vec![-2]);
    assert!(gather_rows(&Cx::off(), &table, &bad).is_err());
    let none = Tensor::from_i32([2], vec![NO_CODE, 4]);
    let y = gather_rows(&Cx::off(), &table, &none).unwrap();
    assert!(y.f32().unwrap()[..3].iter().all(|x| x.is_nan()));
    assert_eq!(y.f32().unwrap()[3..], table.f32().unwrap()[12..]);
    assert!(gather_rows(&Cx::off(), &table, &table).is_err());
}

#[test]
fn a_gpu_agrees() {
    for (n, c, count) in [(5, 3, 7), (40, 200, 1000), (3, 130, 300)] {
        let inputs = [(random([n, c], 1), Role::Float32)];
        let idx: Vec<i32> = (0..count).map(|i: i32| i * i % 7 % n as i32).collect();
        let idx = Tensor::from_i32([count as usize], idx);
        check_cuda(&inputs, [2e-6; 3], |cx, t| {
            let here = gather_rows(cx, &t[0], &idx)?;
            let there = gather_rows(cx, &t[0], &idx.to(t[0].device())?)?;
            Ok(vec![here, there])
        });
    }
    let Some(device) = crate::ops::testing::gpu() else {
        return;
    };
    let table = random([4, 3], 1).to(device).unwrap();
    let bad = Tensor::from_i32([2], vec![4, 0]);
    assert!(gather_rows(&Cx::off(), &table, &bad).is_err());
    let y = gather_rows(&Cx::off(), &table, &bad.to(device).unwrap()).unwrap();
    let y = y.to(Device::Cpu).unwrap();
    assert!(y.f32().unwrap()[..3].iter().all(|x| x.is_nan()));
    assert!(y.f32().unwrap()[3..].iter().all(|x| x.is_finite()));
}
