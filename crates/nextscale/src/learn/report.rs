//! What came of it, in figures and in words.

use super::{
    MODEL, PLAN_FILE, RECONSTRUCTION, SAMPLES_FILE, SUMMARY_FILE, TOKENIZER, best_or_last,
};
use crate::eval::{Tendency, Trend};
use crate::input::open_input;
use crate::options::Recipe;
use crate::run::{EVALUATIONS_FILE, tokenizer_paths};
use crate::text::shell_word;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Shares of pictures that a classifier of the folder's own classes names as intended, 0 to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Judged {
    /// Of validation images.
    pub real: f64,
    /// Of samples of the same classes.
    pub samples: f64,
    /// Of what the tokenizer's decoder makes of random codes, taken for the same classes.
    pub noise: f64,
    /// Of real images, where all are taken for the most frequent class.
    pub guessed: f64,
    /// Samples, and pictures of noise.
    pub judged: usize,
}

/// Samples that are recognised more often than noise by no more than this are not told from it.
const APART: f64 = 0.05;
/// Samples that are recognised in so large a share of what real images are, are as good as these to the classifier.
const AS_REAL: f64 = 0.8;

impl Judged {
    /// What it means, of a folder of so many classes.
    fn in_words(&self, classes: usize) -> &'static str {
        if self.samples <= self.noise + APART {
            "samples can't be told from noise: give more --minutes"
        } else if classes > 1 && self.real <= self.guessed {
            "real images are named no better than by guessing, so this says little of these classes; samples are more than noise"
        } else if self.samples >= AS_REAL * self.real {
            "samples are recognised about as often as real images"
        } else {
            "samples are more than noise, and recognised less often than real images: more --minutes would help"
        }
    }
}

/// What `summary.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Wall time of all calls.
    pub seconds: f64,
    /// Minutes that were asked for.
    pub minutes: f64,
    /// What was chosen.
    pub recipe: Recipe,
    /// Training images.
    pub images: usize,
    /// Side of the images that were learnt.
    pub side: usize,
    /// Mean PSNR of validation images through the tokenizer.
    pub psnr_db: f64,
    /// Share of the codebook that validation images use, 0 to 1.
    pub codebook_usage: f64,
    /// The last evaluation's loss, and that of a model that knows nothing.
    pub validation: Option<[f64; 2]>,
    /// Whether pictures can be recognised.
    pub judged: Judged,
    /// Classes of the data.
    pub classes: Vec<String>,
    /// What would make it better.
    pub said: Vec<String>,
    /// Weights of the tokenizer.
    pub tokenizer: PathBuf,
    /// The checkpoint that was drawn from.
    pub model: PathBuf,
}

/// The losses of a run's evaluations, and chance.
pub(super) fn validation(out: &Path) -> Result<(Trend, f64)> {
    #[derive(Deserialize)]
    struct Line {
        iteration: u64,
        loss: Option<f64>,
        chance: Option<f64>,
    }
    let path = out.join(EVALUATIONS_FILE);
    let (mut trend, mut last) = (Trend::default(), f64::INFINITY);
    for line in text_of(&path)?.lines() {
        let Ok(line) = serde_json::from_str::<Line>(line) else {
            continue;
        };
        if let (Some(loss), Some(chance)) = (line.loss, line.chance) {
            trend.push(line.iteration, loss);
            last = chance;
        }
    }
    Ok((trend, last))
}

fn text_of(path: &Path) -> Result<String> {
    let mut text = String::new();
    let (mut file, _) = open_input(path)?;
    file.read_to_string(&mut text).map_err(Error::io(path))?;
    Ok(text)
}

/// What an earlier call came to, where it was finished and its files are still there.
pub(super) fn finished(out: &Path) -> Result<Option<Summary>> {
    let path = out.join(SUMMARY_FILE);
    let pictures = [SAMPLES_FILE, RECONSTRUCTION].map(|name| out.join(name));
    if !path.is_file() || !pictures.iter().all(|picture| picture.is_file()) {
        return Ok(None);
    }
    // What can't be read is made again.
    let bytes = std::fs::read(&path).map_err(Error::io(&path))?;
    let summary: Option<Summary> = serde_json::from_slice(&bytes).ok();
    // The folder may have been moved since.
    let summary = summary.map(|s| Summary {
        tokenizer: tokenizer_paths(&out.join(TOKENIZER)).weights,
        model: best_or_last(&out.join(MODEL)),
        ..s
    });
    Ok(summary.filter(|s| s.tokenizer.is_file() && s.model.is_file()))
}

