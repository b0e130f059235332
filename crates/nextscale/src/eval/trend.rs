//! How a run's evaluations went, in words: whether it still learns, has learnt what it can, or learns its images by heart.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};

/// A change of the loss that is taken for one, as a share of it.
const NOTICED: f64 = 0.005;
/// The same upwards: noise goes up as well as down.
const RISEN: f64 = 0.01;
/// A loss from this share of chance on is hardly better than chance.
const HARDLY: f64 = 0.98;
/// Evaluations that are kept, at most: of more every second one goes.
const KEPT: usize = 512;

/// The figure of every evaluation of a run, by the epochs that were done.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Trend {
    points: Vec<(u64, f64)>,
}

/// Steps below which a run learns hardly anything.
pub(crate) const FEW_STEPS: u64 = 500;

/// How a loss went.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tendency {
    /// It was measured once, or the run was too short to tell.
    Unknown,
    /// It is hardly better than chance.
    HardlyBetter,
    /// It has risen since it was lowest.
    Rising {
        /// Epochs done when it was lowest.
        epoch: u64,
        /// The lowest.
        best: f64,
    },
    /// It still falls.
    Falling,
    /// It falls no longer.
    Level,
}

/// What the validation losses of a run say.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Verdict {
    /// The last one.
    pub loss: f64,
    /// That of a model that knows nothing.
    pub chance: f64,
    /// How they went.
    pub tendency: Tendency,
}

/// In words, with the options that would help, in backticks.
impl Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "validation loss {:.2}, chance {:.2}",
            self.loss, self.chance
        )?;
        match self.tendency {
            Tendency::Unknown => f.write_str(
                "; whether it still falls can't be told of so short a run: more epochs (`ep`) or evaluations (`eval_every`) would show it",
            ),
            Tendency::HardlyBetter => f.write_str(
                ": hardly better than chance; train for longer (`ep`) or with a higher learning rate (`tblr`)",
            ),
            Tendency::Rising { epoch, best } => write!(
                f,
                ", rising since epoch {epoch} ({best:.2}): overfitting; more images, `hflip`=1 or fewer epochs (`ep`={epoch}) would help",
            ),
            Tendency::Falling => f.write_str(", still falling: more epochs would help (`ep`)"),
            Tendency::Level => f.write_str(
                ", no longer falling: a deeper model (`depth`) or more images would help more than epochs",
            ),
        }
    }
}

