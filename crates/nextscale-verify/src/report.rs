//! What a check says: one line a quantity, counts for the summary.

use super::compare::{Difference, Limit, difference};
use super::machine::{HALF_LOSSES, Machine};
use std::fmt;

/// How a quantity fared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Within its limit.
    Pass,
    /// Outside its limit.
    Fail,
    /// Not compared; the line says why. Does not fail a bundle.
    Unchecked,
}

/// One quantity.
#[derive(Clone, Debug)]
pub struct Line {
    /// What was compared.
    pub quantity: String,
    /// The outcome.
    pub verdict: Verdict,
    /// The errors, where numbers were compared.
    pub difference: Option<Difference>,
    /// What the numbers do not say; may be empty.
    pub note: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "FAIL",
            Verdict::Unchecked => "--  ",
        };
        write!(f, "{verdict}  {:<46}", self.quantity)?;
        if let Some(d) = &self.difference {
            write!(f, "  abs {:<8.1e} rel {:<8.1e}", d.max_abs, d.rel_l2)?;
        }
        if !self.note.is_empty() {
            write!(f, "  {}", self.note)?;
        }
        Ok(())
    }
}

/// How many quantities fared how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Within their limits.
    pub passed: usize,
    /// Outside.
    pub failed: usize,
    /// Not compared.
    pub unchecked: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} quantities pass",
            self.passed,
            self.passed + self.failed
        )?;
        match self.unchecked {
            0 => Ok(()),
            n => write!(f, ", {n} not compared"),
        }
    }
}

/// Takes the outcomes of one bundle, hands each line on and counts.
pub struct Report<'a> {
    machine: Machine,
    see: &'a mut dyn FnMut(&Line),
    /// Outcomes so far.
    pub counts: Counts,
    /// Quantities that were said not to be compared.
    left_out: Vec<String>,
}

impl<'a> Report<'a> {
    /// An empty report on a machine; `see` gets every line as it is made.
    pub fn new(machine: Machine, see: &'a mut dyn FnMut(&Line)) -> Self {
        Self {
            machine,
            see,
            counts: Counts::default(),
            left_out: Vec::new(),
        }
    }

    /// Whether a file or quantity was said not to be compared.
    pub fn was_told(&self, name: &str) -> bool {
        self.left_out.iter().any(|l| l.ends_with(name))
    }

    fn line(&mut self, line: &Line) {
        match line.verdict {
            Verdict::Pass => self.counts.passed += 1,
            Verdict::Fail => self.counts.failed += 1,
            Verdict::Unchecked => {
                self.counts.unchecked += 1;
                self.left_out.push(line.quantity.clone());
            }
        }
        (self.see)(line);
    }

    /// Where what is reported was computed.
    pub fn machine(&self) -> Machine {
        self.machine
    }

    /// Compares numbers that a model computed: in half precision they are shown and not judged. A wrong count fails.
    pub fn computed<T: Copy + Into<f64>, U: Copy + Into<f64>>(
        &mut self,
        quantity: impl Into<String>,
        got: &[T],
        want: &[U],
        limit: Limit,
    ) {
        if self.machine.is_half() && got.len() == want.len() {
            return self.shown(quantity, difference(got, want));
        }
        self.numbers(quantity, got, want, limit);
    }

    /// Compares losses: in half precision each keeps within 1 %.
    pub fn losses<T: Copy + Into<f64>, U: Copy + Into<f64>>(
        &mut self,
        quantity: impl Into<String>,
        got: &[T],
        want: &[U],
        limit: Limit,
    ) {
        if self.machine.is_half() && got.len() == want.len() {
            let d = difference(got, want);
            let rule = format!("limit {HALF_LOSSES:e} of each, largest {:.1e}", d.max_rel);
            return self.judged(quantity, d.max_rel <= HALF_LOSSES, d, rule);
        }
        self.numbers(quantity, got, want, limit);
    }

    /// A difference that is not judged.
    pub fn shown(&mut self, quantity: impl Into<String>, difference: Difference) {
        self.line(&Line {
            quantity: quantity.into(),
            verdict: Verdict::Unchecked,
            difference: Some(difference),
            note: "half precision, not judged".into(),
        });
    }

    /// Compares numbers. A wrong count fails.
    pub fn numbers<T: Copy + Into<f64>, U: Copy + Into<f64>>(
        &mut self,
        quantity: impl Into<String>,
        got: &[T],
        want: &[U],
        limit: Limit,
    ) {
        if got.len() != want.len() {
            let note = format!("{} numbers, recorded are {}", got.len(), want.len());
            return self.fact(quantity, false, note);
        }
        let d = difference(got, want);
        let limit = limit.times(self.machine.slack());
        self.judged(quantity, limit.holds(&d), d, limit.to_string());
    }

    /// A difference that was judged by a rule of its own; `rule` says which.
    pub fn judged(
        &mut self,
        quantity: impl Into<String>,
        holds: bool,
        difference: Difference,
        rule: impl Into<String>,
    ) {
        self.line(&Line {
            quantity: quantity.into(),
            verdict: if holds { Verdict::Pass } else { Verdict::Fail },
            difference: Some(difference),
            note: rule.into(),
        });
    }

    /// Something that holds or not. The note is shown in either case.
    pub fn fact(&mut self, quantity: impl Into<String>, holds: bool, note: impl Into<String>) {
        self.line(&Line {
            quantity: quantity.into(),
            verdict: if holds { Verdict::Pass } else { Verdict::Fail },
            difference: None,
            note: note.into(),
        });
    }

    /// Two values that must be the same; shown where they are not.
    pub fn same<T: PartialEq + fmt::Debug>(
        &mut self,
        quantity: impl Into<String>,
        got: &T,
        want: &T,
    ) {
        let holds = got == want;
        let note = if holds {
            String::new()
        } else {
            format!("{}, recorded is {}", short(got), short(want))
        };
        self.fact(quantity, holds, note);
    }

    /// Something that can't be compared, and why.
    pub fn unchecked(&mut self, quantity: impl Into<String>, why: impl Into<String>) {
        self.line(&Line {
            quantity: quantity.into(),
            verdict: Verdict::Unchecked,
            difference: None,
            note: format!("not compared: {}", why.into()),
        });
    }
}

/// A value's text, cut to a line's length.
fn short(value: &impl fmt::Debug) -> String {
    let text = format!("{value:?}");
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_count_and_print() {
        let mut lines = Vec::new();
        let mut see = |l: &Line| lines.push(l.to_string());
        let mut r = Report::new(Machine::CPU, &mut see);
        r.numbers("a", &[1.0f32, 2.0], &[1.0f32, 2.0], Limit::EXACT);
        r.numbers("b", &[1.0f32, 2.5], &[1.0f32, 2.0], Limit::relative(1e-3));
        r.numbers("c", &[1.0f32], &[1.0f32, 2.0], Limit::EXACT);
        r.same("d", &"x".repeat(200), &"y".repeat(200));
        r.unchecked("e", "its file is missing");
        assert_eq!(
            r.counts,
            Counts {
                passed: 1,
                failed: 3,
                unchecked: 1
            }
        );
        assert!(lines[0].starts_with("pass  a ") && lines[0].contains("abs 0"));
        assert!(lines[1].starts_with("FAIL  b ") && lines[1].contains("abs 5.0e-1"));
        assert!(lines[2].contains("1 numbers, recorded are 2"));
        assert!(lines[3].chars().count() < 220);
        assert!(lines[4].contains("its file is missing"));
    }
}
