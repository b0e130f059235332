//! From a folder of pictures to samples within a given time: look, choose, train both models, judge, draw.
//!
//! [`Learn`] is what `nextscale learn` does. What it chose is kept in `learn.json`; a call that was interrupted goes on where it was.

mod budget;
mod plan;
mod report;
pub(crate) mod show;

pub use plan::{Asked, PLAN_FILE};
pub use report::{Judged, Summary, report};

use crate::advice::{Facts, recipe, time_tokenizer, time_transformer};
use crate::checkpoint::open::open_tokenizer;
use crate::data::{BadImages, LoaderConfig, Look, SplitSurvey};
use crate::device::resolve_device;
use crate::eval::Judge;
use crate::format::write_atomic;
use crate::generate::{Noise, SampleOptions};
use crate::options::precision::in_reference_flags;
use crate::options::values::{BadImages as BadImagesFlag, DeviceChoice};
use crate::options::{
    DataOptions, MachineOptions, OutputOptions, TokenizerOptions, TransformerOptions,
};
use crate::pictures::labelled_rows;
use crate::run::{
    Dataset, Observer, StopSignal, TokenizerRun, TransformerRun, make_folder, tokenizer_paths,
    transformer_paths,
};
use crate::text::counted;
use crate::{Error, Result, Team};
use budget::Images;
use nextscale_tensor::{Device, Math, Precision};
use plan::Plan;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Samples that are judged, and pictures of noise.
const JUDGED: usize = 200;
/// Real images that the judge learns from, and pictures of noise.
const LEARNT: usize = 2400;
const NOISE: usize = 200;
/// Classes in the picture of samples, and rows at least; in a row so many real images and so many samples.
const CLASSES: usize = 24;
const ROWS: usize = 4;
const REAL: usize = 3;
const SAMPLES: usize = 7;
/// Epochs of the transformer at most: so few images are then known by heart, and time is better spent elsewhere.
const MOST_EPOCHS: u64 = 200;
/// Validation images that the tokenizer and the samples' judge are measured on, for each minute, and at least and at most: all of
/// a large folder would take longer than there is.
const MEASURED: (f64, f64, f64) = (50.0, 200.0, 2000.0);
/// How long a step of each trainer is timed for, as a share of all, and at most.
const TIMED: f64 = 0.01;
const TIMED_AT_MOST: Duration = Duration::from_secs(6);
/// Folders of the two trainings.
const TOKENIZER: &str = "tokenizer";
const MODEL: &str = "model";
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
    /// Does it all, or what is left to do; `None` when it was stopped before the end.
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

    fn all_parts(&self, start: Instant) -> Result<Option<Summary>> {
        let minutes = self.asked.minutes;
        if !(LEAST_MINUTES..=60.0 * 24.0 * 30.0).contains(&minutes) {
            let why = format!("give from {LEAST_MINUTES} minutes to a month");
            return Err(Error::field("minutes", minutes, why));
        }
        let found = Plan::find(&self.out, &self.asked)?;
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
                (self.say)("1/5  looking at the images, and timing some steps on this machine");
                let plan = self.first_plan()?;
                make_folder(&self.out)?;
                plan.save(&self.out)?;
                plan
            }
        };
        // A plan is for any device and any place.
        plan.tokenizer.machine.device = self.device;
        plan.tokenizer.output.out = self.out.join(TOKENIZER);
        let dataset = self.dataset(&plan.tokenizer)?;
        (self.say)("2/5  training the tokenizer");
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
        (self.say)("3/5  training the transformer");
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
        (self.say)("4/5  reconstructing validation images");
        let picture = self.out.join("reconstruction.png");
        let (each, least, most) = MEASURED;
        let measured = (each * minutes).clamp(least, most) as usize;
        let measured = dataset.with_fewer_to_validate(measured);
        let back = show::reconstruct(
            &tokenizer,
            (&measured, patient()),
            target,
            &picture,
            &self.stop,
        )?;
        (self.say)("5/5  drawing and judging samples");
        let model = best_or_last(&train.output.out);
        let judged = self.judge(&tokenizer, &model, &measured, target)?;
        let summary = Summary {
            seconds: plan.spent + start.elapsed().as_secs_f64(),
            recipe: plan.recipe,
            images: dataset.train.len(),
            side: dataset.side,
            psnr_db: back.psnr_db,
            codebook_usage: back.codebook_usage,
            validation: report::validation(&train.output.out)?,
            judged,
            classes: dataset.train.class_names().to_vec(),
            said: outcome.message.lines().skip(1).map(str::to_owned).collect(),
            tokenizer,
            model,
        };
        let text = serde_json::to_string_pretty(&summary)
            .map_err(|e| Error::failed(format!("summary.json: {e}")))?;
        write_atomic(self.out.join("summary.json"), |w| {
            w.write_all(text.as_bytes())
        })?;
        plan.spent = summary.seconds;
        plan.save(&self.out)?;
        Ok(Some(summary))
    }

    /// The images as a tokenizer of these options has them.
    fn dataset(&self, options: &TokenizerOptions) -> Result<Dataset> {
        Dataset::open(
            &self.asked.data_path,
            &self.asked.folder,
            options.resolve(1)?.image_size,
            options.data.mid_reso,
            self.asked.hflip,
        )
    }

    /// Where models are measured and drawn from, and how precisely.
    fn target(&self) -> Result<(Device, Math)> {
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
            bad_images: BadImagesFlag::Skip,
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
    fn first_plan(&self) -> Result<Plan> {
        let at_any_side = Dataset::open(
            &self.asked.data_path,
            &self.asked.folder,
            64,
            1.0,
            self.asked.hflip,
        )?;
        let survey = SplitSurvey::of(&*at_any_side.train, Look::SHORT)?;
        let facts = Facts::of_survey(&survey, self.device)?;
        let recipe = self.asked.recipe.unwrap_or_else(|| recipe(&facts));
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
        let images = Images {
            batch: options.schedule.bs,
            train: dataset.train.len(),
            val: dataset.val.len(),
        };
        let all = 60.0 * self.asked.minutes;
        let length = budget::length(budget::of_tokenizer(all), time.seconds, images);
        options.schedule.steps = Some(length.steps);
        options.output.eval_every = length.eval_every;
        options.output.save_every = (length.steps / 10).max(10);
        (self.say)(&format!(
            "     {} of {} in {}, of about {} pixels; {}: recipe {}",
            counted(facts.images, "training image", "training images"),
            counted(dataset.classes(), "class", "classes"),
            self.asked.data_path,
            facts.side,
            facts.machine(),
            recipe.name()
        ));
        (self.say)(&told("tokenizer", time.seconds, length.steps));
        Ok(Plan {
            asked: self.asked.clone(),
            recipe,
            tokenizer: options,
            transformer: None,
            spent: 0.0,
        })
    }

    /// Times the transformer, and gives it the time that is left.
    fn second_plan(
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
        let images = Images {
            batch: options.schedule.bs,
            train: dataset.train.len(),
            val: dataset.val.len(),
        };
        let seconds = budget::of_transformer(all, all - spent);
        let length = budget::at_most(
            MOST_EPOCHS,
            budget::length(seconds, time.seconds, images),
            images,
        );
        options.schedule.steps = Some(length.steps);
        options.output.eval_every = length.eval_every;
        options.output.save_every = (length.steps / 10).max(10);
        (self.say)(&told("transformer", time.seconds, length.steps));
        Ok(options)
    }

    /// What a judge of the folder's own classes makes of real images, samples and noise; the picture of samples.
    fn judge(
        &self,
        tokenizer: &Path,
        model: &Path,
        data: &Dataset,
        target: (Device, Math),
    ) -> Result<Judged> {
        let config = patient();
        let count = LEARNT.min(4 * data.train.len());
        let (images, labels) = show::some_images(data, count, config, &self.stop)?;
        let mut vqvae = open_tokenizer(tokenizer, None, None)?.vqvae;
        vqvae.to_device(target.0, target.1)?;
        let noise = show::noise(&vqvae, 2 * NOISE, self.asked.seed, &self.stop)?;
        drop(vqvae);
        let pixels = data.side * data.side * 3;
        let (known, unknown) = noise.split_at(NOISE * pixels);
        let judge = Judge::fit(&images, &labels, known, data.side)?;
        let (mut hits, mut n) = (0, 0);
        let mut wanted = Vec::new();
        let mut val = data.val_loader(show::BATCH, config)?;
        while let Some(batch) = val.next_batch()? {
            self.stop.check()?;
            hits += judge.right(&batch.images, &batch.labels)?;
            n += batch.len();
            wanted.extend_from_slice(&batch.labels);
        }
        // As many of each class as validation has, so that figures can be compared.
        let spread = |i: usize| wanted[i * wanted.len() / JUDGED];
        let wanted: Vec<u32> = (0..JUDGED).map(spread).collect();
        let noise_hits = judge.right(unknown, &wanted)?;
        let shown = rows(&labels, data.classes());
        let drawn = shown.iter().flat_map(|&(class, _)| [class as i32; SAMPLES]);
        let asked: Vec<i32> = drawn.chain(wanted.iter().map(|&l| l as i32)).collect();
        let options = SampleOptions {
            cfg: 2.0,
            top_k: 0,
            top_p: 0.92,
            more_smooth: false,
            noise: Noise::Seed(self.asked.seed),
        };
        let mut samples = Vec::with_capacity(asked.len() * pixels);
        let keep = |images: &[u8], _: &[i32]| {
            samples.extend_from_slice(images);
            Ok(())
        };
        show::draw(model, &asked, options, target, &self.stop, keep)?;
        let (pictures, judged) = samples.split_at(shown.len() * SAMPLES * pixels);
        let sample_hits = judge.right(judged, &wanted)?;
        let names = data.train.class_names();
        let rows: Vec<(String, Vec<u8>)> = shown
            .iter()
            .zip(pictures.chunks_exact(SAMPLES * pixels))
            .map(|(&(class, row), drawn)| {
                let mut tiles = real(&images, &labels, (class, row), pixels);
                tiles.extend(vec![255; pixels]);
                tiles.extend_from_slice(drawn);
                let name = names[class as usize].clone();
                (if row == 0 { name } else { String::new() }, tiles)
            })
            .collect();
        let rows: Vec<(&str, &[u8])> = rows.iter().map(|(n, t)| (n.as_str(), &t[..])).collect();
        labelled_rows(&rows, data.side).save(&self.out.join("samples.png"))?;
        let share = |hits: usize, of: usize| hits as f64 / of.max(1) as f64;
        Ok(Judged {
            real: share(hits, n),
            samples: share(sample_hits, JUDGED),
            noise: share(noise_hits, JUDGED),
            judged: JUDGED,
        })
    }
}

