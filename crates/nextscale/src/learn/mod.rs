//! From a folder of pictures to samples within a given time: look, choose, train both models, judge, draw.
//!
//! [`Learn`] is what `nextscale learn` does. What it chose is kept in `learn.json`; a call that was interrupted goes on where it was.

mod budget;
mod choices;
mod judging;
mod plan;
mod report;
pub(crate) mod show;

pub use plan::{Asked, PLAN_FILE};
pub use report::{Judged, Summary, report};

use crate::data::LoaderConfig;
use crate::format::write_atomic;
use crate::options::values::DeviceChoice;
use crate::options::{DataOptions, MachineOptions, OutputOptions, TransformerOptions};
use crate::run::lock::RunLock;
use crate::run::{
    Observer, StopSignal, TokenizerRun, TransformerRun, make_folder, tokenizer_paths,
    transformer_paths,
};
use crate::{Error, Result, Team};
use nextscale_tensor::Precision;
use plan::Plan;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Validation images that the tokenizer and the samples' judge are measured on, for each minute, and at least and at most: all of
/// a large folder would take longer than there is.
const MEASURED: (f64, f64, f64) = (50.0, 200.0, 2000.0);
/// Folders of the two trainings.
const TOKENIZER: &str = "tokenizer";
const MODEL: &str = "model";
/// Files beside them.
const SAMPLES_FILE: &str = "samples.png";
const RECONSTRUCTION: &str = "reconstruction.png";
const SUMMARY_FILE: &str = "summary.json";
/// Minutes that hold more than starting and judging.
const LEAST_MINUTES: f64 = 0.1;

/// Learns a folder in a folder.
pub struct Learn {
    /// What is learnt, and for how long.
    pub asked: Asked,
    /// Output folder.
    pub out: PathBuf,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Precision of products on a GPU; without it as the recipe says, and TF32 to measure and draw.
    pub precision: Option<Precision>,
    /// Asks for an early end.
    pub stop: StopSignal,
    /// Told what comes next.
    pub say: fn(&str),
    /// Who watches each of the two runs, beside their own logs.
    pub observers: fn() -> Vec<Box<dyn Observer>>,
}

impl Learn {
    /// Does it all, or what is left to do; `None` when it was stopped before the end. What is finished is told again.
    ///
    /// # Errors
    /// When the folder can't be used or a run fails.
    pub fn run(&self) -> Result<Option<Summary>> {
        let start = Instant::now();
        let done = match self.all_parts(start) {
            Err(Error::Stopped) => Ok(None),
            other => other,
        };
        // What this call took counts for the next one, as far as it can be told.
        if let (Ok(None), Ok(Some(mut plan))) = (&done, Plan::find(&self.out, &self.asked)) {
            plan.spent += start.elapsed().as_secs_f64();
            plan.save(&self.out)?;
        }
        done
    }

    /// Refuses a folder for results within that of the images, which would take its pictures for some of them.
    fn out_is_elsewhere(&self) -> Result<()> {
        let Ok(images) = Path::new(&self.asked.data_path).canonicalize() else {
            return Ok(());
        };
        let absolute = std::path::absolute(&self.out).map_err(Error::io(&self.out))?;
        let there = absolute.ancestors().find_map(|a| a.canonicalize().ok());
        match there {
            Some(there) if there.starts_with(&images) => {
                let beside = images.with_file_name("learnt");
                let why = format!(
                    "lies in the folder of the images, where its pictures would be taken for some of them; give one elsewhere, such as `out`={}",
                    beside.display()
                );
                Err(Error::field("out", self.out.display(), why))
            }
            _ => Ok(()),
        }
    }

