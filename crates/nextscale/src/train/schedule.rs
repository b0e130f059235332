//! Learning-rate and weight-decay schedules, a function of the iteration alone.
//!
//! The learning rate warms up linearly from `wp0` to 1 times its peak, then falls to `wpe` times its peak
//! along one of the [`Curve`]s. Weight decay goes from its first to its last value by a half cosine over
//! the whole run, without warm-up. All arithmetic is float64 in a fixed order, so that a resumed run and
//! the published numbers agree to the last digits.

use std::f64::consts::PI;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How the learning rate falls after warm-up. `p` runs from 0 (end of warm-up) to 1 (last iteration).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Curve {
    /// `cos`: a half cosine.
    Cos,
    /// `lin`: flat for the first 15 %, then linear.
    Lin,
    /// `lin0`: flat for the first 5 %, then linear.
    Lin0,
    /// `lin00`: linear from the start.
    Lin00,
    /// `lin{T}`: two straight lines that meet at `p = T`, the first one half as steep as a single line would be.
    Bend(f64),
    /// `exp`: flat for the first 15 %, then exponential.
    Exp,
}

/// The share of the run after warm-up for which `lin` and `exp` stay at the peak.
const FLAT_LIN: f64 = 0.15;
/// The same for `lin0`.
const FLAT_LIN0: f64 = 0.05;

impl Curve {
    /// The ratio to the peak at progress `p` in [0, 1], ending at `wpe`.
    fn ratio(self, p: f64, wpe: f64) -> f64 {
        let rest = 1.0 - p;
        match self {
            Self::Cos => wpe + (1.0 - wpe) * (0.5 + 0.5 * (PI * p).cos()),
            Self::Lin => flat_then_linear(p, FLAT_LIN, wpe),
            Self::Lin0 => flat_then_linear(p, FLAT_LIN0, wpe),
            Self::Lin00 => wpe + (1.0 - wpe) * rest,
            Self::Bend(t) => {
                let max_rest = 1.0 - t;
                let line = wpe + (1.0 - wpe) * max_rest;
                let middle = (1.0 + line) / 2.0;
                if p < t {
                    1.0 + (middle - 1.0) * p / t
                } else if max_rest > 0.0 {
                    wpe + (middle - wpe) * rest / max_rest
                } else {
                    wpe
                }
            }
            Self::Exp if p < FLAT_LIN => 1.0,
            Self::Exp => ((p - FLAT_LIN) / (1.0 - FLAT_LIN) * wpe.ln()).exp(),
        }
    }
}

fn flat_then_linear(p: f64, flat: f64, wpe: f64) -> f64 {
    if p < flat {
        1.0
    } else {
        wpe + (1.0 - wpe) * (1.0 - p) / (1.0 - flat)
    }
}

impl FromStr for Curve {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::field(
                "sche",
                text,
                "no such schedule; use cos, lin, lin0, lin00, exp, or linT with T from 0 to 1 (such as lin0.3)",
            )
        };
        Ok(match text {
            "cos" => Self::Cos,
            "lin" => Self::Lin,
            "lin0" => Self::Lin0,
            "lin00" => Self::Lin00,
            "exp" => Self::Exp,
            _ => {
                let number = text.strip_prefix("lin").ok_or_else(unknown)?;
                let t: f64 = number.parse().map_err(|_| unknown())?;
                if !(0.0..=1.0).contains(&t) {
                    return Err(unknown());
                }
                Self::Bend(t)
            }
        })
    }
}

impl fmt::Display for Curve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cos => f.write_str("cos"),
            Self::Lin => f.write_str("lin"),
            Self::Lin0 => f.write_str("lin0"),
            Self::Lin00 => f.write_str("lin00"),
            // `{:?}` keeps a point or an exponent, so a bend at 0 is never read back as `lin0`.
            Self::Bend(t) => write!(f, "lin{t:?}"),
            Self::Exp => f.write_str("exp"),
        }
    }
}

impl TryFrom<String> for Curve {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Curve> for String {
    fn from(curve: Curve) -> Self {
        curve.to_string()
    }
}

/// The two schedules of a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// The curve after warm-up.
    pub curve: Curve,
    /// The learning rate at the end of warm-up.
    pub peak_lr: f64,
    /// Weight decay at the first iteration.
    pub wd: f64,
    /// Weight decay at the last iteration.
    pub wd_end: f64,
    /// Length of the warm-up in iterations; rounded half to even.
    pub warmup_its: f64,
    /// Ratio to the peak at the first iteration.
    pub wp0: f64,
    /// Ratio to the peak at the last iteration. More than 0 for [`Curve::Exp`].
    pub wpe: f64,
    /// Iterations in the whole run.
    pub max_it: u64,
}

