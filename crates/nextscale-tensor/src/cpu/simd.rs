//! Vector arithmetic without `unsafe`: loops compiled for the widest instruction set of the machine at hand.

use pulp::Arch;
use std::sync::LazyLock;

static ARCH: LazyLock<Arch> = LazyLock::new(Arch::new);

/// The instruction set that was found.
pub fn arch() -> Arch {
    *ARCH
}

/// How many float32 numbers one instruction works on.
pub fn lanes() -> usize {
    struct Lanes;
    impl pulp::WithSimd for Lanes {
        type Output = usize;
        #[inline(always)]
        fn with_simd<S: pulp::Simd>(self, _simd: S) -> usize {
            S::F32_LANES
        }
    }
    ARCH.dispatch(Lanes)
}

/// The name of the instruction set that was found.
pub fn arch_name() -> &'static str {
    match lanes() {
        16 => "AVX-512",
        8 => "AVX2 with FMA",
        4 => "128-bit vectors",
        _ => "no vector instructions",
    }
}

/// Runs `f` compiled for the machine's widest vectors (AVX-512, AVX2 with FMA, NEON, …). `f` has to be a
/// closure whose loops can be inlined into it; helpers it calls need `#[inline(always)]`.
#[inline(always)]
pub fn run<R>(f: impl FnOnce() -> R) -> R {
    ARCH.dispatch(f)
}

/// eˣ to within about 1 unit in the last place, branch-free so that loops over it vectorise. Overflows to
/// infinity above 88.7 and flushes to zero below −87.3.
#[inline(always)]
pub fn exp(x: f32) -> f32 {
    const LOG2_E: f32 = std::f32::consts::LOG2_E;
    // ln 2 in two parts: the product with the (integer) exponent is exact for the first.
    const LN2_HI: f32 = 0.693_359_4;
    const LN2_LO: f32 = -2.121_944_4e-4;
    let clamped = x.clamp(-87.336_54, 88.722_84);
    // Adding 1.5·2²³ leaves the nearest integer in the low bits: unlike a conversion that saturates, it vectorises.
    const ROUND: f32 = 12_582_912.0;
    let shifted = clamped.mul_add(LOG2_E, ROUND);
    let n = shifted - ROUND;
    let k = shifted.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let r = n.mul_add(-LN2_LO, n.mul_add(-LN2_HI, clamped));
    // 1 + r + r²·q(r) on |r| ≤ ln2/2, q fitted at Chebyshev points.
    let q = 1.990_044_4e-4f32;
    let q = q.mul_add(r, 1.393_454_5e-3);
    let q = q.mul_add(r, 8.333_297e-3);
    let q = q.mul_add(r, 4.166_645_6e-2);
    let q = q.mul_add(r, 1.666_666_7e-1);
    let q = q.mul_add(r, 0.5);
    let p = (q * r).mul_add(r, r) + 1.0;
    // 2ⁿ in two factors, since n reaches 128.
    let half = k >> 1;
    let rest = k - half;
    let pow = |k: i32| f32::from_bits(((k + 127) as u32) << 23);
    let y = p * pow(half) * pow(rest);
    // Comparisons with NaN are false: NaN goes through `p`.
    if x < -87.336_54 {
        0.0
    } else if x > 88.722_84 {
        f32::INFINITY
    } else {
        y
    }
}

/// 1 / (1 + e⁻ˣ).
#[inline(always)]
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// tanh x, accurate to a few units in the last place also near zero.
#[inline(always)]
pub fn tanh(x: f32) -> f32 {
    // Near zero the exponential form cancels; there an odd polynomial is exact enough.
    let a = x.abs();
    let e = exp(-2.0 * a);
    let far = ((1.0 - e) / (1.0 + e)).copysign(x);
    let s = x * x;
    let q = -7.567_41e-3f32;
    let q = q.mul_add(s, 2.169_437_1e-2);
    let q = q.mul_add(s, -5.395_842_3e-2);
    let q = q.mul_add(s, 1.333_331_3e-1);
    let q = q.mul_add(s, -3.333_333_4e-1);
    let near = (q * s).mul_add(x, x);
    if a < 0.35 { near } else { far }
}