/// Bad images are left out.
fn patient() -> LoaderConfig {
    LoaderConfig {
        bad_images: BadImages::Skip,
        ..LoaderConfig::default()
    }
}

/// What was timed, and the steps that follow from it.
fn told(what: &str, seconds: f64, steps: u64) -> String {
    let (step, all) = (seconds, seconds * steps as f64 / 60.0);
    format!("     {what}: {step:.3} s a step, {steps} steps, about {all:.1} minutes")
}

/// The best checkpoint of a run, where it kept one, else the last.
fn best_or_last(out: &Path) -> PathBuf {
    let paths = transformer_paths(out);
    match paths.best.is_file() {
        true => paths.best,
        false => paths.last,
    }
}

/// The rows of the picture: classes with the most images, in the order of their labels, and the number of the row within the class.
fn rows(labels: &[u32], classes: usize) -> Vec<(u32, usize)> {
    let mut counts = vec![0usize; classes];
    for &label in labels {
        if let Some(count) = counts.get_mut(label as usize) {
            *count += 1;
        }
    }
    let mut all: Vec<u32> = (0..classes as u32).collect();
    all.sort_by_key(|&class| std::cmp::Reverse(counts[class as usize]));
    all.truncate(CLASSES);
    all.sort_unstable();
    let each = ROWS.div_ceil(all.len().max(1));
    let rows = |class| (0..each).map(move |row| (class, row));
    all.into_iter().flat_map(rows).collect()
}

