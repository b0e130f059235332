//! Products against float64.

use super::{DevicePtr, Epilogue, Operands, Product};
use crate::tests::{get, gpu, held, put, random};
use crate::*;

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
}

fn slope(x: f64) -> f64 {
    (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5
}

/// ‖got − want‖ / ‖want‖.
fn off(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let d: f64 = got
        .iter()
        .zip(want)
        .map(|(g, w)| (f64::from(*g) - w).powi(2))
        .sum();
    let n: f64 = want.iter().map(|w| w * w).sum();
    (d / n.max(1e-30)).sqrt()
}

/// One product against float64; NaN fails.
fn check(gpu: &'static Gpu, p: Product) {
    let (m, n, k) = (p.m, p.n, p.k);
    let random = |n: usize, element: DType, lane: u64| -> Vec<f32> {
        let all = random(n, lane).into_iter();
        all.map(|x| held(x, element)).collect()
    };
    let (a, b) = (random(m * k, p.operands, 1), random(k * n, p.operands, 2));
    let (c, v) = (random(m * n, p.result, 3), random(m.max(n), p.result, 4));
    let aux = random(m * n, p.result, 5);
    let at = |i: usize, j: usize| {
        f64::from(if p.a_transposed {
            a[j * m + i]
        } else {
            a[i * k + j]
        })
    };
    let bt = |i: usize, j: usize| {
        f64::from(if p.b_transposed {
            b[j * k + i]
        } else {
            b[i * n + j]
        })
    };
    let (mut want, mut sums) = (vec![0.0; m * n], vec![0.0; m.max(n)]);
    let mut want_aux: Vec<f64> = aux.iter().map(|x| f64::from(*x)).collect();
    for i in 0..m {
        for j in 0..n {
            let mut s = if p.accumulate {
                f64::from(c[i * n + j])
            } else {
                0.0
            };
            s += (0..k).map(|l| at(i, l) * bt(l, j)).sum::<f64>();
            match p.epilogue {
                Epilogue::Plain | Epilogue::RowSums => {}
                Epilogue::Bias => s += f64::from(v[j]),
                Epilogue::BiasGelu => {
                    s += f64::from(v[j]);
                    want_aux[i * n + j] = s;
                    s = gelu(s);
                }
                Epilogue::BiasGeluOnly => s = gelu(s + f64::from(v[j])),
                Epilogue::GeluSlope | Epilogue::GeluSlopeSums => s *= slope(want_aux[i * n + j]),
            }
            want[i * n + j] = s;
            if p.epilogue == Epilogue::GeluSlopeSums {
                sums[j] += s;
            }
        }
        if p.epilogue == Epilogue::RowSums {
            sums[i] = (0..k).map(|l| at(i, l)).sum();
        }
    }
    let (da, db) = (put(gpu, &a, p.operands), put(gpu, &b, p.operands));
    let (dc, dv) = (put(gpu, &c, p.result), put(gpu, &v, p.result));
    let daux = put(gpu, &aux, p.result);
    let vector = !matches!(p.epilogue, Epilogue::Plain | Epilogue::GeluSlope);
    let has_aux = matches!(
        p.epilogue,
        Epilogue::BiasGelu | Epilogue::GeluSlope | Epilogue::GeluSlopeSums
    );
    let operands = Operands {
        a: DevicePtr(&da, 0),
        b: DevicePtr(&db, 0),
        c: DevicePtr(&dc, 0),
        vector: vector.then_some(DevicePtr(&dv, 0)),
        aux: has_aux.then_some(DevicePtr(&daux, 0)),
    };
    gpu.matmul(&p, &operands)
        .unwrap_or_else(|e| panic!("{p:?}: {e}"));
    let most = match (p.operands, p.result) {
        (DType::F32, _) if p.tf32 => 1e-3,
        // The library's tanh is good to a few units in the last place.
        (_, DType::F32) if has_aux || p.epilogue == Epilogue::BiasGeluOnly => 1e-5,
        (_, DType::F32) => 2e-6,
        (_, DType::Bf16) => 5e-3,
        _ => 6e-4,
    };
    let d = off(&get(gpu, &dc, p.result), &want);
    assert!(d < most, "{p:?}: {d:e}");
    if p.epilogue == Epilogue::BiasGelu {
        let d = off(&get(gpu, &daux, p.result), &want_aux);
        assert!(d < most, "{p:?} aux: {d:e}");
    }
    if matches!(p.epilogue, Epilogue::GeluSlopeSums | Epilogue::RowSums) {
        let len = if p.epilogue == Epilogue::RowSums {
            m
        } else {
            n
        };
        let d = off(&get(gpu, &dv, p.result)[..len], &sums[..len]);
        assert!(d < 4.0 * most, "{p:?} sums: {d:e}");
    }
}

#[test]
fn products_match_f64_for_every_type_and_odd_sizes() {
    let Some(gpu) = gpu() else { return };
    for (operands, result) in [
        (DType::F32, DType::F32),
        (DType::Bf16, DType::Bf16),
        (DType::Bf16, DType::F32),
        (DType::F16, DType::F16),
        (DType::F16, DType::F32),
    ] {
        for (m, n, k) in [(64, 128, 96), (33, 7, 65), (1, 24, 40), (130, 72, 8)] {
            for (a_transposed, b_transposed, accumulate) in [
                (false, true, false),
                (false, false, false),
                (true, false, true),
            ] {
                for tf32 in [false, true] {
                    let p = Product {
                        m,
                        n,
                        k,
                        operands,
                        result,
                        a_transposed,
                        b_transposed,
                        accumulate,
                        tf32,
                        epilogue: Epilogue::Plain,
                    };
                    if !tf32 || operands == DType::F32 {
                        check(gpu, p);
                    }
                }
            }
        }
    }
}

#[test]
fn what_follows_a_product_matches_f64() {
    let Some(gpu) = gpu() else { return };
    for operands in [DType::F32, DType::Bf16, DType::F16] {
        for (m, n, k) in [(64, 128, 96), (40, 72, 24)] {
            for (epilogue, a_transposed, b_transposed) in [
                (Epilogue::Bias, false, true),
                (Epilogue::BiasGelu, false, true),
                (Epilogue::BiasGeluOnly, false, true),
                (Epilogue::GeluSlope, false, false),
                (Epilogue::GeluSlopeSums, false, false),
                (Epilogue::RowSums, true, false),
            ] {
                check(
                    gpu,
                    Product {
                        m,
                        n,
                        k,
                        operands,
                        result: operands,
                        a_transposed,
                        b_transposed,
                        accumulate: false,
                        tf32: false,
                        epilogue,
                    },
                );
            }
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let Some(gpu) = gpu() else { return };
    let b = DeviceBuffer::new(gpu, 64).unwrap();
    let p = Product {
        m: 4,
        n: 4,
        k: 5,
        operands: DType::F32,
        result: DType::F32,
        a_transposed: false,
        b_transposed: true,
        accumulate: false,
        tf32: false,
        epilogue: Epilogue::Plain,
    };
    let ptr = DevicePtr(&b, 0);
    let o = Operands {
        a: ptr,
        b: ptr,
        c: ptr,
        vector: None,
        aux: None,
    };
    assert!(
        gpu.matmul(&p, &o)
            .unwrap_err()
            .to_string()
            .contains("80 bytes")
    );
    let p = Product {
        k: 4,
        epilogue: Epilogue::Bias,
        ..p
    };
    assert!(gpu.matmul(&p, &o).is_err());
    let p = Product {
        m: 0,
        epilogue: Epilogue::Plain,
        ..p
    };
    assert!(gpu.matmul(&p, &o).is_err());
}
