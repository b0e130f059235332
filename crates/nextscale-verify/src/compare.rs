//! How far numbers are apart and how far they may be.

use serde_json::Value as Json;
use std::fmt;

/// How two lists of numbers differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Difference {
    /// Largest absolute difference.
    pub max_abs: f64,
    /// ‖got − want‖₂ / ‖want‖₂; 0 where nothing differs, infinite where only `want` is zero.
    pub rel_l2: f64,
    /// Largest magnitude recorded.
    pub absmax: f64,
    /// Largest difference of one element relative to that element.
    pub max_rel: f64,
    /// Elements more than 1e-5 apart.
    pub over_1e5: usize,
    /// Elements.
    pub count: usize,
}

/// Compares `got` with `want`, element by element. Equal infinities do not differ; any other pair that is not finite
/// differs infinitely.
pub fn difference<T: Copy + Into<f64>, U: Copy + Into<f64>>(got: &[T], want: &[U]) -> Difference {
    let mut d = Difference {
        max_abs: 0.0,
        rel_l2: 0.0,
        absmax: 0.0,
        max_rel: 0.0,
        over_1e5: 0,
        count: want.len(),
    };
    let (mut apart, mut size) = (0.0f64, 0.0f64);
    for (&g, &w) in got.iter().zip(want) {
        let (g, w): (f64, f64) = (g.into(), w.into());
        let delta = match (g.is_finite() && w.is_finite(), g == w) {
            (_, true) => 0.0,
            (true, false) => (g - w).abs(),
            (false, false) => f64::INFINITY,
        };
        d.max_abs = d.max_abs.max(delta);
        d.over_1e5 += usize::from(delta > 1e-5);
        apart += delta * delta;
        if w.is_finite() {
            d.absmax = d.absmax.max(w.abs());
            size += w * w;
        }
        if delta > 0.0 {
            d.max_rel = d.max_rel.max(if w == 0.0 {
                f64::INFINITY
            } else {
                delta / w.abs()
            });
        }
    }
    if apart > 0.0 {
        d.rel_l2 = if apart.is_finite() {
            (apart / size).sqrt()
        } else {
            f64::INFINITY
        };
    }
    d
}

/// How far numbers may be apart. Any one of the three bounds suffices.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limit {
    /// On the relative L2 difference.
    pub rel_l2: f64,
    /// On the largest absolute difference.
    pub abs: f64,
    /// On the largest absolute difference, as a share of the largest magnitude recorded.
    pub peak: f64,
}

impl Limit {
    /// No difference at all.
    pub const EXACT: Self = Self {
        rel_l2: 0.0,
        abs: 0.0,
        peak: 0.0,
    };

    /// A relative L2 difference.
    pub const fn relative(rel_l2: f64) -> Self {
        Self {
            rel_l2,
            abs: 0.0,
            peak: 0.0,
        }
    }

    /// An absolute difference.
    pub const fn absolute(abs: f64) -> Self {
        Self {
            rel_l2: 0.0,
            abs,
            peak: 0.0,
        }
    }

    /// This limit or an absolute difference.
    pub const fn or_absolute(self, abs: f64) -> Self {
        Self { abs, ..self }
    }

    /// This limit times a factor.
    pub fn times(self, factor: f64) -> Self {
        Self {
            rel_l2: factor * self.rel_l2,
            abs: factor * self.abs,
            peak: factor * self.peak,
        }
    }

    /// Whether a difference keeps within it.
    pub fn holds(&self, d: &Difference) -> bool {
        d.rel_l2 <= self.rel_l2 || d.max_abs <= self.abs || d.max_abs <= self.peak * d.absmax
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::EXACT {
            return f.write_str("must be equal");
        }
        let parts: Vec<String> = [
            ("rel", self.rel_l2),
            ("abs", self.abs),
            ("abs/largest", self.peak),
        ]
        .into_iter()
        .filter(|p| p.1 > 0.0)
        .map(|(name, v)| format!("{name} {v:.1e}"))
        .collect();
        write!(f, "limit {}", parts.join(" or "))
    }
}

/// L2 norm, sum and largest magnitude, as `*_stats.json` keeps them.
#[derive(Clone, Copy, Debug)]
pub struct Stats {
    /// L2 norm.
    pub l2: f64,
    /// Sum.
    pub sum: f64,
    /// Largest magnitude.
    pub absmax: f64,
}

