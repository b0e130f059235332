//! How a run's evaluations went, in words: whether it still learns, has learnt what it can, or learns its images by heart.

use serde::{Deserialize, Serialize};

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

    /// What validation losses say, where there are some: `chance` is the loss of a model that knows nothing, the logarithm of the
    /// number of codes. Options are named in backticks.
    pub fn of_losses(&self, chance: f64) -> Option<String> {
        let last = self.last()?;
        let head = format!("validation loss {last:.2}, chance {chance:.2}");
        if last >= HARDLY * chance {
            return Some(format!(
                "{head}: hardly better than chance; train for longer (`ep`) or with a higher learning rate (`tblr`)"
            ));
        }
        let best = self
            .points
            .iter()
            .copied()
            .min_by(|a, b| a.1.total_cmp(&b.1))?;
        if last > best.1 * (1.0 + RISEN) {
            return Some(format!(
                "{head}, rising since epoch {} ({:.2}): overfitting; more images, `hflip`=1 or fewer epochs (`ep`={}) would help",
                best.0, best.1, best.0
            ));
        }
        Some(match self.before() {
            None => head,
            Some(before) if before - last > NOTICED * last => {
                format!("{head}, still falling: more epochs would help (`ep`)")
            }
            Some(_) => format!(
                "{head}, no longer falling: a deeper model (`depth`) or more images would help more than epochs"
            ),
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
        let says = |losses: &[f64]| trend(losses).of_losses(5.55).unwrap();
        assert_eq!(trend(&[]).of_losses(5.55), None);
        assert_eq!(says(&[4.41]), "validation loss 4.41, chance 5.55");
        assert!(says(&[5.2, 4.8, 4.6, 4.41]).contains("still falling"));
        assert!(says(&[5.2, 4.42, 4.41, 4.41]).contains("no longer falling"));
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
