//! For how long a classifier is trained.

use crate::Result;
use crate::log::clock::format_duration;
use crate::options::check;
use crate::text::counted;
use std::time::Duration;

/// Training images that are seen in all where nothing else is asked for: enough for classes of clothing to be told apart as well as such
/// a network can.
const SEEN: u64 = 800_000;
/// Epochs then, at least and at most: beyond the latter images are known by heart.
const EPOCHS: [u64; 2] = [5, 60];
/// Steps then, at least.
const FEWEST: u64 = 300;
/// Minutes that this may take.
const MINUTES: f64 = 20.0;
/// The share of the time that is left for whatever takes longer than it did at first.
const REST: f64 = 0.05;
/// An evaluation's time for an image as a share of a training step's.
const EVALUATED: f64 = 0.35;
/// Rounds at most: each ends with an evaluation and a line.
const ROUNDS: u64 = 40;
/// Images of such an evaluation, at most.
const JUDGED: usize = 5000;
/// Steps at most, so that they can be counted.
const MOST: u64 = 1 << 40;

/// For how long.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Length {
    /// As many epochs as go with the number of images, but no longer than twenty minutes.
    #[default]
    Usual,
    /// Passes over the images.
    Epochs(u64),
    /// Steps.
    Steps(u64),
    /// As many steps as fit into so many minutes.
    Minutes(f64),
}

/// Images of a step and what there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Images {
    pub(super) batch: usize,
    pub(super) train: usize,
    pub(super) val: usize,
}

impl Images {
    /// Steps of an epoch.
    pub(super) fn its(self) -> u64 {
        (self.train.div_ceil(self.batch.max(1)) as u64).max(1)
    }

    /// Images to validate with after a round: few beside those that were trained on.
    pub(super) fn judged(self) -> usize {
        self.val.min(JUDGED).min((self.train / 5).max(200))
    }
}

/// The length of a training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) steps: u64,
    /// Seconds of a step, where they were timed.
    pub(super) seconds: Option<f64>,
    /// Whether there would be more steps if they took less time.
    pub(super) cut: bool,
}

impl Length {
    pub(super) fn check(self) -> Result<()> {
        let (flag, value) = match self {
            Self::Usual => return Ok(()),
            Self::Minutes(minutes) => {
                let good = minutes.is_finite() && minutes > 0.0;
                return check::that(good, "minutes", minutes, "it must be more than 0");
            }
            Self::Epochs(n) => ("ep", n),
            Self::Steps(n) => ("steps", n),
        };
        let needed = format!("it must be from 1 to {MOST}");
        check::that((1..=MOST).contains(&value), flag, value, &needed)
    }

    /// The length for these images; `time` says how many seconds a step takes, and is asked where that matters.
    ///
    /// # Errors
    /// What `time` returns.
    pub(super) fn steps(self, images: Images, time: impl FnOnce() -> Result<f64>) -> Result<Plan> {
        let exactly = |steps| Plan {
            steps,
            seconds: None,
            cut: false,
        };
        match self {
            Self::Steps(steps) => Ok(exactly(steps)),
            Self::Epochs(epochs) => Ok(exactly(epochs.saturating_mul(images.its()).min(MOST))),
            Self::Minutes(minutes) => Ok(within(minutes, time()?, images, u64::MAX)),
            Self::Usual => Ok(within(MINUTES, time()?, images, usual(images))),
        }
    }
}

/// The steps that go with so many images.
fn usual(images: Images) -> u64 {
    let epochs = (SEEN / (images.train as u64).max(1)).clamp(EPOCHS[0], EPOCHS[1]);
    (epochs * images.its()).max(FEWEST)
}

/// As many steps of `step` seconds as fit into the time, `most` at most.
fn within(minutes: f64, step: f64, images: Images, most: u64) -> Plan {
    let each = step.max(1e-9);
    let of_image = EVALUATED * each / images.batch.max(1) as f64;
    let last = of_image * images.val as f64;
    let left = (60.0 * minutes * (1.0 - REST) - last).max(0.0);
    // Evaluations between: their share of an epoch's time.
    let epoch = images.its() as f64 * each;
    let beside = 1.0 + of_image * images.judged() as f64 / epoch;
    let fit = (left / (each * beside)).clamp(1.0, MOST as f64) as u64;
    Plan {
        steps: fit.min(most),
        seconds: Some(each),
        cut: fit < most && most < u64::MAX,
    }
}

