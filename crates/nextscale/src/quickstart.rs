//! Everything once on built-in data: a small tokenizer, a small transformer, their figures and pictures.

use crate::data::LoaderConfig;
use crate::device::resolve_device;
use crate::eval::Judge;
use crate::format::write_atomic;
use crate::generate::{Noise, SampleOptions};
use crate::learn::show;
use crate::options::precision::in_reference_flags;
use crate::options::values::DeviceChoice;
use crate::options::{
    DataOptions, MachineOptions, OutputOptions, ScheduleOptions, TokenizerOptions,
    TransformerOptions,
};
use crate::pictures::{grid, labelled_rows};
use crate::run::{
    BUILTIN_SHAPES, Dataset, TokenizerRun, TransformerRun, make_folder, tokenizer_paths,
    transformer_paths,
};
use crate::run::{Observer, StopSignal};
use crate::{Error, Result, Team};
use nextscale_tensor::{Math, Precision};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Scales of the small models.
const PN: &str = "1_2_4_8";
/// Widths of the tokenizer's levels: three halvings, so that a token stands for 8×8 pixels and an image has 64×64.
const CH_MULT: &str = "1_1_2_2";
/// Pixels along a side of a token.
const PATCH_SIZE: usize = 8;
/// Samples that the classifier judges.
const JUDGED: usize = 200;
/// Real images that the classifier learns from.
const LEARNT: usize = 2400;
/// Samples of each class in the picture.
const SHOWN: usize = 8;

/// A quickstart in a folder.
pub struct Quickstart {
    /// Output folder.
    pub out: PathBuf,
    /// Where to compute.
    pub device: DeviceChoice,
    /// Precision of products on a GPU; without it TF32.
    pub precision: Option<Precision>,
    /// Seed of all random draws.
    pub seed: u64,
    /// Asks for an early end.
    pub stop: StopSignal,
    /// Told what comes next.
    pub say: fn(&str),
    /// Who watches each of the two runs, beside their own logs.
    pub observers: fn() -> Vec<Box<dyn Observer>>,
}

/// What `summary.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Wall time of this call.
    pub seconds: f64,
    /// Mean PSNR of held-out images through the tokenizer.
    pub psnr_db: f64,
    /// Share of the codebook that held-out images use, 0 to 1.
    pub codebook_usage: f64,
    /// Share of held-out real images that the classifier names rightly, 0 to 1.
    pub real_accuracy: f64,
    /// Share of samples that it names as intended, 0 to 1.
    pub sample_accuracy: f64,
    /// Samples that were judged.
    pub samples: usize,
    /// Classes of the data.
    pub classes: Vec<String>,
}

/// Options of the small tokenizer.
pub fn tokenizer_options(out: &Path, device: DeviceChoice, seed: u64) -> TokenizerOptions {
    TokenizerOptions {
        ch: 32,
        ch_mult: CH_MULT.into(),
        num_res_blocks: 1,
        vocab: 256,
        pn: PN.into(),
        // Pictures first: with so few steps the quantizer's terms would hold the encoder back.
        l1: 2.0,
        l2: 20.0,
        lr: 1e-3,
        wd: 0.0,
        data: built_in(),
        schedule: ScheduleOptions {
            bs: 8,
            steps: Some(1000),
            sche: "cos".into(),
            wpe: 0.02,
            seed: Some(seed),
            ..TokenizerOptions::default().schedule
        },
        output: OutputOptions {
            out: out.join("tokenizer"),
            save_every: 200,
            ..OutputOptions::default()
        },
        machine: MachineOptions {
            device,
            ..MachineOptions::default()
        },
        ..TokenizerOptions::default()
    }
}

