//! What an epoch of a transformer's training adds up to: sums, the epoch's figures, the best checkpoint, drawn images.

use super::scoring::Scoring;
use super::tags;
use super::task::TransformerTask;
use crate::Result;
use crate::eval::Measures;
use crate::generate::{Noise, SampleOptions, Sampler};
use crate::memory::drawn;
use crate::options::Horizon;
use crate::pictures::{Picture as Picture8, labelled_rows};
use crate::run::checkpoints::is_better;
use crate::run::event::{Epoch, Evaluated, Event, Metrics, Picture};
use crate::run::task::{Context, Progress, Task};
use crate::train::report::StepReport;
use serde::{Deserialize, Serialize};

/// Real images beside those that are drawn.
const REAL: usize = 2;

/// Sums over the iterations of an epoch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EpochSums {
    iterations: u64,
    loss_mean: f64,
    acc_mean: f64,
    tails: u64,
    loss_tail: f64,
    acc_tail: f64,
    updates: u64,
    grad_norm: f64,
}

impl EpochSums {
    /// Whether they are of an epoch whose iterations are done, but not what comes at its end: the evaluation and the epoch's line.
    pub(super) fn is_open(&self, progress: &Progress, horizon: &Horizon) -> bool {
        let it = progress.it;
        let ends = it.is_multiple_of(progress.its_per_epoch) || it == horizon.max_it;
        it > 0 && ends && self.iterations > 0
    }

    pub(super) fn add(&mut self, report: &StepReport, last: usize) {
        self.iterations += 1;
        self.loss_mean += report.measures.loss_mean();
        self.acc_mean += report.measures.acc_mean();
        if let (Some(l), Some(a)) = (report.measures.loss_of(last), report.measures.acc_of(last)) {
            self.tails += 1;
            self.loss_tail += l;
            self.acc_tail += a;
        }
        if let (Some(norm), false) = (report.grad_norm, report.skipped) {
            self.updates += 1;
            self.grad_norm += norm;
        }
    }
}

fn mean(sum: f64, n: u64) -> Option<f64> {
    (n > 0).then(|| sum / n as f64)
}

impl TransformerTask {
    /// The loss of a model that knows nothing: every code is as likely.
    pub(super) fn chance(&self) -> f64 {
        (self.trainer.var.config.vocab as f64).ln()
    }