/// Adds sixteen partial sums pairwise.
#[inline(always)]
pub(crate) fn fold(mut acc: [f32; 16]) -> f32 {
    for w in [8, 4, 2, 1] {
        for j in 0..w {
            acc[j] += acc[j + w];
        }
    }
    acc[0]
}

/// The sum of f(x) in sixteen interleaved partial sums: vectorises, is more accurate than a running sum, and gives
/// the same bits on every machine. Mark the closure `#[inline(always)]`.
#[inline(always)]
pub fn sum_of(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut acc = [0.0f32; 16];
    // Chunks of a fixed size: an index would be checked at every step and keep the loop scalar.
    let (full, rest) = x.as_chunks::<16>();
    for x in full {
        for (a, x) in acc.iter_mut().zip(x) {
            *a += f(*x);
        }
    }
    for (a, x) in acc.iter_mut().zip(rest) {
        *a += f(*x);
    }
    fold(acc)
}

/// The sum of f(x, y) over two slices of one length, as [`sum_of`].
#[inline(always)]
pub fn sum_of2(x: &[f32], y: &[f32], f: impl Fn(f32, f32) -> f32) -> f32 {
    let mut acc = [0.0f32; 16];
    let (xs, x) = x.as_chunks::<16>();
    let (ys, y) = y.as_chunks::<16>();
    for (x, y) in xs.iter().zip(ys) {
        for ((a, x), y) in acc.iter_mut().zip(x).zip(y) {
            *a += f(*x, *y);
        }
    }
    for ((a, x), y) in acc.iter_mut().zip(x).zip(y) {
        *a += f(*x, *y);
    }
    fold(acc)
}

/// The sum of f(x, y, z) over three slices of one length, as [`sum_of`].
#[inline(always)]
pub fn sum_of3(x: &[f32], y: &[f32], z: &[f32], f: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut acc = [0.0f32; 16];
    let (xs, x) = x.as_chunks::<16>();
    let (ys, y) = y.as_chunks::<16>();
    let (zs, z) = z.as_chunks::<16>();
    for ((x, y), z) in xs.iter().zip(ys).zip(zs) {
        for (((a, x), y), z) in acc.iter_mut().zip(x).zip(y).zip(z) {
            *a += f(*x, *y, *z);
        }
    }
    for (((a, x), y), z) in acc.iter_mut().zip(x).zip(y).zip(z) {
        *a += f(*x, *y, *z);
    }
    fold(acc)
}

/// The largest element; −∞ of nothing. NaNs are passed over.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    let mut acc = [f32::NEG_INFINITY; 16];
    let (full, rest) = x.as_chunks::<16>();
    for x in full {
        for (a, x) in acc.iter_mut().zip(x) {
            *a = if *x > *a { *x } else { *a };
        }
    }
    let tail = rest.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    acc.iter().copied().fold(tail, f32::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_and_tanh_are_accurate() {
        let (mut worst_exp, mut worst_tanh) = (0.0f64, 0.0f64);
        for i in -860_000..=880_000 {
            let x = i as f32 * 1e-4;
            let want = f64::from(x).exp();
            worst_exp = worst_exp.max((f64::from(exp(x)) - want).abs() / want);
            let want = f64::from(x).tanh();
            if want != 0.0 {
                worst_tanh = worst_tanh.max((f64::from(tanh(x)) - want).abs() / want.abs());
            }
        }
        assert!(worst_exp < 1.3e-7, "exp {worst_exp:e}");
        assert!(worst_tanh < 3e-7, "tanh {worst_tanh:e}");
        assert_eq!(exp(-200.0), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp(200.0), f32::INFINITY);
        assert!(exp(f32::NAN).is_nan());
        assert_eq!(tanh(100.0), 1.0);
        assert_eq!(tanh(-100.0), -1.0);
        assert_eq!(exp(0.0), 1.0);
    }

    #[test]
    fn sums() {
        for n in [0, 1, 15, 16, 17, 100] {
            let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
            let want: usize = (0..n).sum();
            assert_eq!(sum_of(&x, |x| x), want as f32);
            assert_eq!(sum_of2(&x, &x, |x, y| x + y), (2 * want) as f32);
            assert_eq!(sum_of3(&x, &x, &x, |x, y, z| x + y - z), want as f32);
        }
    }
}