/// Options of the small transformer.
pub fn transformer_options(out: &Path, device: DeviceChoice, seed: u64) -> TransformerOptions {
    TransformerOptions {
        exp_name: "quickstart".into(),
        tokenizer: Some(tokenizer_paths(&out.join("tokenizer")).weights),
        depth: 3,
        pn: PN.into(),
        patch_size: PATCH_SIZE,
        tblr: 8e-3,
        alng: 1e-2,
        hd: 0.1,
        data: built_in(),
        schedule: ScheduleOptions {
            bs: 32,
            ep: 1,
            wp: 0.2,
            sche: "cos".into(),
            seed: Some(seed),
            ..ScheduleOptions::default()
        },
        output: OutputOptions {
            out: out.join("var"),
            save_every: 300,
            ..OutputOptions::default()
        },
        machine: MachineOptions {
            device,
            ..MachineOptions::default()
        },
        ..TransformerOptions::default()
    }
}

/// The images that come with the program, as they are.
fn built_in() -> DataOptions {
    DataOptions {
        data_path: Some(BUILTIN_SHAPES.into()),
        mid_reso: 1.0,
        ..DataOptions::default()
    }
}

impl Quickstart {
    /// Trains, evaluates and draws; `None` when it was stopped before the end.
    ///
    /// # Errors
    /// When the folder can't be used or a run fails.
    pub fn run(&self) -> Result<Option<Summary>> {
        match self.all_parts() {
            Err(Error::Stopped) => Ok(None),
            other => other,
        }
    }

    fn all_parts(&self) -> Result<Option<Summary>> {
        let start = Instant::now();
        make_folder(&self.out)?;
        let cmd = "quickstart".to_owned();
        (self.say)("1/4  training a tokenizer on built-in images");
        let mut options = tokenizer_options(&self.out, self.device, self.seed);
        options.precision = self.precision;
        let outcome = TokenizerRun {
            options: &options,
            cmd: cmd.clone(),
            team: Team::of_one(self.stop.clone()),
            observers: (self.observers)(),
        }
        .run()?;
        if !outcome.complete {
            return Ok(None);
        }
        (self.say)("2/4  training a transformer on its tokens");
        let mut train = transformer_options(&self.out, self.device, self.seed);
        if let Some((fp16, tf32)) = self.precision.map(in_reference_flags) {
            train.fp16 = fp16;
            train.machine.tf32 = tf32.unwrap_or(train.machine.tf32);
        }
        let outcome = TransformerRun {
            options: &train,
            cmd,
            team: Team::of_one(self.stop.clone()),
            observers: (self.observers)(),
        }
        .run()?;
        if !outcome.complete {
            return Ok(None);
        }
        let plan = train.resolve(1)?;
        let data = Dataset::open(
            BUILTIN_SHAPES,
            &train.folder,
            plan.image_size,
            train.data.mid_reso,
            false,
        )?;
        (self.say)("3/4  reconstructing held-out images");
        let tokenizer = tokenizer_paths(&options.output.out).weights;
        let picture = self.out.join("reconstruction.png");
        let device = resolve_device(self.device)?;
        let back = show::reconstruct(
            &tokenizer,
            (&data, LoaderConfig::default()),
            (device, self.math()),
            &picture,
            (&self.stop, self.say),
        )?;
        (self.say)("4/4  drawing and judging samples");
        let (real_accuracy, sample_accuracy) = self.judge(&train, &data)?;
        let summary = Summary {
            seconds: start.elapsed().as_secs_f64(),
            psnr_db: back.psnr_db,
            codebook_usage: back.codebook_usage,
            real_accuracy,
            sample_accuracy,
            samples: JUDGED,
            classes: data.train.class_names().to_vec(),
        };
        let text = serde_json::to_string_pretty(&summary)
            .map_err(|e| Error::failed(format!("summary.json: {e}")))?;
        write_atomic(self.out.join("summary.json"), |w| {
            w.write_all(text.as_bytes())
        })?;
        Ok(Some(summary))
    }

    fn math(&self) -> Math {
        self.precision.unwrap_or(Precision::Tf32).math()
    }

