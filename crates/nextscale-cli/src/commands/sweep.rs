//! `--sweep`: the same images with several values of a flag.

use nextscale::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Values at most: a row each.
const MOST: usize = 64;

/// A flag that can be swept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Swept {
    Cfg,
    TopK,
    TopP,
}

impl Swept {
    const ALL: [Self; 3] = [Self::Cfg, Self::TopK, Self::TopP];

    /// The flag's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cfg => "cfg",
            Self::TopK => "top_k",
            Self::TopP => "top_p",
        }
    }
}

/// A flag and its values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    pub flag: Swept,
    pub values: Vec<f32>,
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values: Vec<String> = self.values.iter().map(f32::to_string).collect();
        write!(f, "{}={}", self.flag.name(), values.join(","))
    }
}

impl Sweep {
    /// `cfg=0:3:0.5` (from, to, step) or `cfg=1,1.5,2`.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that names the flag.
    pub fn parse(text: &str) -> Result<Self, String> {
        let forms = "give a flag with its values as cfg=0:3:0.5 (from, to, step) or cfg=1,1.5,2";
        let (name, values) = text
            .split_once('=')
            .ok_or_else(|| format!("it has no values; {forms}"))?;
        let flag = Swept::ALL.into_iter().find(|f| f.name() == name.trim());
        let flag = flag
            .ok_or_else(|| format!("{:?} can't be swept; cfg, top_k and top_p can", name.trim()))?;
        let parts: Vec<&str> = values.split(':').collect();
        let values = match parts[..] {
            [list] => list.split(',').map(number).collect::<Result<_, _>>()?,
            [from, to, step] => range(number(from)?, number(to)?, number(step)?)?,
            _ => return Err(format!("a range has three numbers; {forms}")),
        };
        let sweep = Self {
            flag,
            values: values.into_iter().map(|v| v as f32).collect(),
        };
        sweep.check()?;
        Ok(sweep)
    }

    /// Checks what may also come from a file.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that names the flag.
    pub fn check(&self) -> Result<(), String> {
        let values = &self.values;
        if values.is_empty() || values.len() > MOST {
            return Err(format!(
                "{} values; a row each, from 1 to {MOST} are possible",
                values.len()
            ));
        }
        for (i, value) in values.iter().enumerate() {
            if values[..i].contains(value) {
                return Err(format!("the value {value} stands twice"));
            }
            let (fits, range) = match self.flag {
                Swept::Cfg => ((0.0..=1000.0).contains(value), "a number from 0 to 1000"),
                Swept::TopP => ((0.0..=1.0).contains(value), "a number from 0 to 1"),
                // Beyond, not every whole number is a float.
                Swept::TopK => (
                    (0.0..=16_777_216.0).contains(value) && value.fract() == 0.0,
                    "a whole number from 0 to 16777216",
                ),
            };
            if !fits {
                return Err(format!(
                    "the value {value} of {}: expected {range}",
                    self.flag.name()
                ));
            }
        }
        Ok(())
    }

    /// The flag with its value number `i`, as a row's label.
    pub fn label(&self, i: usize) -> String {
        format!("{}={}", self.flag.name(), self.values[i])
    }
}

fn number(text: &str) -> Result<f64, String> {
    let text = text.trim();
    match text.parse::<f64>() {
        Ok(n) if n.is_finite() => Ok(n),
        _ => Err(format!("{text:?} is no number")),
    }
}

fn range(from: f64, to: f64, step: f64) -> Result<Vec<f64>, String> {
    if step <= 0.0 || to < from {
        return Err(format!(
            "the range {from}:{to}:{step} must go up: from, to, and a step above 0"
        ));
    }
    // The end belongs to it, however its sum is rounded.
    let steps = ((to - from) / step + 1e-6).floor();
    if steps >= MOST as f64 {
        return Err(format!(
            "the range {from}:{to}:{step} has more than {MOST} values; give a larger step"
        ));
    }
    Ok((0..=steps as usize)
        .map(|i| (from + i as f64 * step).min(to))
        .collect())
}

/// How the flag reads its value.
///
/// # Errors
/// As [`Sweep::parse`], with the flag's name.
pub fn of_flag(text: &str) -> Result<Sweep> {
    Sweep::parse(text).map_err(|e| Error::input(format!("--sweep={text}: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges_have_their_ends_and_lists_their_order() {
        let values = |text| Sweep::parse(text).unwrap().values;
        assert_eq!(values("cfg=0:3:0.5"), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0]);
        assert_eq!(values("top_p=0.1:0.3:0.1"), [0.1, 0.2, 0.3]);
        assert_eq!(values("cfg=0:1:0.4"), [0.0, 0.4, 0.8]);
        assert_eq!(values("cfg=2:2:1"), [2.0]);
        assert_eq!(values(" cfg = 3, 1.5 ,2"), [3.0, 1.5, 2.0]);
        assert_eq!(values("top_k=1,900,0"), [1.0, 900.0, 0.0]);
        assert_eq!(Sweep::parse("top_k=1:3:1").unwrap().label(2), "top_k=3");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("cfg", "no values"),
            ("", "no values"),
            ("seed=1,2", "\"seed\" can't be swept"),
            ("cfg=", "\"\" is no number"),
            ("cfg=1,,2", "\"\" is no number"),
            ("cfg=1,x", "\"x\" is no number"),
            ("cfg=nan", "\"nan\" is no number"),
            ("cfg=0:inf:1", "\"inf\" is no number"),
            ("cfg=0:3", "three numbers"),
            ("cfg=0:3:1:1", "three numbers"),
            ("cfg=0:3:0", "must go up"),
            ("cfg=3:0:1", "must go up"),
            ("cfg=3:0:-1", "must go up"),
            ("cfg=0:1000:0.001", "more than 64 values"),
            ("cfg=1,2,1", "1 stands twice"),
            ("cfg=-1,2", "from 0 to 1000"),
            ("top_p=0:2:1", "from 0 to 1"),
            ("top_k=1.5", "whole number"),
        ] {
            let e = Sweep::parse(text).unwrap_err();
            assert!(e.contains(part), "{text}: {e}");
        }
        let text = of_flag("cfg").unwrap_err().to_string();
        assert!(text.starts_with("--sweep=cfg: "), "{text}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(cfg|top_p|top_k|x)?=?[0-9.,:e-]{0,12}|.{0,10}") {
            if let Ok(sweep) = Sweep::parse(&text) {
                prop_assert!(sweep.check().is_ok());
                // What is shown can be given.
                prop_assert_eq!(Sweep::parse(&sweep.to_string()), Ok(sweep));
            }
        }

        #[test]
        fn ranges_rise_evenly_within_their_ends(from in 0u32..50, count in 1u32..64, step in 1u32..20) {
            // In quarters, which floats hold exactly.
            let of = |quarters: u32| f64::from(quarters) / 4.0;
            let to = from + (count - 1) * step;
            let text = format!("cfg={}:{}:{}", of(from), of(to), of(step));
            let values = Sweep::parse(&text).unwrap().values;
            let want: Vec<f32> = (0..count).map(|i| of(from + i * step) as f32).collect();
            prop_assert_eq!(values, want);
        }
    }
}