    /// Tells what an epoch adds up to, and what its evaluation found; keeps the best checkpoint.
    pub(super) fn tell_epoch(
        &mut self,
        progress: &Progress,
        val: Option<Measures>,
        cx: &mut Context,
    ) -> Result<()> {
        let iterations = self.horizon.its_per_epoch;
        let epoch = self.horizon.epochs_done(progress.it);
        let now = self.horizon.schedule.at(progress.it - 1);
        let sums = std::mem::take(&mut self.state.epoch);
        let last = self.plan.patch_nums.len() - 1;
        let val_loss_tail = val.as_ref().and_then(|m| m.loss_of(last));
        let val_acc_tail = val.as_ref().and_then(|m| m.acc_of(last));
        // Under the reference's names for log.txt and for TensorBoard.
        let figures = [
            (
                "L_mean",
                tags::EPOCH_LOSS_MEAN,
                mean(sums.loss_mean, sums.iterations),
            ),
            (
                "L_tail",
                tags::EPOCH_LOSS_TAIL,
                mean(sums.loss_tail, sums.tails),
            ),
            (
                "acc_mean",
                tags::EPOCH_ACC_MEAN,
                mean(sums.acc_mean, sums.iterations),
            ),
            (
                "acc_tail",
                tags::EPOCH_ACC_TAIL,
                mean(sums.acc_tail, sums.tails),
            ),
            (
                "vL_mean",
                tags::VAL_LOSS_MEAN,
                val.as_ref().map(Measures::loss_mean),
            ),
            ("vL_tail", tags::VAL_LOSS_TAIL, val_loss_tail),
            (
                "vacc_mean",
                tags::VAL_ACC_MEAN,
                val.as_ref().map(Measures::acc_mean),
            ),
            ("vacc_tail", tags::VAL_ACC_TAIL, val_acc_tail),
        ];
        let mut metrics = Metrics::new()
            .with("lr", now.lr)
            .with("wd", now.wd)
            .with("grad_norm", mean(sums.grad_norm, sums.updates));
        let mut scalars = Metrics::new();
        for (name, tag, value) in figures {
            metrics.push(name, value);
            scalars.push(tag, value);
        }
        if let Some(m) = &val {
            for (k, &reso) in self.plan.resolutions.iter().enumerate() {
                scalars.push(tags::val_loss_at(reso), m.loss_of(k));
            }
            scalars.push(tags::CHANCE, self.chance());
        }
        let scored = std::mem::take(&mut self.scored);
        for (name, value) in &scored {
            scalars.push(tags::score(name), *value);
        }
        let rest_hours = cx.remaining.map(|t| t.as_secs_f64() / 3600.0);
        scalars.push(tags::REST_HOURS, rest_hours);
        cx.observers.tell(Event::Epoch(Epoch {
            number: epoch,
            epochs: self.horizon.epochs,
            iterations,
            made: progress.it.saturating_sub(1) % iterations.max(1) + 1,
            metrics: &metrics,
            scalars: &scalars,
            remaining: cx.remaining,
        }));
        if let Some(m) = &val {
            let by_scale =
                (0..=last).map(|k| m.loss_of(k).map_or("-".into(), |l| format!("{l:.2}")));
            let text = format!(
                "epoch {epoch}: validation loss {:.4} (last scale {:.4}), accuracy {:.2} % ({:.2} %); chance {:.4}; by scale: {}",
                m.loss_mean(),
                val_loss_tail.unwrap_or(f64::NAN),
                m.acc_mean(),
                val_acc_tail.unwrap_or(f64::NAN),
                self.chance(),
                by_scale.collect::<Vec<_>>().join(" "),
            );
            let mut metrics = Metrics::new()
                .with("epoch", epoch as f64)
                .with("loss", m.loss_mean())
                .with("loss_tail", val_loss_tail)
                .with("accuracy", m.acc_mean())
                .with("accuracy_tail", val_acc_tail)
                .with("chance", self.chance());
            for (k, reso) in self.plan.resolutions.iter().enumerate() {
                metrics.push(format!("loss_{reso}"), m.loss_of(k));
                metrics.push(format!("accuracy_{reso}"), m.acc_of(k));
            }
            for (name, value) in &scored {
                metrics.push(name.clone(), *value);
            }
            let scores = scored
                .iter()
                .map(|(name, value)| format!("{name} {value:.4}"));
            let scores: Vec<String> = scores.collect();
            let text = match scores.is_empty() {
                true => text,
                false => format!("{text}; samples: {}", scores.join(", ")),
            };
            self.state.trend.push(epoch, m.loss_mean());
            cx.observers.tell(Event::Evaluated(Evaluated {
                iteration: progress.it,
                metrics: &metrics,
                // They are among the epoch's.
                scalars: &Metrics::new(),
                text: &text,
            }));
        }
        match val_loss_tail {
            Some(tail) => self.keep_best(progress, tail, cx),
            None => Ok(()),
        }
    }

    /// Writes the best checkpoint if the validation loss is lower than before. It comes before the last one: a run that is killed
    /// between them makes the evaluation again, and the best with it. At its end a run makes the evaluation again too, rather than be
    /// done without its best.
    fn keep_best(&mut self, progress: &Progress, tail: f64, cx: &mut Context) -> Result<()> {
        let before = self.state.best_tail;
        if !is_better(tail, before, |a, b| a < b) {
            return Ok(());
        }
        self.state.best_tail = Some(tail);
        let write = || self.save_best(progress);
        let along = || match self.is_shared() {
            true => self.save_along(progress),
            false => Ok(()),
        };
        if !cx.written(write, along, "this best checkpoint")? {
            self.state.best_tail = before;
        }
        Ok(())
    }

