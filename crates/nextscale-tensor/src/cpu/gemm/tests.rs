use super::pack::{Rows, Transposed};
use super::*;
use crate::rng::{Purpose, Stream};

fn random(n: usize, lane: u64) -> Vec<f32> {
    let mut s = Stream::new(1, Purpose::Test, 0, lane);
    (0..n).map(|_| s.normal()).collect()
}

/// A·B in float64 from element functions.
fn naive(
    (m, n, k): (usize, usize, usize),
    a: impl Fn(usize, usize) -> f32,
    b: impl Fn(usize, usize) -> f32,
) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for i in 0..m {
        for j in 0..n {
            c[i * n + j] = (0..k)
                .map(|x| f64::from(a(i, x)) * f64::from(b(x, j)))
                .sum();
        }
    }
    c
}

fn close(got: &[f32], want: &[f64], k: usize) {
    let tolerance = 2e-6 * (k as f64).sqrt().max(1.0);
    for (g, w) in got.iter().zip(want) {
        assert!(
            (f64::from(*g) - w).abs() <= tolerance * (1.0 + w.abs()),
            "{g} {w}"
        );
    }
}

#[test]
fn all_layouts_and_odd_sizes() {
    for (m, n, k) in [
        (1, 1, 1),
        (3, 5, 7),
        (12, 32, 288),
        (13, 33, 289),
        (50, 70, 600),
        (200, 37, 64),
        (7, 1100, 20),
        (97, 31, 0),
        (400, 130, 90),
    ] {
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let want = naive((m, n, k), |i, x| a[i * k + x], |x, j| b[x * n + j]);
        let mut c = vec![7.0; m * n];
        gemm(
            (m, n, k),
            &Rows::new(&a, k),
            &Rows::new(&b, n),
            &mut c,
            false,
            &Plain,
        );
        close(&c, &want, k);
        // The same operands seen as transposes.
        let want = naive((m, n, k), |i, x| a[x * m + i], |x, j| b[j * k + x]);
        gemm(
            (m, n, k),
            &Transposed::new(&a, m),
            &Transposed::new(&b, k),
            &mut c,
            false,
            &Plain,
        );
        close(&c, &want, k);
        let before = c.clone();
        gemm(
            (m, n, k),
            &Transposed::new(&a, m),
            &Transposed::new(&b, k),
            &mut c,
            true,
            &|row: usize, c: &mut [f32]| c.iter_mut().for_each(|x| *x += row as f32),
        );
        for (i, (after, b)) in c.iter().zip(&before).enumerate() {
            let want = f64::from(*b) * 2.0 + (i / n) as f64;
            assert!((f64::from(*after) - want).abs() < 1e-3 * (1.0 + want.abs()));
        }
    }
}

#[test]
fn long_inner_dimension() {
    for (m, n, k) in [(5, 7, 1), (33, 40, 5000), (130, 70, 289)] {
        let (a, b) = (random(m * k, 1), random(k * n, 2));
        let want = naive((m, n, k), |i, x| a[x * m + i], |x, j| b[x * n + j]);
        let mut c = vec![1.0; m * n];
        gemm_long(
            (m, n, k),
            &Transposed::new(&a, m),
            &Rows::new(&b, n),
            &mut c,
        );
        c.iter_mut().for_each(|x| *x -= 1.0);
        close(&c, &want, k);
    }
}

#[test]
fn dots_match() {
    for (m, n, k) in [
        (1, 1, 1),
        (1, 9, 33),
        (4, 8, 64),
        (5, 7, 100),
        (16, 130, 1030),
        (2, 3, 0),
    ] {
        let (x, w) = (random(m * k, 3), random(n * k, 4));
        let want = naive((m, n, k), |i, t| x[i * k + t], |t, j| w[j * k + t]);
        let mut c = vec![1.0; m * n];
        dot_rows((m, n, k), &x, &w, &mut c);
        close(&c, &want, k);
    }
}

#[test]
fn same_bits_for_any_number_of_threads() {
    let (m, n, k) = (301, 97, 700);
    let (a, b) = (random(m * k, 5), random(k * n, 6));
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let mut c = vec![0.0; m * n];
        pool.install(|| {
            gemm(
                (m, n, k),
                &Rows::new(&a, k),
                &Rows::new(&b, n),
                &mut c,
                false,
                &Plain,
            );
        });
        c
    };
    let one = run(1);
    assert!(one == run(2) && one == run(5));
}
