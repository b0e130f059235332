//! What happens in a run, told to its observers.

use super::Outcome;
use std::borrow::Cow;
use std::path::Path;
use std::time::Duration;

/// One figure by its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its value; `None` where it is not known.
    pub value: Option<f64>,
}

/// Figures in the order in which they are shown and written.
///
/// ```
/// use nextscale::run::Metrics;
///
/// let metrics = Metrics::new().with("loss", 2.5).with("loss_scale", None);
/// assert_eq!(metrics.get("loss"), Some(2.5));
/// assert_eq!(metrics.get("loss_scale"), None);
/// assert_eq!(metrics.iter().count(), 2);
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Metrics(Vec<Metric>);

impl Metrics {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// These and one more.
    #[must_use]
    pub fn with(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Option<f64>>,
    ) -> Self {
        self.push(name, value);
        self
    }

    /// Adds one at the end.
    pub fn push(&mut self, name: impl Into<Cow<'static, str>>, value: impl Into<Option<f64>>) {
        self.0.push(Metric {
            name: name.into(),
            value: value.into(),
        });
    }

    /// The value of a name, where it is known.
    pub fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|m| m.name == name)?.value
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Metric> {
        self.0.iter()
    }

    /// Names and values of those that are known.
    pub fn known(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0
            .iter()
            .filter_map(|m| Some((m.name.as_ref(), m.value?)))
    }
}

/// What happens in a run. A run counts iterations, each of which takes one batch, and steps: updates of the weights, each of which
/// ends one or more iterations.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The run begins or goes on.
    Started(Started<'a>),
    /// An iteration was made.
    Iteration(Iteration<'a>),
    /// A step was made.
    Step(Step<'a>),
    /// An epoch has ended.
    Epoch(Epoch<'a>),
    /// An evaluation goes on.
    Evaluating {
        /// Validation images of this process that were seen.
        done: usize,
        /// All of them.
        of: usize,
    },
    /// The model was evaluated.
    Evaluated(Evaluated<'a>),
    /// A picture of what the model can do.
    Picture(Picture<'a>),
    /// A checkpoint will be written: whoever writes files that a run goes on with brings them to the disk now.
    Saving,
    /// A checkpoint was written.
    Saved {
        /// Steps done.
        step: u64,
        /// The file.
        path: &'a Path,
    },
    /// Something to know.
    Note(&'a str),
    /// Advice for whoever chose the images and the options: what the images are like, what was made to fit the machine, whether the run
    /// is too short. A program that chooses them itself has its own words for it.
    Remark(&'a str),
    /// Something that must not be missed.
    Warning(&'a str),
    /// The run has ended, or was stopped and saved. A run that ends by an error sends no such event.
    Finished(&'a Outcome),
}

/// How a run begins.
#[derive(Clone, Copy, Debug)]
pub struct Started<'a> {
    /// Steps of the whole run.
    pub steps: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Steps done before.
    pub done: u64,
    /// Iterations done before.
    pub iteration: u64,
    /// The options, as text for a person.
    pub options: &'a str,
}

/// What an iteration found.
#[derive(Clone, Copy, Debug)]
pub struct Iteration<'a> {
    /// The number of the iteration, from 0.
    pub number: u64,
    /// The number of the step that it ends, from 1.
    pub step: Option<u64>,
    /// Figures under their names in TensorBoard.
    pub scalars: &'a Metrics,
}

/// What a step found.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// Steps done, this one included.
    pub number: u64,
    /// The epoch, from 1.
    pub epoch: u64,
    /// Figures: `loss` first, `grad_norm`, `lr`, `wd` and `loss_scale` last, between them what the trainer measures.
    pub metrics: &'a Metrics,
    /// Images of the step, over all processes.
    pub images: u64,
    /// Seconds that it took, waiting included.
    pub seconds: f64,
    /// Seconds of them spent waiting for images.
    pub data_seconds: f64,
    /// Time that the rest of the run will take, once it is known.
    pub remaining: Option<Duration>,
}

/// What an epoch adds up to.
#[derive(Clone, Copy, Debug)]
pub struct Epoch<'a> {
    /// Epochs done, this one included.
    pub number: u64,
    /// Epochs of the whole run.
    pub epochs: u64,
    /// Iterations of an epoch.
    pub iterations: u64,
    /// How many of them were made: fewer where the run ends within it.
    pub made: u64,
    /// Figures, those of an evaluation included.
    pub metrics: &'a Metrics,
    /// Figures under their names in TensorBoard.
    pub scalars: &'a Metrics,
    /// Time that the rest of the run will take, once it is known.
    pub remaining: Option<Duration>,
}

/// What an evaluation found.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated<'a> {
    /// Iterations done.
    pub iteration: u64,
    /// Figures.
    pub metrics: &'a Metrics,
    /// Figures under their names in TensorBoard.
    pub scalars: &'a Metrics,
    /// In words.
    pub text: &'a str,
}

/// A picture.
#[derive(Clone, Copy, Debug)]
pub struct Picture<'a> {
    /// The place among its like: the epoch, or the iterations done.
    pub at: u64,
    /// What it shows.
    pub name: &'a str,
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Three bytes a pixel, row by row.
    pub rgb: &'a [u8],
}