    /// A picture of drawn images.
    pub(super) fn show(&self, progress: &Progress, cx: &mut Context) -> Result<()> {
        let drawn = self.draw(progress, cx);
        let Some(pixels) = cx.observers.picture(drawn)?.flatten() else {
            return Ok(());
        };
        let picture = self.rows(&self.labels(), &pixels);
        cx.observers.tell(Event::Picture(Picture {
            at: self.horizon.epochs_done(progress.it),
            name: "samples",
            width: picture.width,
            height: picture.height,
            rgb: &picture.rgb,
        }));
        Ok(())
    }

    /// Draws samples and judges them, where it is time: with the average of the weights in their place, where one is kept, and with the
    /// weights of the last step too.
    pub(super) fn score(&mut self, progress: &Progress, cx: &Context) -> Result<()> {
        let epoch = self.horizon.epochs_done(progress.it);
        let at_end = progress.it == self.horizon.max_it;
        self.scored.clear();
        let Some(mut scoring) = self.scoring.take_if(|s| s.is_due(epoch, at_end)) else {
            return Ok(());
        };
        let scored = self.score_with(&mut scoring, progress, cx);
        self.scoring = Some(scoring);
        self.scored = scored?;
        Ok(())
    }

    fn score_with(
        &mut self,
        scoring: &mut Scoring,
        progress: &Progress,
        cx: &Context,
    ) -> Result<Vec<(String, f64)>> {
        let mut all = Vec::new();
        let mut now = |task: &Self, suffix: &str| -> Result<()> {
            let Some(vqvae) = task.trainer.tokenizer.whole() else {
                return Ok(());
            };
            let sampler = Sampler {
                var: &task.trainer.var,
                vqvae,
            };
            let names = task.data.class_names();
            let scores = scoring.score(sampler, names, progress.seed, &cx.team.stop)?;
            let figures = scoring.figures(&scores, suffix);
            all.extend(
                figures
                    .known()
                    .map(|(name, value)| (name.to_owned(), value)),
            );
            Ok(())
        };
        now(self, "")?;
        // Processes that have shares exchange together; this one is alone here.
        if self.options.schedule.ema.is_some() && !self.is_shared() {
            self.exchange()?;
            let raw = now(self, "_raw");
            self.exchange()?;
            raw?;
        }
        Ok(all)
    }

    /// The classes of images that are drawn.
    fn labels(&self) -> Vec<i32> {
        let classes = self.trainer.var.config.classes;
        (0..drawn(classes)).map(|i| (i % classes) as i32).collect()
    }

    /// Drawn images of these classes, a class a row, with its name and real images beside them where there are some.
    fn rows(&self, labels: &[i32], pixels: &[u8]) -> Picture8 {
        let side = self.plan.image_size;
        let (names, bytes) = (self.data.class_names(), side * side * 3);
        let classes = labels.iter().max().map_or(0, |last| last + 1);
        let rows: Vec<(&str, Vec<u8>)> = (0..classes)
            .map(|class| {
                let mut tiles = self.data.real(class as u32, REAL);
                if !tiles.is_empty() {
                    tiles.resize((REAL + 1) * bytes, 255);
                }
                let drawn = labels.iter().zip(pixels.chunks_exact(bytes));
                let own = drawn.filter(|(label, _)| **label == class);
                tiles.extend(own.flat_map(|(_, tile)| tile));
                (names.get(class as usize).map_or("", String::as_str), tiles)
            })
            .collect();
        let rows: Vec<(&str, &[u8])> = rows.iter().map(|(n, t)| (*n, &t[..])).collect();
        labelled_rows(&rows, side)
    }

    /// Drawn images, where there is a decoder.
    ///
    /// # Errors
    /// [`Error::Stopped`] after the scale during which a stop was asked for.
    fn draw(&self, progress: &Progress, cx: &Context) -> Result<Option<Vec<u8>>> {
        let Some(vqvae) = self.trainer.tokenizer.whole() else {
            return Ok(None);
        };
        // The same images every time, one class after the other, so that progress is seen.
        let labels = self.labels();
        let sampler = Sampler {
            var: &self.trainer.var,
            vqvae,
        };
        let options = SampleOptions {
            noise: Noise::Seed(progress.seed),
            ..SampleOptions::default()
        };
        let each = &mut || cx.team.stop.check();
        let drawn = sampler.draw_while(&labels, 0, &options, each)?;
        Ok(Some(drawn.pixels()?))
    }
}