    fn all_parts(&self, start: Instant) -> Result<Option<Summary>> {
        let minutes = self.asked.minutes;
        if !(LEAST_MINUTES..=60.0 * 24.0 * 30.0).contains(&minutes) {
            let why = format!("give from {LEAST_MINUTES} minutes to a month");
            return Err(Error::field("minutes", minutes, why));
        }
        if self.out.exists() && !self.out.is_dir() {
            let why = "is a file; give a folder, or a name that is not taken";
            return Err(Error::field("out", self.out.display(), why));
        }
        self.out_is_elsewhere()?;
        let found = Plan::find(&self.out, &self.asked)?;
        if found.is_some()
            && let Some(summary) = report::finished(&self.out)?
        {
            (self.say)(
                "finished before, with what follows; with another `out` and more `minutes` more is learnt",
            );
            return Ok(Some(summary));
        }
        let target = self.target()?;
        let mut plan = match found {
            Some(plan) => {
                (self.say)(&format!(
                    "1/5  going on as {} says",
                    plan::path(&self.out).display()
                ));
                plan
            }
            None => {
                let plan = self.first_plan()?;
                make_folder(&self.out)?;
                plan
            }
        };
        let lock = RunLock::acquire(&self.out)?;
        if let Some(warning) = lock.warning() {
            (self.say)(warning);
        }
        plan.save(&self.out)?;
        // A plan is for any device and any place.
        plan.tokenizer.machine.device = self.device;
        plan.tokenizer.output.out = self.out.join(TOKENIZER);
        plan.tokenizer.data.data_path = Some(self.asked.data_path.clone());
        let dataset = self.dataset(&plan.tokenizer)?;
        let left = |plan: &Plan| {
            let spent = plan.spent + start.elapsed().as_secs_f64();
            let left = (minutes - spent / 60.0).max(0.0);
            format!("{left:.1} of {minutes} minutes are left")
        };
        (self.say)(&format!("2/5  training the tokenizer; {}", left(&plan)));
        let run = TokenizerRun {
            options: &plan.tokenizer,
            cmd: "learn".to_owned(),
            team: Team::of_one(self.stop.clone()),
            observers: (self.observers)(),
        };
        if !run.run()?.complete {
            return Ok(None);
        }
        let tokenizer = tokenizer_paths(&plan.tokenizer.output.out).weights;
        let train = match plan.transformer.clone() {
            Some(train) => train,
            None => {
                let spent = plan.spent + start.elapsed().as_secs_f64();
                let train = self.second_plan(&plan, &tokenizer, &dataset, spent)?;
                plan.transformer = Some(train.clone());
                plan.save(&self.out)?;
                train
            }
        };
        let train = TransformerOptions {
            tokenizer: Some(tokenizer.clone()),
            data: DataOptions {
                data_path: Some(self.asked.data_path.clone()),
                ..train.data
            },
            machine: MachineOptions {
                device: self.device,
                ..train.machine
            },
            output: OutputOptions {
                out: self.out.join(MODEL),
                ..train.output
            },
            ..train
        };
        (self.say)(&format!("3/5  training the transformer; {}", left(&plan)));
        let run = TransformerRun {
            options: &train,
            cmd: "learn".to_owned(),
            team: Team::of_one(self.stop.clone()),
            observers: (self.observers)(),
        };
        let outcome = run.run()?;
        if !outcome.complete {
            return Ok(None);
        }
        let (each, least, most) = MEASURED;
        let measured = (each * minutes).clamp(least, most) as usize;
        let measured = dataset.with_fewer_to_validate(measured);
        (self.say)(&format!(
            "4/5  reconstructing {measured} validation images",
            measured = measured.val.len()
        ));
        let picture = self.out.join(RECONSTRUCTION);
        let back = show::reconstruct(
            &tokenizer,
            (&measured, LoaderConfig::patient()),
            target,
            &picture,
            (&self.stop, self.say),
        )?;
        (self.say)("5/5  drawing and judging samples");
        let model = best_or_last(&train.output.out);
        let judged = self.judge(&tokenizer, &model, &measured, target)?;
        let (trend, chance) = report::validation(&train.output.out)?;
        let steps = train.schedule.steps.unwrap_or_default();
        let said = trend.of_losses(chance, steps);
        let summary = Summary {
            seconds: plan.spent + start.elapsed().as_secs_f64(),
            minutes,
            recipe: plan.recipe,
            images: dataset.train.len(),
            side: dataset.side,
            psnr_db: back.psnr_db,
            codebook_usage: back.codebook_usage,
            validation: trend.last().map(|loss| [loss, chance]),
            judged,
            classes: dataset.train.class_names().to_vec(),
            said: said
                .map(|v| report::advice(v.tendency))
                .into_iter()
                .collect(),
            tokenizer,
            model,
        };
        let text = serde_json::to_string_pretty(&summary)
            .map_err(|e| Error::failed(format!("{SUMMARY_FILE}: {e}")))?;
        write_atomic(self.out.join(SUMMARY_FILE), |w| {
            w.write_all(text.as_bytes())
        })?;
        plan.spent = summary.seconds;
        plan.save(&self.out)?;
        Ok(Some(summary))
    }
}

/// The best checkpoint of a run, where it kept one, else the last.
fn best_or_last(out: &Path) -> PathBuf {
    let paths = transformer_paths(out);
    match paths.best.is_file() {
        true => paths.best,
        false => paths.last,
    }
}
