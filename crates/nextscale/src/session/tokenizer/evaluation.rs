//! Evaluations of a tokenizer in training: figures, a picture, the weights to use.

use super::{Session, TokenizerPaths};
use crate::eval::{Reconstruction, evaluate_reconstruction};
use crate::model::Pyramid;
use crate::pictures::before_after;
use crate::session::checkpoints::{is_better, is_there};
use crate::session::copy_whole;
use crate::session::log_faults::LogFaults;
use crate::session::saving::{Run, Then};
use crate::session::tokenizer_state;
use crate::{Error, Result};
use nextscale_tensor::cpu::pool::release_free;
use nextscale_tensor::ops;

/// Images in TensorBoard's before/after picture.
const SHOWN: usize = 16;

impl Session<'_> {
    /// Evaluates, once the state is saved with word that this is due: a run that ends before the save that follows makes it again.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a stop was asked for before or during it.
    pub(super) fn evaluate(&mut self) -> Result<()> {
        release_free();
        let pyramid = self.trainer.vqvae.config.pyramid.clone();
        let side = self.dataset.side;
        let stop = &self.run.stop;
        stop.check()?;
        if let Some(check) = self.val_check.take() {
            check.wait(stop)?;
        }
        let mut val = self.dataset.val_loader(self.plan.batch, self.loader)?;
        let each = |_| stop.check();
        let r = evaluate_reconstruction(&self.trainer.vqvae, &pyramid, &mut val, side, each)?;
        for bad in val.bad_images() {
            self.display.warn(&bad.reason);
        }
        let step = self.progress.it as i64;
        let written = self.tb.scalars(
            step,
            [
                ("tokenizer_val/psnr_db", r.psnr_db),
                ("tokenizer_val/l1", r.l1),
                ("tokenizer_val/l2", r.l2),
                ("tokenizer_val/codebook_usage", 100.0 * r.codebook_usage),
            ],
        );
        self.log_faults.pass(written, &mut self.display);
        self.show(&pyramid)?;
        self.display.note(&describe(step, &r));
        self.progress.last_psnr = Some(r.psnr_db);
        self.write_weights(r.psnr_db)?;
        self.progress.evaluation_due = false;
        self.keeper.unsaved = true;
        self.save(Then::GoesOn)
    }

    /// Writes the weights to use, and as the best where they are. A full disk costs a file then, and not the run; but without those of
    /// its end no run is done.
    fn write_weights(&mut self, psnr_db: f64) -> Result<()> {
        let TokenizerPaths { weights, best, .. } = &self.paths;
        match tokenizer_state::export(&self.trainer, &self.progress, weights) {
            Err(e @ Error::Io { .. }) if self.progress.it < self.horizon.max_it => {
                self.display.warn(&format!(
                    "{e}; the run goes on without the weights of this evaluation"
                ));
                return Ok(());
            }
            other => other?,
        }
        if !is_better(psnr_db, self.progress.best_psnr, |a, b| a > b) {
            return Ok(());
        }
        match copy_whole(weights, best) {
            Err(e @ Error::Io { .. }) if self.progress.it < self.horizon.max_it => self
                .display
                .warn(&format!("{e}; the run goes on without these best weights")),
            other => {
                other?;
                self.progress.best_psnr = Some(psnr_db);
            }
        }
        Ok(())
    }

    /// Writes the weights to use where there are none yet. The state is saved whether that works or not.
    pub(super) fn first_weights(&mut self) {
        let path = &self.paths.weights;
        let written = is_there(path).and_then(|there| match there {
            true => Ok(()),
            false => tokenizer_state::export(&self.trainer, &self.progress, path),
        });
        if let Err(e) = written
            && !std::mem::replace(&mut self.told_of_weights, true)
        {
            self.display.warn(&format!(
                "{e}; the state is saved, the weights to use are not"
            ));
        }
    }

    /// A before/after picture of the first validation images.
    fn show(&mut self, pyramid: &Pyramid) -> Result<()> {
        let side = self.dataset.side;
        let mut val = self.dataset.val_loader(SHOWN, self.loader)?;
        if let Some(batch) = val.next_batch()?
            && let Some(back) =
                LogFaults::picture(self.give_back(&batch.images, pyramid), &mut self.display)?
        {
            let p = before_after(&batch.images, &back, side, 8);
            let step = self.progress.it as i64;
            let written = self.tb.image(
                step,
                "reconstructions",
                p.width as u32,
                p.height as u32,
                &p.rgb,
            );
            self.log_faults.pass(written, &mut self.display);
        }
        let written = self.tb.flush();
        self.log_faults.pass(written, &mut self.display);
        Ok(())
    }

    /// What the tokenizer makes of 8-bit images, no more of them at a time than a step takes.
    ///
    /// # Errors
    /// [`Error::Stopped`] where a stop was asked for.
    fn give_back(&mut self, images: &[u8], pyramid: &Pyramid) -> Result<Vec<u8>> {
        let side = self.dataset.side;
        let each = side * side * 3;
        let mut all = Vec::with_capacity(images.len());
        for some in images.chunks(self.plan.batch * each) {
            self.run.stop.check()?;
            let shape = [some.len() / each, side, side, 3];
            let some = self.feed.images(shape, some)?;
            let (back, _) = self.trainer.vqvae.reconstruct(&some, pyramid)?;
            all.extend(ops::to_pixels(&ops::to_unit_range(&back)?)?);
        }
        Ok(all)
    }
}

fn describe(step: i64, r: &Reconstruction) -> String {
    let scales: Vec<String> = r
        .usage_by_scale
        .iter()
        .map(|u| format!("{:.0}", 100.0 * u))
        .collect();
    format!(
        "step {step}: {:.2} dB on {} validation images, {:.1} % of the codebook in use (by scale: {} %)",
        r.psnr_db,
        r.images,
        100.0 * r.codebook_usage,
        scales.join(" ")
    )
}
