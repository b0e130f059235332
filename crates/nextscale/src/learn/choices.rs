//! What is learnt in which size, and for how many steps.

use super::budget::{self, Images, Length};
use super::plan::Plan;
use super::{Learn, MODEL, TOKENIZER};
use crate::Result;
use crate::advice::{Facts, at_start, recipe, time_tokenizer, time_transformer};
use crate::checkpoint::open::open_tokenizer;
use crate::data::{Look, SplitSurvey};
use crate::device::resolve_device;
use crate::eval::FEW_STEPS;
use crate::options::precision::in_reference_flags;
use crate::options::values::BadImages;
use crate::options::{
    DataOptions, MachineOptions, OutputOptions, Recipe, ScheduleOptions, TokenizerOptions,
    TransformerOptions,
};
use crate::run::Dataset;
use crate::text::counted;
use nextscale_tensor::{Device, Math, Precision};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a step of each trainer is timed for, as a share of all, and at most.
const TIMED: f64 = 0.01;
const TIMED_AT_MOST: Duration = Duration::from_secs(6);
/// Epochs of the transformer at most: so few images are then known by heart, and time is better spent elsewhere.
const MOST_EPOCHS: u64 = 200;

/// A tokenizer as a recipe has it, and how far the time goes with it.
struct Tried {
    recipe: Recipe,
    options: TokenizerOptions,
    dataset: Dataset,
    /// Of a step.
    seconds: f64,
    length: Length,
}

impl Learn {
    /// The images as a tokenizer of these options has them.
    pub(super) fn dataset(&self, options: &TokenizerOptions) -> Result<Dataset> {
        Dataset::open(
            &self.asked.data_path,
            &self.asked.folder,
            options.resolve(1)?.image_size,
            options.data.mid_reso,
            self.asked.hflip,
        )
    }

    /// Where models are measured and drawn from, and how precisely.
    pub(super) fn target(&self) -> Result<(Device, Math)> {
        let precision = self.precision.unwrap_or(Precision::Tf32);
        Ok((resolve_device(self.device)?, precision.math()))
    }

    fn timed(&self) -> Duration {
        Duration::from_secs_f64(TIMED * 60.0 * self.asked.minutes).min(TIMED_AT_MOST)
    }

    fn data(&self) -> DataOptions {
        DataOptions {
            data_path: Some(self.asked.data_path.clone()),
            hflip: self.asked.hflip,
            bad_images: BadImages::Skip,
            ..DataOptions::default()
        }
    }

    fn machine(&self) -> MachineOptions {
        MachineOptions {
            device: self.device,
            ..MachineOptions::default()
        }
    }

    /// Looks at the images, chooses a recipe, and times the tokenizer.
    pub(super) fn first_plan(&self) -> Result<Plan> {
        let at_any_side = Dataset::open(
            &self.asked.data_path,
            &self.asked.folder,
            64,
            1.0,
            self.asked.hflip,
        )?;
        (self.say)("1/5  looking at the images, and timing some steps on this machine");
        let survey = SplitSurvey::of(&*at_any_side.train, Look::SHORT)?;
        let facts = Facts::of_survey(&survey, self.device)?;
        (self.say)(&format!(
            "     {} of {} in {}, of about {} pixels; {}",
            counted(facts.images, "training image", "training images"),
            counted(at_any_side.classes(), "class", "classes"),
            self.asked.data_path,
            facts.side,
            facts.machine(),
        ));
        let chosen = self.asked.recipe.unwrap_or_else(|| recipe(&facts));
        let mut first = self.of_recipe(chosen, &facts)?;
        if self.asked.recipe.is_none() {
            first = self.with_time_enough(first, &facts)?;
        }
        let side = first.dataset.side;
        let dataset = &first.dataset;
        let glance = at_start(&survey, side, &self.asked.folder);
        for line in dataset.remarks.iter().chain(&glance) {
            (self.say)(&format!("     {line}"));
        }
        (self.say)(&format!(
            "     recipe {}, {side}x{side} pixels",
            first.recipe.name()
        ));
        (self.say)(&told("tokenizer", first.seconds, first.length.steps));
        let least = first.seconds * first.length.steps as f64 / 60.0;
        if least > budget::of_tokenizer(self.asked.minutes) {
            (self.say)(&format!(
                "     these are the fewest steps that are made: it will all take longer than {} minutes",
                self.asked.minutes
            ));
        }
        let mut options = first.options;
        set(first.length, &mut options.schedule, &mut options.output);
        Ok(Plan {
            asked: self.asked.by_its_whole_name(),
            recipe: first.recipe,
            tokenizer: options,
            transformer: None,
            spent: 0.0,
        })
    }

