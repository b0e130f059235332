//! How many steps fit into a time.

/// The tokenizer's share of the time: pictures can't become better than it gives them back.
const TOKENIZER: f64 = 0.42;
/// The share of the time that is left for reconstructions, samples and whatever takes longer than it did at first.
const REST: f64 = 0.08;
/// The transformer's share of the time at least.
const LEAST: f64 = 0.2;
/// Evaluations during a training.
const EVALUATIONS: u64 = 5;
/// An evaluation's time for an image as a share of a training step's.
const EVALUATED: f64 = 0.4;
/// Images that are drawn in an evaluation, in images of a training step.
const DRAWN: f64 = 24.0;

/// A training: its steps, and after how many epochs it is evaluated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Length {
    pub(super) steps: u64,
    pub(super) eval_every: u64,
}

/// Images of a step and what there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Images {
    pub(super) batch: usize,
    pub(super) train: usize,
    pub(super) val: usize,
}

/// The length of a training of `seconds` in which a step takes `step` seconds.
pub(super) fn length(seconds: f64, step: f64, images: Images) -> Length {
    let batch = images.batch.max(1) as f64;
    let evaluation = step * (images.val as f64 * EVALUATED + DRAWN) / batch;
    // Evaluations of a large folder must not take the run's time.
    let affordable = (0.15 * seconds / evaluation.max(1e-9)) as u64;
    let evaluations = affordable.clamp(1, EVALUATIONS);
    let left = seconds - evaluations as f64 * evaluation;
    let steps = (left / step.max(1e-9)).max(20.0) as u64;
    // A number that can be written down.
    let steps = match steps {
        ..200 => steps,
        200..2000 => steps / 10 * 10,
        _ => steps / 100 * 100,
    };
    let epochs = steps.div_ceil((images.train.div_ceil(images.batch.max(1)) as u64).max(1));
    Length {
        steps,
        eval_every: match evaluations {
            1 => 0,
            n => epochs.div_ceil(n).max(1),
        },
    }
}

/// The same with so many epochs at most.
pub(super) fn at_most(epochs: u64, length: Length, images: Images) -> Length {
    let its = (images.train.div_ceil(images.batch.max(1)) as u64).max(1);
    if length.steps <= epochs * its {
        return length;
    }
    Length {
        steps: epochs * its,
        eval_every: length.eval_every.min(epochs.div_ceil(EVALUATIONS)),
    }
}

/// Seconds of the tokenizer's training, of all.
pub(super) fn of_tokenizer(all: f64) -> f64 {
    TOKENIZER * all
}

/// Seconds of the transformer's training where so many are left of all.
///
/// Where the tokenizer took longer than it was given, as on a machine that has grown busy, there is still [`LEAST`]: without it all would
/// be for nothing.
pub(super) fn of_transformer(all: f64, left: f64) -> f64 {
    (left - REST * all).max(LEAST * all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_evaluations_fit_into_the_time() {
        let images = Images {
            batch: 32,
            train: 5000,
            val: 300,
        };
        let found = length(600.0, 0.8, images);
        // Five evaluations of 0.8 * 144 / 32 = 3.6 seconds each.
        assert_eq!(
            found,
            Length {
                steps: 720,
                eval_every: 1
            }
        );
        let many = Images {
            val: 1_000_000,
            ..images
        };
        assert_eq!(length(600.0, 0.8, many).eval_every, 0);
        assert_eq!(length(0.0, 0.8, images).steps, 20);
        let few = Images {
            train: 400,
            ..images
        };
        assert_eq!(length(600.0, 0.8, few).eval_every, 12);
        let short = at_most(10, length(600.0, 0.8, few), few);
        assert_eq!(
            short,
            Length {
                steps: 130,
                eval_every: 2
            }
        );
        assert_eq!(at_most(1000, found, images), found);
        assert!(of_tokenizer(100.0) + of_transformer(100.0, 58.0) <= 92.0 + 1e-9);
        assert_eq!(of_transformer(100.0, 5.0), 20.0);
    }
}