impl Plan {
    /// Epochs that are begun.
    pub(super) fn epochs(self, images: Images) -> u64 {
        self.steps.div_ceil(images.its())
    }

    /// Steps of a round: whole epochs, one or more.
    pub(super) fn every(self, images: Images) -> u64 {
        self.epochs(images).div_ceil(ROUNDS).max(1) * images.its()
    }

    /// In words.
    pub(super) fn words(self, images: Images) -> String {
        let epochs = self.steps as f64 / images.its() as f64;
        let time = self.seconds.map_or_else(String::new, |s| {
            let about = format_duration(Duration::from_secs_f64(s * self.steps as f64));
            let why = if self.cut { ", cut to the time" } else { "" };
            format!(", about {about}{why}")
        });
        format!(
            "{} of {} ({epochs:.1} epochs){time}",
            counted(self.steps, "step", "steps"),
            counted(images.batch, "image", "images"),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLOTHING: Images = Images {
        batch: 64,
        train: 60_000,
        val: 10_000,
    };

    #[test]
    fn more_images_are_seen_less_often() {
        let epochs = |train| {
            let images = Images { train, ..CLOTHING };
            usual(images) / images.its()
        };
        assert_eq!(epochs(60_000), 13);
        assert_eq!(epochs(2_000), 60);
        assert_eq!(epochs(1_281_167), 5);
        let few = Images {
            train: 20,
            ..CLOTHING
        };
        assert_eq!(usual(few), FEWEST);
    }

    #[test]
    fn what_is_given_is_done_and_time_is_kept() {
        let time = |_: ()| -> Result<f64> { panic!("nothing is to be timed") };
        let of = |length: Length| length.steps(CLOTHING, || time(())).unwrap();
        assert_eq!(of(Length::Steps(7)).steps, 7);
        let two = of(Length::Epochs(2));
        assert_eq!((two.steps, two.epochs(CLOTHING)), (2 * 938, 2));
        assert_eq!(two.every(CLOTHING), 938);
        assert_eq!(two.words(CLOTHING), "1876 steps of 64 images (2.0 epochs)");
        for (minutes, step) in [(1.0, 0.1), (10.0, 0.01), (3.0, 0.5)] {
            let plan = Length::Minutes(minutes)
                .steps(CLOTHING, || Ok(step))
                .unwrap();
            let image = EVALUATED * step / 64.0;
            let rounds = plan.steps as f64 / 938.0;
            let whole = plan.steps as f64 * step
                + image * 10_000.0
                + rounds * image * CLOTHING.judged() as f64;
            assert!(whole <= 60.0 * minutes, "{minutes}: {whole}");
            assert!(
                whole >= 0.9 * 60.0 * minutes || plan.steps == 1,
                "{minutes}: {whole}"
            );
        }
        // Even where nothing fits there is a step.
        let none = Length::Minutes(0.001).steps(CLOTHING, || Ok(5.0)).unwrap();
        assert_eq!(none.steps, 1);
    }

    #[test]
    fn the_usual_is_cut_to_its_time_and_says_so() {
        let fast = Length::Usual.steps(CLOTHING, || Ok(1e-3)).unwrap();
        assert_eq!((fast.steps, fast.cut), (13 * 938, false));
        let slow = Length::Usual.steps(CLOTHING, || Ok(1.0)).unwrap();
        assert!(slow.cut && slow.steps < 1200, "{slow:?}");
        assert!(slow.words(CLOTHING).ends_with("cut to the time"));
    }

    #[test]
    fn rounds_are_few() {
        let few = Images {
            batch: 64,
            train: 100,
            val: 5,
        };
        let plan = Length::Usual.steps(few, || Ok(0.01)).unwrap();
        assert_eq!(plan.steps, 300);
        assert!(plan.steps.div_ceil(plan.every(few)) <= ROUNDS);
    }

    #[test]
    fn lengths_that_are_none_are_refused() {
        for (length, told) in [
            (Length::Steps(0), "`steps`=0: "),
            (Length::Epochs(0), "`ep`=0: "),
            (Length::Epochs(u64::MAX), "`ep`="),
            (Length::Minutes(0.0), "`minutes`=0: "),
            (Length::Minutes(f64::NAN), "`minutes`=NaN: "),
        ] {
            let text = length.check().unwrap_err().to_string();
            assert!(text.starts_with(told), "{text}");
        }
        assert!(Length::Usual.check().is_ok() && Length::Minutes(0.5).check().is_ok());
    }
}