    /// What a recipe's tokenizer comes to here.
    fn of_recipe(&self, recipe: Recipe, facts: &Facts) -> Result<Tried> {
        let mut options = TokenizerOptions {
            data: self.data(),
            folder: self.asked.folder.clone(),
            machine: self.machine(),
            output: OutputOptions {
                out: self.out.join(TOKENIZER),
                ..OutputOptions::default()
            },
            ..TokenizerOptions::default()
        };
        recipe.apply_to_tokenizer(&mut options, |_| false);
        options.schedule.seed = Some(self.asked.seed);
        options.schedule.fit = true;
        options.precision = match facts.gpu {
            Some(_) => self.precision.or(options.precision),
            None => None,
        };
        let dataset = self.dataset(&options)?;
        let time = time_tokenizer(&options, &dataset, self.timed(), &self.stop)?;
        let images = images(&dataset, &options.schedule);
        let all = 60.0 * self.asked.minutes;
        let length = budget::length(budget::of_tokenizer(all), time.seconds, images);
        Ok(Tried {
            recipe,
            options,
            dataset,
            seconds: time.seconds,
            length,
        })
    }

    /// Smaller pictures where the time is too short to learn such large ones.
    fn with_time_enough(&self, mut tried: Tried, facts: &Facts) -> Result<Tried> {
        while tried.length.steps < FEW_STEPS
            && let Some(smaller) = tried.recipe.smaller()
        {
            let (side, steps) = (tried.dataset.side, tried.length.steps);
            let less = self.of_recipe(smaller, facts)?;
            (self.say)(&format!(
                "     {side} pixels would leave {steps} steps, too few to learn from: {} pixels (more `minutes`, or `size`={side}, makes the larger ones)",
                less.dataset.side
            ));
            tried = less;
        }
        Ok(tried)
    }

    /// Times the transformer, and gives it the time that is left.
    pub(super) fn second_plan(
        &self,
        plan: &Plan,
        tokenizer: &Path,
        dataset: &Dataset,
        spent: f64,
    ) -> Result<TransformerOptions> {
        let mut options = TransformerOptions {
            exp_name: "learn".into(),
            tokenizer: Some(tokenizer.to_path_buf()),
            data: self.data(),
            folder: self.asked.folder.clone(),
            machine: self.machine(),
            output: OutputOptions {
                out: self.out.join(MODEL),
                ..OutputOptions::default()
            },
            ..TransformerOptions::default()
        };
        plan.recipe.apply(&mut options, |_| false);
        options.schedule.seed = Some(self.asked.seed);
        options.schedule.fit = true;
        if resolve_device(self.device)? == Device::Cpu {
            options.fp16 = 0;
        } else if let Some(precision) = self.precision {
            let (fp16, tf32) = in_reference_flags(precision);
            options.fp16 = fp16;
            options.machine.tf32 = tf32.unwrap_or(options.machine.tf32);
        }
        let vqvae = open_tokenizer(tokenizer, None, None)?.vqvae;
        let began = Instant::now();
        let time = time_transformer(&options, vqvae, dataset, self.timed(), &self.stop)?;
        let all = 60.0 * self.asked.minutes;
        // A call that went on with a tokenizer half trained has all of the other half's time.
        let spent = spent.max(budget::of_tokenizer(all)) + began.elapsed().as_secs_f64();
        let images = images(dataset, &options.schedule);
        let seconds = budget::of_transformer(all, all - spent);
        let length = budget::at_most(
            MOST_EPOCHS,
            budget::length(seconds, time.seconds, images),
            images,
        );
        set(length, &mut options.schedule, &mut options.output);
        (self.say)(&told("transformer", time.seconds, length.steps));
        Ok(options)
    }
}

/// The images of a training.
fn images(dataset: &Dataset, schedule: &ScheduleOptions) -> Images {
    Images {
        batch: schedule.bs,
        train: dataset.train.len(),
        val: dataset.val.len(),
    }
}

/// Gives a training its length, with evaluations and saves between.
fn set(length: Length, schedule: &mut ScheduleOptions, output: &mut OutputOptions) {
    schedule.steps = Some(length.steps);
    output.eval_every = length.eval_every;
    output.save_every = (length.steps / 10).max(10);
}

/// What was timed, and the steps that follow from it.
fn told(what: &str, seconds: f64, steps: u64) -> String {
    let (step, all) = (seconds, seconds * steps as f64 / 60.0);
    format!("     {what}: {step:.3} s a step, {steps} steps, about {all:.1} minutes")
}
