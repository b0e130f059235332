//! The loop of a run, whatever it trains: iterations, whose reports are read one behind where the device works by itself; epochs and
//! evaluations; when the state is saved.

mod saving;

use super::checkpoints::{Keeper, Then};
use super::clock::{Pace, StepClock};
use super::event::{Event, Iteration, Started, Step};
use super::observers::Observers;
use super::opening;
use super::task::{Context, Progress, Report, Task};
use super::val_check::ValCheck;
use super::{Outcome, not_a_number, stopped};
use crate::memory::caught;
use crate::text::counted;
use crate::train::loss_scale;
use crate::{Error, Result, world};
use nextscale_tensor::cpu::pool::release_free;
use nextscale_tensor::ops::Scaling;
use std::time::Duration;

/// When what happens in a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cadence {
    /// Iterations of an epoch.
    pub(super) its_per_epoch: u64,
    /// Iterations of the run.
    pub(super) max_it: u64,
    /// Epochs of the run.
    pub(super) epochs: u64,
    /// Iterations of a step.
    pub(super) accumulate: u64,
    /// Evaluations come every so many epochs, and at the end.
    pub(super) eval_every: u64,
    /// Saves come every so many steps, beside those of evaluations; 0 for none.
    pub(super) save_every: u64,
    /// Steps after which the run ends before its end.
    pub(super) stop_after: Option<u64>,
}

impl Cadence {
    /// Whether after `it` iterations an epoch, or the run, has ended.
    fn ends(&self, it: u64) -> bool {
        it.is_multiple_of(self.its_per_epoch) || it == self.max_it
    }

    /// Whether an evaluation comes after `it` iterations.
    fn evaluates(&self, it: u64) -> bool {
        let epoch = it / self.its_per_epoch;
        let whole = it.is_multiple_of(self.its_per_epoch);
        it == self.max_it || whole && epoch.is_multiple_of(self.eval_every)
    }

    /// Whether `save_every` asks for a checkpoint after `it` iterations.
    fn saves(&self, it: u64) -> bool {
        self.save_every > 0
            && it.is_multiple_of(self.accumulate)
            && (it / self.accumulate).is_multiple_of(self.save_every)
    }
}

/// An iteration whose report was not read yet.
struct InFlight<P> {
    pending: P,
    it: u64,
    update: bool,
    /// Images of the step that it ends.
    images: u64,
}

/// A run that goes on.
pub(super) struct Driver<T: Task> {
    task: T,
    cadence: Cadence,
    progress: Progress,
    cx: Context,
    keeper: Keeper,
    /// Whether reports are read one iteration behind, so that nobody waits for the device.
    pipelined: bool,
    in_flight: Option<InFlight<T::Pending>>,
    /// Where the last whole step has left the run, once its report was read.
    whole: Option<(Progress, T::State)>,
    /// Updates that the optimizer has made by the reports that were read.
    updates_made: u64,
    /// The loss scale before the next report.
    scaler: Option<Scaling>,
    /// Whether a stop was asked for, of any process.
    stopping: bool,
    /// Images since the last step.
    images: u64,
    clock: StepClock,
    pace: Pace,
    /// Whether it was looked at how long the run takes.
    length_is_told: bool,
    /// Until the first evaluation.
    val_check: Option<ValCheck>,
}

/// What a run begins with.
pub(super) struct Start<T> {
    pub(super) task: T,
    pub(super) cadence: Cadence,
    pub(super) progress: Progress,
    pub(super) cx: Context,
    pub(super) keeper: Keeper,
    /// Whether reports are read one iteration behind, so that nobody waits for the device.
    pub(super) pipelined: bool,
    pub(super) scaler: Option<Scaling>,
    pub(super) val_check: Option<ValCheck>,
}

impl<T: Task> Driver<T> {
    /// A run that begins, or goes on from a checkpoint.
    ///
    /// # Errors
    /// When the device failed.
    pub(super) fn new(start: Start<T>) -> Result<Self> {
        Ok(Self {
            updates_made: start.task.updates()?,
            task: start.task,
            cadence: start.cadence,
            progress: start.progress,
            cx: start.cx,
            keeper: start.keeper,
            pipelined: start.pipelined,
            in_flight: None,
            whole: None,
            scaler: start.scaler,
            stopping: false,
            images: 0,
            clock: StepClock::new(Duration::ZERO),
            pace: Pace::default(),
            length_is_told: false,
            val_check: start.val_check,
        })
    }

    /// Trains up to the end, the step limit or a stop signal; whatever ends that, the state of the last whole step is saved.
    pub(super) fn run(mut self) -> Result<Outcome> {
        match caught(|| self.train()) {
            // Only what comes after a save is left in its middle.
            Ok(()) | Err(Error::Stopped) => {}
            Err(e) => {
                self.told_of_images();
                let e = self.task.explain(e);
                let e = self.rescue(e);
                // Before anything is let go: what waits for the others on a GPU ends so.
                self.cx.team.world.leave(&e.to_string());
                return Err(e);
            }
        }
        if self.keeper.unsaved {
            let saved = self.save(Then::Ends);
            saved.map_err(|e| self.keeper.lost(self.progress.it, e))?;
        }
        self.cx.team.stop.set_unsaved(false);
        self.told_of_images();
        let outcome = self.outcome();
        self.cx.observers.tell(Event::Finished(&outcome));
        Ok(outcome)
    }