impl Stats {
    /// Of numbers, accumulated in float64.
    pub fn of(values: &[f32]) -> Self {
        let mut s = Self {
            l2: 0.0,
            sum: 0.0,
            absmax: 0.0,
        };
        for &v in values {
            let v = f64::from(v);
            s.l2 += v * v;
            s.sum += v;
            s.absmax = s.absmax.max(v.abs());
        }
        s.l2 = s.l2.sqrt();
        s
    }

    /// Of an entry of `*_stats.json`.
    pub fn recorded(entry: &Json) -> Option<Self> {
        Some(Self {
            l2: entry.get("l2")?.as_f64()?,
            sum: entry.get("sum")?.as_f64()?,
            absmax: entry.get("absmax")?.as_f64()?,
        })
    }

    /// Whether these can be of `n` numbers that keep within `limit` of those that `want` is of. A difference of norm δ
    /// changes the norm and the largest magnitude by at most δ and the sum by at most √n·δ.
    pub fn hold(&self, want: &Self, n: usize, limit: &Limit) -> (bool, Difference) {
        let root = (n as f64).sqrt();
        let each = limit.abs.max(limit.peak * want.absmax);
        let delta = (limit.rel_l2 * want.l2).max(each * root);
        let norm = (self.l2 - want.l2).abs();
        let d = Difference {
            max_abs: norm.max((self.absmax - want.absmax).abs()),
            rel_l2: if norm > 0.0 { norm / want.l2 } else { 0.0 },
            absmax: want.absmax,
            max_rel: 0.0,
            over_1e5: 0,
            count: n,
        };
        let sum = (self.sum - want.sum).abs();
        (d.max_abs <= delta && sum <= root * delta, d)
    }
}

/// The elements of a tensor that a "sampled" record of `n` numbers keeps: positions ⌊k·N/n⌋, or all.
pub fn sampled(values: &[f32], n: usize) -> Vec<f32> {
    let total = values.len();
    if n == 0 || total <= n {
        return values.to_vec();
    }
    (0..n)
        .map(|k| values[(k as u128 * total as u128 / n as u128) as usize])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_and_limits() {
        let d = difference(&[3.0f32, 4.5], &[3.0f32, 4.0]);
        assert_eq!((d.max_abs, d.rel_l2, d.absmax), (0.5, 0.1, 4.0));
        assert_eq!((d.max_rel, d.over_1e5, d.count), (0.125, 1, 2));
        assert!(Limit::relative(0.1).holds(&d) && !Limit::relative(0.09).holds(&d));
        assert!(Limit::absolute(0.5).holds(&d) && !Limit::absolute(0.4).holds(&d));
        let peak = Limit {
            peak: 0.125,
            ..Limit::EXACT
        };
        assert!(peak.holds(&d) && !Limit::EXACT.holds(&d));
        let same = difference(&[f32::NEG_INFINITY], &[f32::NEG_INFINITY]);
        assert!(Limit::EXACT.holds(&same));
        let loose = Limit::relative(1e9).or_absolute(1e9);
        for (g, w) in [(f32::NAN, 1.0), (1.0, f32::NAN), (f32::INFINITY, 1.0)] {
            assert!(!loose.holds(&difference(&[g], &[w])), "{g} {w}");
        }
        assert!(!loose.holds(&difference(&[1e-20f32], &[f32::NEG_INFINITY])));
        assert!(difference(&[1.0f32], &[0.0f32]).rel_l2.is_infinite());
    }

    #[test]
    fn statistics_follow_the_values() {
        let a: Vec<f32> = (0..1000).map(|i| (i as f32 * 0.37).sin()).collect();
        let b: Vec<f32> = a.iter().map(|v| v * (1.0 + 1e-4)).collect();
        let (a, b) = (Stats::of(&a), Stats::of(&b));
        assert!(b.hold(&a, 1000, &Limit::relative(1.1e-4)).0);
        assert!(!b.hold(&a, 1000, &Limit::relative(0.9e-4)).0);
        let nan = Stats { sum: f64::NAN, ..a };
        assert!(!nan.hold(&a, 1000, &Limit::relative(1.0)).0);
        let entry = serde_json::json!({"l2": 1.0, "sum": 2.0, "absmax": 3.0});
        assert_eq!(Stats::recorded(&entry).unwrap().sum, 2.0);
        assert!(Stats::recorded(&Json::Null).is_none());
    }

    #[test]
    fn samples_are_spread() {
        let all: Vec<f32> = (0..10).map(|i| i as f32).collect();
        assert_eq!(sampled(&all, 4), [0.0, 2.0, 5.0, 7.0]);
        assert_eq!(sampled(&all, 10), all);
        assert_eq!(sampled(&all, 64), all);
    }
}