/// What the optimizer uses at one iteration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LrWd {
    /// Learning rate.
    pub lr: f64,
    /// Weight decay of the decayed parameters; the others always have 0.
    pub wd: f64,
}

impl Schedule {
    /// The values at iteration `it`, counted from 0. Iterations past the end keep the last one's values;
    /// a run whose warm-up leaves no more than one iteration stays at the peak.
    pub fn at(&self, it: u64) -> LrWd {
        let last = self.max_it.saturating_sub(1) as f64;
        let it = (it as f64).min(last);
        let warmup = self.warmup_its.round_ties_even();
        let ratio = if it < warmup {
            self.wp0 + (1.0 - self.wp0) * it / warmup
        } else {
            self.curve
                .ratio(progress(it - warmup, last - warmup), self.wpe)
        };
        let half_cosine = 0.5 + 0.5 * (PI * progress(it, last)).cos();
        LrWd {
            lr: ratio * self.peak_lr,
            wd: self.wd_end + (self.wd - self.wd_end) * half_cosine,
        }
    }
}

/// `done / whole`, and 0 where there is no way to go.
fn progress(done: f64, whole: f64) -> f64 {
    if whole > 0.0 { done / whole } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(found: f64, expected: f64) -> bool {
        (found - expected).abs() <= 1e-15 * expected.abs()
    }

    #[test]
    fn every_value_of_the_fixture() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../fixtures/schedules/lr_wd.csv"
        );
        let text = std::fs::read_to_string(path).unwrap();
        let mut rows = 0;
        for line in text.lines().skip(1) {
            let cells: Vec<&str> = line.split(',').collect();
            let number = |i: usize| cells[i].parse::<f64>().unwrap();
            let schedule = Schedule {
                curve: cells[0].parse().unwrap(),
                peak_lr: 1e-3,
                wd: 0.05,
                wd_end: number(2),
                warmup_its: 10.0,
                wp0: 0.005,
                wpe: number(1),
                max_it: 200,
            };
            let found = schedule.at(cells[3].parse().unwrap());
            assert!(close(found.lr, number(4)), "{line}: lr {}", found.lr);
            assert!(close(found.wd, number(5)), "{line}: wd {}", found.wd);
            rows += 1;
        }
        assert_eq!(rows, 2400);
    }

    fn short(curve: Curve, warmup_its: f64, max_it: u64) -> Schedule {
        Schedule {
            curve,
            peak_lr: 1.0,
            wd: 0.05,
            wd_end: 0.05,
            warmup_its,
            wp0: 0.005,
            wpe: 0.1,
            max_it,
        }
    }

    #[test]
    fn short_runs_and_full_bends_stay_finite() {
        assert_eq!(short(Curve::Lin0, 0.0, 1).at(0).lr, 1.0);
        assert_eq!(short(Curve::Cos, 4.0, 5).at(4).lr, 1.0);
        assert!((short(Curve::Bend(1.0), 0.0, 11).at(10).lr - 0.1).abs() < 1e-15);
        assert!((short(Curve::Bend(0.0), 0.0, 11).at(10).lr - 0.1).abs() < 1e-15);
        assert_eq!(
            short(Curve::Lin, 0.0, 11).at(10),
            short(Curve::Lin, 0.0, 11).at(99)
        );
        // Half an iteration of warm-up is none.
        assert_eq!(short(Curve::Lin00, 0.5, 11).at(0).lr, 1.0);
    }

    #[test]
    fn an_unknown_schedule_is_named() {
        for text in [
            "", "cosine", "linear", "lin1.5", "lin-0.1", "linnan", "lininf", "LIN",
        ] {
            let message = text.parse::<Curve>().unwrap_err().to_string();
            assert!(
                message.starts_with(&format!("`sche`={text}: no such")),
                "{message}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_text_parses_or_is_refused(text in "\\PC*") {
            let _ = text.parse::<Curve>();
        }

        #[test]
        fn a_curve_reads_back_as_itself(t in 0.0f64..=1.0) {
            for curve in [Curve::Cos, Curve::Lin, Curve::Lin0, Curve::Lin00, Curve::Exp, Curve::Bend(t)] {
                prop_assert_eq!(curve.to_string().parse::<Curve>().unwrap(), curve);
            }
        }

        #[test]
        fn the_rate_stays_between_its_ends(t in 0.0f64..=1.0, warmup in 0.0f64..20.0, max_it in 1u64..60, it in 0u64..80) {
            for curve in [Curve::Cos, Curve::Lin, Curve::Lin0, Curve::Lin00, Curve::Exp, Curve::Bend(t)] {
                let lr = short(curve, warmup, max_it).at(it).lr;
                prop_assert!((0.005 - 1e-12..=1.0 + 1e-12).contains(&lr), "{} {}", curve, lr);
            }
        }
    }
}