    /// Steps done.
    fn steps(&self) -> u64 {
        self.progress.it / self.cadence.accumulate
    }

    /// Whether the run is to end here before its end: after a whole step only.
    fn is_to_stop(&self) -> bool {
        let limit = self.cadence.stop_after.unwrap_or(u64::MAX);
        self.progress.it.is_multiple_of(self.cadence.accumulate)
            && (self.steps() >= limit || self.stopping || self.is_alone_and_asked())
    }

    /// One process hears a stop at once; several agree on it first.
    fn is_alone_and_asked(&self) -> bool {
        self.cx.team.world.size() == 1 && self.cx.team.stop.is_asked()
    }

    fn train(&mut self) -> Result<()> {
        self.task.open(self.progress.it)?;
        if self.epoch_is_open() {
            self.end_epoch()?;
        }
        self.clock = StepClock::new(self.task.waited());
        self.stopping = self.cx.team.is_stop_asked()?;
        while self.progress.it < self.cadence.max_it && !self.is_to_stop() {
            self.iteration()?;
            self.stopping |= self.cx.team.is_stop_asked()?;
            self.told_of_images();
            let it = self.progress.it;
            let (ends, evaluates) = (self.cadence.ends(it), self.cadence.evaluates(it));
            if ends {
                self.drain()?;
                self.end_epoch()?;
            }
            // An evaluation saves anyway, and so does a stop.
            let due = self.cadence.saves(it) && !evaluates && !self.is_to_stop();
            if due && self.keeper.unsaved {
                self.drain()?;
                self.save(Then::GoesOn)?;
            }
            if ends || due {
                self.clock.restart(self.task.waited());
                // Within a step: images before the clock's start are none of its time.
                self.images = 0;
            }
        }
        self.drain()?;
        let own = self.task.bad_images().into_iter().map(|b| b.reason);
        let bad = world::of_all(&self.cx.team.world, own.collect::<Vec<_>>())?.concat();
        if !bad.is_empty() {
            let count = bad.len();
            self.cx.observers.warn(&format!(
                "{} could not be read, and others took their place:",
                counted(count, "image", "images")
            ));
            bad.iter().for_each(|reason| self.cx.observers.warn(reason));
        }
        Ok(())
    }

    fn iteration(&mut self) -> Result<()> {
        let it = self.progress.it;
        if self.task.looks_back(it) {
            self.drain()?;
        }
        let update = (it + 1).is_multiple_of(self.cadence.accumulate);
        let (pending, images) = self.task.launch(it, update, &mut self.cx)?;
        // Every process has as many.
        self.images += images * self.cx.team.world.size() as u64;
        self.progress.it += 1;
        self.keeper.unsaved = true;
        // Before anybody is told of it: what was told must not be lost.
        self.cx.team.stop.set_unsaved(true);
        let launched = InFlight {
            pending,
            it,
            update,
            images: if update {
                std::mem::take(&mut self.images)
            } else {
                0
            },
        };
        if let Some(previous) = self.in_flight.replace(launched) {
            self.record(previous)?;
        }
        if !self.pipelined {
            self.drain()?;
        }
        Ok(())
    }

    /// Reads the report that is still out, so that logs and checkpoints know of every iteration.
    fn drain(&mut self) -> Result<()> {
        match self.in_flight.take() {
            Some(in_flight) => self.record(in_flight),
            None => Ok(()),
        }
    }

    /// Takes an iteration's report in and tells of it.
    fn record(&mut self, in_flight: InFlight<T::Pending>) -> Result<()> {
        let InFlight { it, update, .. } = in_flight;
        let scale = self.scaler.map(|s| s.scale);
        let report = self.task.read(in_flight.pending, scale)?;
        let norm = report.grad_norm.filter(|_| !report.skipped);
        let at = format_args!("{} {it}", T::ITERATION);
        if let Some(what) = not_a_number(report.loss, norm, at) {
            return Err(self.keeper.diverged(&what));
        }
        let number = update.then(|| (it + 1) / self.cadence.accumulate);
        self.cx.observers.tell(Event::Iteration(Iteration {
            number: it,
            step: number,
            scalars: &report.scalars,
        }));
        let Some(number) = number else { return Ok(()) };
        self.updates_made += u64::from(!report.skipped);
        let progress = Progress {
            it: it + 1,
            ..self.progress.clone()
        };
        self.whole = Some((progress, self.task.state()));
        if let Some(s) = &mut self.scaler {
            s.scale = report.scale;
            loss_scale::check(s)?;
        }
        self.tell_of_step(it, number, in_flight.images, &report);
        Ok(())
    }