/// Real images of a class, for a row of it, filled up with white.
fn real(images: &[u8], labels: &[u32], (class, row): (u32, usize), pixels: usize) -> Vec<u8> {
    let own = images.chunks_exact(pixels).zip(labels);
    let own = own.filter(|(_, label)| **label == class);
    let own = own.skip(row * REAL).take(REAL);
    let mut tiles: Vec<u8> = own.flat_map(|(image, _)| image).copied().collect();
    tiles.resize(REAL * pixels, 255);
    tiles
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_classes_are_shown_in_order() {
        assert_eq!(rows(&[2, 2, 0, 1, 1, 9], 3).len(), 6);
        assert_eq!(rows(&[0], 1), [(0, 0), (0, 1), (0, 2), (0, 3)]);
        let labels: Vec<u32> = (0..40).chain(10..30).collect();
        let shown = rows(&labels, 40);
        assert_eq!(shown.len(), CLASSES);
        assert!(shown.is_sorted() && (10..30).all(|class| shown.contains(&(class, 0))));
        let tiles = |row| real(&[1, 2, 3, 4, 5], &[0, 1, 1, 1, 1], (1, row), 1);
        assert_eq!((tiles(0), tiles(1)), (vec![2, 3, 4], vec![5, 255, 255]));
    }
}