impl Trend {
    /// Takes the evaluation after so many epochs in; one that is made again takes the place of the first. What is no number says
    /// nothing of a trend and is left out.
    pub fn push(&mut self, epoch: u64, value: f64) {
        self.points.retain(|&(before, _)| before < epoch);
        if !value.is_finite() {
            return;
        }
        self.points.push((epoch, value));
        if self.points.len() > KEPT {
            // The last one stays.
            let odd = self.points.len() % 2;
            let mut place = odd;
            self.points.retain(|_| {
                place += 1;
                place.is_multiple_of(2)
            });
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// The last figure.
    pub fn last(&self) -> Option<f64> {
        Some(self.points.last()?.1)
    }

    /// The figure some way before the last: about a third of the run.
    fn before(&self) -> Option<f64> {
        let n = self.points.len();
        let back = (n / 3).max(1);
        Some(self.points.get(n.checked_sub(1 + back)?)?.1)
    }

    /// What the validation losses of a run of so many steps say, where there are some: `chance` is the loss of a model that knows
    /// nothing, the logarithm of the number of codes.
    pub fn of_losses(&self, chance: f64, steps: u64) -> Option<Verdict> {
        let last = self.last()?;
        let (epoch, best) = self
            .points
            .iter()
            .copied()
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        let tendency = if last >= HARDLY * chance {
            Tendency::HardlyBetter
        } else if last > best * (1.0 + RISEN) {
            Tendency::Rising { epoch, best }
        } else {
            match self.before() {
                None => Tendency::Unknown,
                Some(before) if before - last > NOTICED * last => Tendency::Falling,
                // So few steps say nothing of what more would do.
                Some(_) if steps < FEW_STEPS => Tendency::Unknown,
                Some(_) => Tendency::Level,
            }
        };
        Some(Verdict {
            loss: last,
            chance,
            tendency,
        })
    }

    /// What the PSNR of validation images says, in dB.
    pub fn of_psnr(&self) -> Option<String> {
        /// A change that is taken for one.
        const NOTICED_DB: f64 = 0.1;
        let (last, before) = (self.last()?, self.before()?);
        Some(match last - before {
            rise if rise > NOTICED_DB => "still rising: more steps would help".to_owned(),
            rise if rise < -NOTICED_DB => "falling; the best weights are kept apart".to_owned(),
            _ => "no longer rising: a wider model (`ch`) or more codes (`vocab`) would help more than steps".to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn trend(losses: &[f64]) -> Trend {
        let mut trend = Trend::default();
        for (epoch, loss) in losses.iter().enumerate() {
            trend.push(epoch as u64 + 1, *loss);
        }
        trend
    }

    #[test]
    fn what_is_no_number_is_left_out() {
        let seen = trend(&[5.2, f64::NAN, 4.6, f64::INFINITY]);
        assert_eq!(seen, {
            let mut without = Trend::default();
            without.push(1, 5.2);
            without.push(3, 4.6);
            without
        });
        let text = serde_json::to_string(&seen).unwrap();
        assert_eq!(serde_json::from_str::<Trend>(&text).unwrap(), seen);
    }

    #[test]
    fn words_follow_the_losses() {
        let after = |losses: &[f64], steps| trend(losses).of_losses(5.55, steps);
        let says = |losses: &[f64]| after(losses, 5000).unwrap().to_string();
        assert_eq!(after(&[], 5000), None);
        let one = says(&[4.41]);
        assert!(
            one.starts_with("validation loss 4.41, chance 5.55; whether"),
            "{one}"
        );
        assert!(says(&[5.2, 4.8, 4.6, 4.41]).contains("still falling"));
        let level = [5.2, 4.42, 4.41, 4.41];
        assert!(says(&level).contains("no longer falling"));
        let short = after(&level, FEW_STEPS - 1).unwrap();
        assert_eq!(short.tendency, Tendency::Unknown);
        let over = says(&[5.2, 4.41, 4.5, 4.7]);
        assert!(
            over.contains("rising since epoch 2 (4.41): overfitting"),
            "{over}"
        );
        assert!(over.contains("`ep`=2"), "{over}");
        assert!(says(&[5.55, 5.54]).contains("hardly better than chance"));
    }

    #[test]
    fn words_follow_the_psnr() {
        let says = |db: &[f64]| trend(db).of_psnr();
        assert_eq!(says(&[20.0]), None);
        assert!(says(&[20.0, 21.0, 22.0]).unwrap().contains("still rising"));
        assert!(
            says(&[20.0, 22.0, 22.05])
                .unwrap()
                .contains("no longer rising")
        );
        assert!(says(&[22.0, 22.0, 21.0]).unwrap().contains("falling"));
    }

    #[test]
    fn an_evaluation_that_is_made_again_counts_once() {
        let mut trend = trend(&[5.0, 4.0]);
        trend.push(2, 4.0);
        trend.push(3, 3.5);
        assert_eq!(trend.points, [(1, 5.0), (2, 4.0), (3, 3.5)]);
        let text = serde_json::to_string(&trend).unwrap();
        assert_eq!(text, "[[1,5.0],[2,4.0],[3,3.5]]");
        assert_eq!(serde_json::from_str::<Trend>(&text).unwrap(), trend);
    }

    proptest! {
        #[test]
        fn long_runs_keep_their_last_evaluation_and_stay_short(n in 1u64..5000) {
            let mut trend = Trend::default();
            (1..=n).for_each(|epoch| trend.push(epoch, 1.0 / epoch as f64));
            prop_assert!(trend.points.len() <= KEPT);
            prop_assert_eq!(trend.last(), Some(1.0 / n as f64));
            prop_assert!(trend.points.is_sorted());
        }
    }
}
