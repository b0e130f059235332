//! Who learns of what happens in a run: the display, the files of figures, TensorBoard, and whoever a user of the library adds.

#[cfg(feature = "cli")]
mod display;
mod epochs;
mod evaluations;
mod steps;
mod tensorboard;

#[cfg(feature = "cli")]
pub use display::Display;
pub(crate) use epochs::{EpochLog, Header};
pub use evaluations::EVALUATIONS_FILE;
pub(crate) use evaluations::EvaluationLog;
pub use steps::STEPS_FILE;
pub(crate) use steps::StepLog;
pub(crate) use tensorboard::TensorBoard;

use super::event::Event;
use crate::{Error, Result};
use std::collections::BTreeSet;

/// Somebody who is told of what happens in a run.
///
/// ```
/// use nextscale::Result;
/// use nextscale::run::{Event, Observer};
///
/// /// Keeps the loss of every step.
/// struct Losses(Vec<f64>);
///
/// impl Observer for Losses {
///     fn see(&mut self, event: &Event<'_>) -> Result<()> {
///         if let Event::Step(step) = event {
///             self.0.extend(step.metrics.get("loss"));
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait Observer {
    /// Takes an event in.
    ///
    /// # Errors
    /// What kept it from that, such as a full disk: the run warns once and goes on.
    fn see(&mut self, event: &Event<'_>) -> Result<()>;
}

/// All observers of a run.
#[derive(Default)]
pub(crate) struct Observers {
    list: Vec<Box<dyn Observer>>,
    /// Those that have failed, by their places in the list: each is told of once.
    faults: BTreeSet<usize>,
}

impl Observers {
    /// Those that a user of the library gives, a display among them: before the logs, so that what these warn of is seen.
    pub(crate) fn new(given: Vec<Box<dyn Observer>>) -> Self {
        Self {
            list: given,
            ..Self::default()
        }
    }

    pub(crate) fn add(&mut self, observer: impl Observer + 'static) {
        self.list.push(Box::new(observer));
    }

    /// Tells everybody, in the order in which they came.
    pub(crate) fn tell(&mut self, event: Event<'_>) {
        let mut warnings = Vec::new();
        for (place, observer) in self.list.iter_mut().enumerate() {
            let Err(e) = observer.see(&event) else {
                continue;
            };
            if self.faults.insert(place) {
                warnings.push(format!(
                    "{e}; the run goes on, but what this log should hold may be lost"
                ));
            }
        }
        for warning in warnings {
            self.warn(&warning);
        }
    }

    /// Something to know.
    pub(crate) fn note(&mut self, line: &str) {
        self.tell(Event::Note(line));
    }

    /// Advice for whoever chose images and options.
    pub(crate) fn remark(&mut self, line: &str) {
        self.tell(Event::Remark(line));
    }

    /// Something that must not be missed.
    pub(crate) fn warn(&mut self, line: &str) {
        self.tell(Event::Warning(line));
    }

    /// Takes what came of making a picture; where the models' numbers make none, says so.
    ///
    /// # Errors
    /// Every other one: of files, of the device, and a stop.
    pub(crate) fn picture<T>(&mut self, made: Result<T>) -> Result<Option<T>> {
        use nextscale_tensor::Error::NotNumbers;
        match made {
            Err(e @ (Error::Failed(_) | Error::Tensor(NotNumbers { .. }))) => {
                self.warn(&format!("{e}; the run goes on without this picture"));
                Ok(None)
            }
            other => other.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// Takes warnings down.
    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<String>>>);

    impl Observer for Paper {
        fn see(&mut self, event: &Event<'_>) -> Result<()> {
            if let Event::Warning(line) = event {
                self.0.lock().unwrap().push((*line).to_owned());
            }
            Ok(())
        }
    }

    /// A log on a full disk.
    struct Full(&'static str);

    impl Observer for Full {
        fn see(&mut self, _: &Event<'_>) -> Result<()> {
            Err(Error::io(self.0)(std::io::ErrorKind::StorageFull.into()))
        }
    }

    fn observers() -> (Observers, Paper) {
        let (mut observers, paper) = (Observers::default(), Paper::default());
        observers.add(paper.clone());
        (observers, paper)
    }

    #[test]
    fn every_log_that_fails_is_told_once() {
        let (mut observers, paper) = observers();
        observers.add(Full("steps.jsonl"));
        observers.add(Full("log.txt"));
        observers.tell(Event::Saving);
        observers.note("more");
        let lines = paper.0.lock().unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].starts_with("steps.jsonl: ") && lines[0].contains("the run goes on"));
        assert!(lines[1].starts_with("log.txt: "));
    }

    #[test]
    fn a_picture_of_no_numbers_is_told_and_other_faults_go_on() {
        let (mut observers, paper) = observers();
        let mut made = |result: Result<u8>| observers.picture(result);
        assert_eq!(made(Ok(7)).unwrap(), Some(7));
        let none = nextscale_tensor::Error::NotNumbers {
            what: "values",
            bad: 1,
            of: 2,
        };
        assert_eq!(made(Err(none.into())).unwrap(), None);
        assert_eq!(made(Err(Error::failed("logits"))).unwrap(), None);
        assert!(matches!(made(Err(Error::Stopped)), Err(Error::Stopped)));
        assert!(made(Err(Error::input("image"))).is_err());
        let full = nextscale_tensor::Error::Memory("full".into());
        assert!(made(Err(full.into())).unwrap_err().is_memory());
        let lines = paper.0.lock().unwrap();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[0].contains("1 of 2 values") && lines[0].contains("without this picture"));
    }
}