    /// Accuracy of a nearest-neighbour classifier on held-out real images and on samples.
    fn judge(&self, train: &TransformerOptions, data: &Dataset) -> Result<(f64, f64)> {
        let side = data.side;
        let pixels = side * side * 3;
        let (images, labels) =
            show::some_images(data, LEARNT, LoaderConfig::default(), &self.stop)?;
        let judge = Judge::fit(&images, &labels, &[], side)?;
        let config = LoaderConfig::default();
        let (hits, of) = show::judge_real(&judge, data, config, &self.stop)?;
        let real = hits as f64 / of.len().max(1) as f64;
        let device = resolve_device(self.device)?;
        let options = SampleOptions {
            cfg: 2.0,
            top_k: 0,
            top_p: 0.9,
            more_smooth: false,
            noise: Noise::Seed(self.seed),
        };
        let model = transformer_paths(&train.output.out).last;
        let classes = data.classes();
        let wanted: Vec<i32> = (0..JUDGED).map(|i| (i % classes) as i32).collect();
        let mut hits = 0;
        let mut shown = vec![Vec::new(); classes];
        show::draw(
            &model,
            &wanted,
            options,
            (device, self.math()),
            &self.stop,
            |images, labels| {
                let plain: Vec<u32> = labels.iter().map(|&l| l as u32).collect();
                hits += judge.right(images, &plain)?;
                for (image, &l) in images.chunks_exact(pixels).zip(labels) {
                    if shown[l as usize].len() < SHOWN * pixels {
                        shown[l as usize].extend_from_slice(image);
                    }
                }
                Ok(())
            },
        )?;
        self.draw_grid(&shown, data)?;
        Ok((real, hits as f64 / JUDGED as f64))
    }

    /// Samples by class, a row each, with the class's name at its left.
    fn draw_grid(&self, shown: &[Vec<u8>], data: &Dataset) -> Result<()> {
        let rows: Vec<(&str, &[u8])> = data
            .train
            .class_names()
            .iter()
            .zip(shown)
            .map(|(name, tiles)| (name.as_str(), tiles.as_slice()))
            .collect();
        labelled_rows(&rows, data.side).save(&self.out.join("samples.png"))?;
        // Without the names, for pages that have their own.
        let tiles: Vec<u8> = shown.concat();
        grid(&tiles, data.side, SHOWN).save(&self.out.join("samples_plain.png"))
    }
}

/// What the command prints in the end.
pub fn report(s: &Summary, out: &Path) -> String {
    let mut t = String::new();
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let dir = out.display();
    let _ = writeln!(t, "\nquickstart took {:.0} s", s.seconds);
    let _ = writeln!(
        t,
        "  tokenizer        {:.2} dB PSNR on held-out images, {} of the codebook in use",
        s.psnr_db,
        percent(s.codebook_usage)
    );
    let _ = writeln!(
        t,
        "  classifier       names {} of held-out real images",
        percent(s.real_accuracy)
    );
    let _ = writeln!(
        t,
        "                   and {} of {} samples as intended",
        percent(s.sample_accuracy),
        s.samples
    );
    let _ = writeln!(t, "\nlook at");
    let _ = writeln!(
        t,
        "  {dir}/reconstruction.png   held-out images and what the tokenizer makes of them"
    );
    let _ = writeln!(
        t,
        "  {dir}/samples.png          images drawn by the transformer, a class a row"
    );
    let _ = writeln!(t, "  {dir}/summary.json         these figures");
    let _ = writeln!(t, "  tensorboard --logdir={dir}");
    let model = transformer_paths(&out.join("var")).last;
    let _ = writeln!(t, "\ngo on with");
    let _ = writeln!(
        t,
        "  nextscale sample --model={} --data_path={BUILTIN_SHAPES} --classes={} --per_class=8 --out=mine.png",
        model.display(),
        s.classes.first().map_or("0", String::as_str)
    );
    let _ = writeln!(t, "  nextscale check YOUR_FOLDER");
    let _ = writeln!(t, "  nextscale learn YOUR_FOLDER --minutes=30");
    t
}
