//! Evaluations of a tokenizer in training: figures, a picture, the weights to use.

use super::task::TokenizerTask;
use super::{TokenizerPaths, state};
use crate::Result;
use crate::eval::{Reconstruction, evaluate_reconstruction};
use crate::model::Pyramid;
use crate::pictures::before_after;
use crate::run::checkpoints::{is_better, is_there};
use crate::run::copy_whole;
use crate::run::event::{Evaluated, Event, Metrics, Picture};
use crate::run::task::{Context, Progress};
use nextscale_tensor::ops;

/// Images in the before/after picture.
const SHOWN: usize = 16;

impl TokenizerTask {
    /// Reconstructs the validation images and tells what came of it.
    ///
    /// # Errors
    /// [`Stopped`](crate::Error::Stopped) where a stop was asked for.
    pub(super) fn measure(
        &mut self,
        progress: &Progress,
        cx: &mut Context,
    ) -> Result<Reconstruction> {
        let pyramid = self.trainer.vqvae.config.pyramid.clone();
        let side = self.dataset.side;
        let mut val = self.dataset.val_loader(self.plan.batch, self.loader)?;
        let of = self.dataset.val.len().div_ceil(cx.team.world.size());
        let (team, observers) = (&cx.team, &mut cx.observers);
        let mut seen = |done| observers.tell(Event::Evaluating { done, of });
        let vqvae = &self.trainer.vqvae;
        let r = evaluate_reconstruction(vqvae, &pyramid, &mut val, side, team, &mut seen)?;
        for bad in val.bad_images() {
            cx.observers.warn(&bad.reason);
        }
        let metrics = Metrics::new()
            .with("psnr_db", r.psnr_db)
            .with("l1", r.l1)
            .with("l2", r.l2)
            .with("codebook_usage", 100.0 * r.codebook_usage);
        let mut scalars = Metrics::new();
        for metric in metrics.iter() {
            scalars.push(format!("tokenizer_val/{}", metric.name), metric.value);
        }
        cx.observers.tell(Event::Evaluated(Evaluated {
            iteration: progress.it,
            metrics: &metrics,
            scalars: &scalars,
            text: &describe(progress.it / self.options.schedule.ac as u64, &r),
        }));
        let shown = match cx.is_first() {
            true => self.show(progress, &pyramid, cx),
            false => Ok(()),
        };
        cx.team.agree(shown)?;
        Ok(r)
    }

    /// Writes the weights to use, and as the best where they are. A full disk costs a file then, and not the run; but without those of
    /// its end no run is done.
    pub(super) fn keep(
        &mut self,
        progress: &Progress,
        r: &Reconstruction,
        cx: &mut Context,
    ) -> Result<()> {
        self.state.last_psnr = Some(r.psnr_db);
        self.state
            .trend
            .push(self.horizon.epochs_done(progress.it), r.psnr_db);
        let TokenizerPaths { weights, best, .. } = &self.paths;
        let export = || state::export(&self.trainer, progress, weights);
        let nothing = || Ok(());
        if cx.written(export, nothing, "the weights of this evaluation")?
            && is_better(r.psnr_db, self.state.best_psnr, |a, b| a > b)
            && cx.written(|| copy_whole(weights, best), nothing, "these best weights")?
        {
            self.state.best_psnr = Some(r.psnr_db);
        }
        Ok(())
    }

    /// Writes the weights to use where there are none yet. The state is saved whether that works or not.
    pub(super) fn first_weights(&mut self, progress: &Progress, cx: &mut Context) {
        if !cx.is_first() {
            return;
        }
        let path = &self.paths.weights;
        let written = is_there(path).and_then(|there| match there {
            true => Ok(()),
            false => state::export(&self.trainer, progress, path),
        });
        if let Err(e) = written
            && !std::mem::replace(&mut self.told_of_weights, true)
        {
            cx.observers.warn(&format!(
                "{e}; the state is saved, the weights to use are not"
            ));
        }
    }

    /// A before/after picture of the first validation images.
    fn show(&mut self, progress: &Progress, pyramid: &Pyramid, cx: &mut Context) -> Result<()> {
        let side = self.dataset.side;
        let mut val = self.dataset.val_loader(SHOWN, self.loader)?;
        let Some(batch) = val.next_batch()? else {
            return Ok(());
        };
        let back = self.reconstruct(&batch.images, pyramid, cx);
        if let Some(back) = cx.observers.picture(back)? {
            let p = before_after(&batch.images, &back, side, 8);
            cx.observers.tell(Event::Picture(Picture {
                at: progress.it,
                name: "reconstructions",
                width: p.width,
                height: p.height,
                rgb: &p.rgb,
            }));
        }
        Ok(())
    }

    /// What the tokenizer makes of 8-bit images, no more of them at a time than a step takes.
    ///
    /// # Errors
    /// [`Stopped`](crate::Error::Stopped) where a stop was asked for.
    fn reconstruct(&mut self, images: &[u8], pyramid: &Pyramid, cx: &Context) -> Result<Vec<u8>> {
        let side = self.dataset.side;
        let each = side * side * 3;
        let mut all = Vec::with_capacity(images.len());
        for some in images.chunks(self.plan.batch * each) {
            cx.team.stop.check()?;
            let shape = [some.len() / each, side, side, 3];
            let some = self.feed.images(shape, some)?;
            let (back, _) = self.trainer.vqvae.reconstruct(&some, pyramid)?;
            all.extend(ops::to_pixels(&ops::to_unit_range(&back)?)?);
        }
        Ok(all)
    }
}

fn describe(step: u64, r: &Reconstruction) -> String {
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