    fn tell_of_step(&mut self, it: u64, number: u64, images: u64, report: &Report) {
        let time = self.clock.lap(self.task.waited(), images);
        self.pace.push(time.seconds);
        // Once it can be known; a GPU's runs have plans for it.
        if !self.pipelined
            && !self.length_is_told
            && let Some(remaining) = self.remaining(number)
        {
            self.length_is_told = true;
            let line = opening::long_warning(remaining);
            line.iter().for_each(|line| self.cx.observers.remark(line));
        }
        self.cx.observers.tell(Event::Step(Step {
            number,
            epoch: it / self.cadence.its_per_epoch + 1,
            metrics: &report.metrics,
            images: time.images,
            seconds: time.seconds,
            data_seconds: time.data_seconds,
            remaining: self.remaining(number),
        }));
    }

    /// Time that the steps after `done` will take.
    fn remaining(&self, done: u64) -> Option<Duration> {
        let all = self.cadence.max_it / self.cadence.accumulate;
        self.pace.remaining(all.saturating_sub(done))
    }

    /// Whether what comes after the last iteration is still to be done.
    fn epoch_is_open(&self) -> bool {
        self.progress.evaluation_due || self.task.epoch_is_open(&self.progress)
    }

    /// What comes at an epoch's end. An evaluation begins with a save that holds word of it: a run that ends before the next save makes
    /// the evaluation again.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a stop was asked for before or during the evaluation.
    fn end_epoch(&mut self) -> Result<()> {
        let it = self.progress.it;
        self.cx.at_end = it >= self.cadence.max_it;
        let evaluates = self.progress.evaluation_due || self.cadence.evaluates(it);
        let mut evaluation = None;
        if evaluates {
            self.progress.evaluation_due = true;
            if self.keeper.unsaved {
                self.save(Then::GoesOn)?;
            }
            let ready = self.cx.team.stop.check();
            let ready = ready.and_then(|()| match self.val_check.take() {
                Some(check) => check.wait(&mut self.cx),
                None => Ok(()),
            });
            self.cx.team.agree(ready)?;
            release_free();
            self.task.exchange()?;
            let found = caught(|| self.task.evaluate(&self.progress, &mut self.cx));
            // Back before anything else, whatever came of it. Where processes have shares all have to go back, and one that failed is
            // alone with that.
            let is_parted = self.task.is_shared()
                && found.as_ref().is_err_and(|e| !matches!(e, Error::Stopped));
            let back = match is_parted {
                true => Ok(()),
                false => self.task.exchange(),
            };
            evaluation = Some(found?);
            back?;
            self.progress.evaluation_due = false;
        }
        self.cx.remaining = self.remaining(self.steps());
        self.keeper.unsaved = true;
        self.task
            .end_epoch(&self.progress, evaluation, &mut self.cx)?;
        if evaluates {
            self.save(Then::GoesOn)?;
        }
        Ok(())
    }

    /// Tells what was found of the validation images so far.
    fn told_of_images(&mut self) {
        if let Some(check) = &self.val_check {
            check.tell(&mut self.cx.observers);
        }
    }

    fn outcome(&self) -> Outcome {
        let steps = self.steps();
        let checkpoint = self.keeper.last().to_path_buf();
        let complete = self.progress.it >= self.cadence.max_it && !self.epoch_is_open();
        let (exit_code, message) = if complete {
            (0, self.task.done(steps, &checkpoint))
        } else {
            let saved = self.keeper.holds(0).then_some(checkpoint.as_path());
            stopped(steps, &self.cx.team.stop, self.cadence.stop_after, saved)
        };
        Outcome {
            steps,
            complete,
            exit_code,
            checkpoint,
            message,
        }
    }
}

/// Tells the first things of a run.
pub(super) fn begin(cadence: &Cadence, it: u64, options: &str, observers: &mut Observers) {
    observers.tell(Event::Started(Started {
        steps: cadence.max_it / cadence.accumulate,
        epochs: cadence.epochs,
        done: it / cadence.accumulate,
        iteration: it,
        options,
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cadence(its_per_epoch: u64, max_it: u64) -> Cadence {
        Cadence {
            its_per_epoch,
            max_it,
            epochs: max_it.div_ceil(its_per_epoch),
            accumulate: 2,
            eval_every: 2,
            save_every: 3,
            stop_after: None,
        }
    }

    #[test]
    fn evaluations_come_every_so_many_epochs_and_at_the_end() {
        let all = |c: Cadence, of: fn(&Cadence, u64) -> bool| {
            let its = 1..=c.max_it;
            its.filter(|&it| of(&c, it)).collect::<Vec<_>>()
        };
        assert_eq!(all(cadence(4, 20), Cadence::evaluates), [8, 16, 20]);
        assert_eq!(all(cadence(4, 20), Cadence::ends), [4, 8, 12, 16, 20]);
        // A run that ends within an epoch.
        assert_eq!(all(cadence(4, 10), Cadence::evaluates), [8, 10]);
        assert_eq!(all(cadence(4, 10), Cadence::ends), [4, 8, 10]);
        assert_eq!(all(cadence(4, 20), Cadence::saves), [6, 12, 18]);
        let never = Cadence {
            eval_every: 0,
            save_every: 0,
            ..cadence(4, 20)
        };
        assert_eq!(all(never, Cadence::evaluates), [20]);
        assert!(all(never, Cadence::saves).is_empty());
    }
}