/// What would help a transformer whose validation loss went so.
pub(super) fn advice(tendency: Tendency) -> String {
    match tendency {
        Tendency::Unknown => "too few steps to tell whether it still falls: give more `minutes`",
        Tendency::HardlyBetter => {
            "hardly better than chance: give more `minutes`, or a smaller `size`"
        }
        Tendency::Rising { .. } => {
            "rising again, as it learns the images by heart; its best state is kept. More images or `hflip`=1 would help more than time"
        }
        Tendency::Falling => "still falling: more `minutes` would help",
        Tendency::Level => "no longer falling: more images would help more than time",
    }
    .to_owned()
}

/// So much longer than asked for is told.
const LATE: f64 = 1.15;
/// A PSNR below which pictures are hardly recognised, in dB.
const BLOBS: f64 = 18.0;

/// What the command prints in the end.
pub fn report(s: &Summary, out: &Path) -> String {
    let mut t = String::new();
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let dir = out.display();
    let took = s.seconds / 60.0;
    let late = match took > LATE * s.minutes {
        true => format!(
            ", more than the {} asked for: the machine was busier than when steps were timed, or it is too little time for the fewest steps",
            s.minutes
        ),
        false => String::new(),
    };
    let _ = writeln!(t, "\nlearnt in {took:.1} minutes{late}");
    let _ = writeln!(
        t,
        "  tokenizer    {:.2} dB PSNR on validation images, {} of the codebook in use",
        s.psnr_db,
        percent(s.codebook_usage)
    );
    if s.psnr_db < BLOBS {
        let smaller = match s.recipe.smaller().and_then(Recipe::side) {
            Some(side) => format!(", or --size={side}"),
            None => String::new(),
        };
        let _ = writeln!(
            t,
            "               pictures lose their details below about {BLOBS} dB: give more --minutes{smaller}"
        );
    }
    if let Some([loss, chance]) = s.validation {
        let below = percent(1.0 - loss / chance);
        let _ = writeln!(
            t,
            "  transformer  validation loss {loss:.2}, {below} below chance ({chance:.2})"
        );
    }
    for line in &s.said {
        let _ = writeln!(t, "               {line}");
    }
    let j = &s.judged;
    let [real, samples, noise] = [j.real, j.samples, j.noise].map(percent);
    let _ = match s.classes.len() {
        1 => writeln!(
            t,
            "  classifier   takes {real} of real images, {samples} of {} samples and {noise} of noise for images of the folder, the others for noise",
            j.judged
        ),
        _ => writeln!(
            t,
            "  classifier   names {real} of real images, {samples} of {} samples and {noise} of noise as intended; {} would be the most frequent class always",
            j.judged,
            percent(j.guessed)
        ),
    };
    let _ = writeln!(t, "               {}", j.in_words(s.classes.len()));
    let _ = writeln!(t, "\nlook at");
    for (file, what) in [
        (
            SAMPLES_FILE,
            "real images at the left, samples at the right, a class a row",
        ),
        (
            RECONSTRUCTION,
            "validation images, and what the tokenizer makes of them",
        ),
        (SUMMARY_FILE, "these figures"),
        (PLAN_FILE, "the options of both trainings"),
    ] {
        let _ = writeln!(t, "  {dir}/{file:<20} {what}");
    }
    let _ = writeln!(t, "  tensorboard --logdir={}", shell_word(&dir.to_string()));
    let _ = writeln!(t, "\ngo on with");
    let file = |name: &str| shell_word(&out.join(name).display().to_string()).to_string();
    let model = shell_word(&s.model.display().to_string()).to_string();
    let class = s.classes.first().map_or("0", String::as_str);
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let class = match class.chars().all(simple) {
        true => class.to_owned(),
        false => format!("\"{}\"", class.replace('"', "\"\"")),
    };
    let _ = writeln!(
        t,
        "  nextscale sample --model={model} --classes={} --per_class=16 --out={}",
        shell_word(&class),
        file("mine.png")
    );
    let _ = writeln!(
        t,
        "  nextscale edit --model={model} --image=IMAGE --box=0.25,0.25,0.75,0.75 --out={}",
        file("edited.png")
    );
    let _ = writeln!(
        t,
        "  nextscale reconstruct IMAGE --tokenizer={} --out={}",
        shell_word(&s.tokenizer.display().to_string()),
        file("back.png")
    );
    let _ = writeln!(
        t,
        "  the same command with more --minutes and another --out: more of everything"
    );
    t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_evaluation_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(EVALUATIONS_FILE);
        std::fs::write(&path, "{\"iteration\":3,\"loss\":5.0,\"chance\":6.0}\n{\"iteration\":6,\"loss\":4.5,\"chance\":6.0}\n").unwrap();
        let (trend, chance) = validation(dir.path()).unwrap();
        assert_eq!((trend.last(), chance), (Some(4.5), 6.0));
        std::fs::write(&path, "").unwrap();
        assert_eq!(validation(dir.path()).unwrap().0.last(), None);
    }

    #[test]
    fn a_finished_folder_is_known_by_its_files() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (tokenizer, model) = (
            "tokenizer/tokenizer.safetensors",
            "model/ar-ckpt-last.safetensors",
        );
        for folder in [TOKENIZER, MODEL] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        let summary = summary();
        std::fs::write(at(SUMMARY_FILE), serde_json::to_string(&summary).unwrap()).unwrap();
        for name in [SAMPLES_FILE, RECONSTRUCTION, tokenizer, model] {
            assert_eq!(finished(dir.path()).unwrap(), None, "{name}");
            std::fs::write(at(name), "").unwrap();
        }
        let found = finished(dir.path()).unwrap().unwrap();
        assert_eq!((found.tokenizer, found.model), (at(tokenizer), at(model)));
        std::fs::write(at(SUMMARY_FILE), "{").unwrap();
        assert_eq!(finished(dir.path()).unwrap(), None);
    }

    #[test]
    fn being_late_is_told() {
        let text = |minutes| {
            let summary = Summary {
                minutes,
                ..summary()
            };
            report(&summary, Path::new("out"))
        };
        assert!(text(1.0).contains("learnt in 1.5 minutes, more than the 1 asked for"));
        assert!(text(1.4).contains("learnt in 1.5 minutes\n"));
    }

    #[test]
    fn the_classifier_is_told_in_words() {
        let said = |real, samples, noise, guessed, classes| {
            let judged = Judged {
                real,
                samples,
                noise,
                guessed,
                judged: 200,
            };
            judged.in_words(classes)
        };
        assert!(said(0.9, 0.02, 0.01, 0.5, 3).contains("can't be told from noise"));
        assert!(said(0.4, 0.3, 0.1, 0.5, 3).contains("no better than by guessing"));
        assert!(said(0.4, 0.35, 0.1, 1.0, 1).contains("about as often"));
        assert!(said(0.9, 0.5, 0.1, 0.3, 3).contains("less often"));
    }

    #[test]
    fn low_figures_are_told_with_what_helps() {
        let blobs = Summary {
            psnr_db: 15.7,
            classes: vec!["all".into()],
            said: vec![advice(Tendency::Falling)],
            ..summary()
        };
        let text = report(&blobs, Path::new("out"));
        for part in [
            "below about 18 dB: give more --minutes, or --size=32",
            "still falling: more `minutes` would help",
            "takes 50.0 % of real images, 25.0 % of 200 samples",
            "recognised less often than real images",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    fn summary() -> Summary {
        Summary {
            seconds: 90.0,
            minutes: 1.4,
            recipe: Recipe::Small64,
            images: 10,
            side: 64,
            psnr_db: 20.0,
            codebook_usage: 0.5,
            validation: Some([3.0, 6.0]),
            judged: Judged {
                real: 0.5,
                samples: 0.25,
                noise: 0.0,
                guessed: 0.375,
                judged: 200,
            },
            classes: vec!["big cats".into(), "dogs".into()],
            said: vec!["validation loss 3.00".into()],
            tokenizer: "t".into(),
            model: "m".into(),
        }
    }

    #[test]
    fn figures_and_the_next_command_are_told() {
        let summary = summary();
        let text = report(&summary, Path::new("out"));
        for part in [
            "learnt in 1.5 minutes",
            "50.0 % below chance (6.00)",
            "names 50.0 % of real images, 25.0 % of 200 samples and 0.0 % of noise",
            "37.5 % would be the most frequent class always",
            "--classes='\"big cats\"'",
            "out/samples.png",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        let back: Summary =
            serde_json::from_str(&serde_json::to_string(&summary).unwrap()).unwrap();
        assert_eq!(back, summary);
    }
}
