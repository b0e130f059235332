//! Passes over rows: sums, normalisation and its gradient.

use crate::cpu::simd;

/// A pass over rows as a function compiled for the machine's widest vectors. A closure of this size would not be
/// inlined into the dispatcher and so stay on the baseline instruction set; a marked method always is.
macro_rules! vector_pass {
    ($(#[$doc:meta])* fn $name:ident<$($life:lifetime),+>($($arg:ident: $ty:ty),+ $(,)?) -> $out:ty $body:block) => {
        $(#[$doc])*
        pub(super) fn $name<$($life),+>($($arg: $ty),+) -> $out {
            struct Pass<$($life),+> { $($arg: $ty),+ }
            impl<$($life),+> pulp::WithSimd for Pass<$($life),+> {
                type Output = $out;
                #[inline(always)]
                fn with_simd<S: pulp::Simd>(self, _simd: S) -> $out {
                    let Self { $($arg),+ } = self;
                    $body
                }
            }
            crate::cpu::simd::arch().dispatch(Pass { $($arg),+ })
        }
    };
}
pub(super) use vector_pass;

/// ln 100: what scale_mul is clamped to.
const MOST_SCALE_MUL: f32 = 4.605_170_2;
/// Norms are taken to be at least this.
const LEAST_NORM: f32 = 1e-12;

/// What happens to queries and keys of one head before the product.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scaling {
    /// Whether queries and keys are divided by their norms.
    pub unit: bool,
    /// What queries are multiplied by.
    pub factor: f32,
    /// Whether the factor follows scale_mul (it does not where that is clamped).
    pub moves: bool,
}

impl Scaling {
    /// With this element of scale_mul, or without one.
    pub fn new(scale_mul: Option<f32>, dim: usize) -> Self {
        match scale_mul {
            Some(s) => Self {
                unit: true,
                // NaN stays NaN, which `min` would hide.
                factor: if s > MOST_SCALE_MUL {
                    MOST_SCALE_MUL
                } else {
                    s
                }
                .exp(),
                moves: s <= MOST_SCALE_MUL,
            },
            None => Self {
                unit: false,
                factor: 0.25 / (dim as f32).sqrt(),
                moves: false,
            },
        }
    }
}

/// Σ a·b in sixteen interleaved sums.
#[inline(always)]
pub(super) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let ((a, a_rest), (b, b_rest)) = (a.as_chunks::<16>(), b.as_chunks::<16>());
    let mut acc = [0.0f32; 16];
    for (a, b) in a.iter().zip(b) {
        for j in 0..16 {
            acc[j] = a[j].mul_add(b[j], acc[j]);
        }
    }
    for ((s, a), b) in acc.iter_mut().zip(a_rest).zip(b_rest) {
        *s = a.mul_add(*b, *s);
    }
    fold(acc, |a, b| a + b)
}

/// The largest element; −∞ for none.
#[inline(always)]
pub(super) fn max(x: &[f32]) -> f32 {
    let (x, rest) = x.as_chunks::<16>();
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut acc = [f32::NEG_INFINITY; 16];
    for x in x {
        for j in 0..16 {
            acc[j] = larger(acc[j], x[j]);
        }
    }
    for (m, x) in acc.iter_mut().zip(rest) {
        *m = larger(*m, *x);
    }
    fold(acc, larger)
}

/// Replaces every element by e to its distance from `max` and returns the sum.
#[inline(always)]
pub(super) fn exp_and_sum(x: &mut [f32], max: f32) -> f32 {
    let (x, rest) = x.as_chunks_mut::<16>();
    let mut acc = [0.0f32; 16];
    for x in x {
        for j in 0..16 {
            x[j] = simd::exp(x[j] - max);
            acc[j] += x[j];
        }
    }
    for (s, x) in acc.iter_mut().zip(rest) {
        *x = simd::exp(*x - max);
        *s += *x;
    }
    fold(acc, |a, b| a + b)
}

#[inline(always)]
fn fold(mut acc: [f32; 16], join: impl Fn(f32, f32) -> f32) -> f32 {
    for w in [8, 4, 2, 1] {
        for j in 0..w {
            acc[j] = join(acc[j], acc[j + w]);
        }
    }
    acc[0]
}

/// 1 / max(‖x‖, 1e-12), and whether the norm was above that bound. Not a number where the norm is none or infinite.
#[inline(always)]
fn inverse_norm(x: &[f32]) -> (f32, bool) {
    let norm = dot(x, x).sqrt();
    (1.0 / norm.max(LEAST_NORM) + 0.0 * norm, norm >= LEAST_NORM)
}

vector_pass! {
    /// Gathers rows that lie `stride` apart in `from` into `out`, gapless rows of `dim`: multiplied by `factor` and,
    /// with `unit`, divided by their norms.
    fn gather<'a>(
        from: &'a [f32],
        stride: usize,
        dim: usize,
        unit: bool,
        factor: f32,
        out: &'a mut [f32],
    ) -> () {
        for (from, out) in from.chunks(stride).zip(out.chunks_exact_mut(dim)) {
            let x = &from[..dim];
            let f = if unit {
                inverse_norm(x).0 * factor
            } else {
                factor
            };
            out.iter_mut().zip(x).for_each(|(o, x)| *o = x * f);
        }
    }
}

/// The gradient of [`gather`], a row at a time: `x` as it was gathered from, `y` as it came out, `g` the gradient of y,
/// `out` that of x. Returns Σ g·y, the gradient of the factor's logarithm.
#[inline(always)]
fn gather_slope(x: &[f32], y: &[f32], g: &[f32], unit: bool, factor: f32, out: &mut [f32]) -> f32 {
    if !unit {
        out.iter_mut().zip(g).for_each(|(o, g)| *o = g * factor);
        return 0.0;
    }
    // y = f·x/‖x‖, so dx = (f·g − (Σ g·y)·x/‖x‖)/‖x‖; below the bound the norm is a constant.
    let (inverse, moves) = inverse_norm(x);
    let along = dot(g, y);
    let (a, b) = if moves {
        (inverse * factor, along * inverse * inverse)
    } else {
        (inverse * factor, 0.0)
    };
    for ((o, g), x) in out.iter_mut().zip(g).zip(x) {
        *o = a.mul_add(*g, -b * x);
    }
    along
}

vector_pass! {
    /// Takes the gradient `g` of gathered rows `y` through the gathering (from `x`, rows `stride` apart) and into the
    /// rows of `out`; returns the gradient of the factor's logarithm.
    fn gather_backward<'a, 'b>(
        x: &'a [f32],
        stride: usize,
        y: &'a [f32],
        g: &'a [f32],
        dim: usize,
        scaling: (bool, f32),
        out: &'a mut [&'b mut [f32]],
    ) -> f64 {
        let ((unit, factor), mut along) = (scaling, 0.0);
        let rows = x.chunks(stride).zip(y.chunks_exact(dim));
        for ((x, y), (g, out)) in rows.zip(g.chunks_exact(dim).zip(out)) {
            along += f64::from(gather_slope(&x[..dim], y, g, unit, factor, out));
        }
        along
    }
}
