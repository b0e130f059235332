//! What came of it, in figures and in words.

use crate::input::open_input;
use crate::options::Recipe;
use crate::run::EVALUATIONS_FILE;
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
    /// Samples, and pictures of noise.
    pub judged: usize,
}

/// What `summary.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Wall time of this call.
    pub seconds: f64,
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
    /// What the transformer's run said of itself at its end.
    pub said: Vec<String>,
    /// Weights of the tokenizer.
    pub tokenizer: PathBuf,
    /// The checkpoint that was drawn from.
    pub model: PathBuf,
}

/// Loss and chance of the last evaluation in a run's folder.
pub(super) fn validation(out: &Path) -> Result<Option<[f64; 2]>> {
    #[derive(Deserialize)]
    struct Line {
        loss: Option<f64>,
        chance: Option<f64>,
    }
    let path = out.join(EVALUATIONS_FILE);
    let mut text = String::new();
    let (mut file, _) = open_input(&path)?;
    file.read_to_string(&mut text).map_err(Error::io(&path))?;
    let mut lines = text.lines().rev();
    let last: Option<Line> = lines.find_map(|line| serde_json::from_str(line).ok());
    Ok(last.and_then(|line| Some([line.loss?, line.chance?])))
}

/// What the command prints in the end.
pub fn report(s: &Summary, out: &Path) -> String {
    let mut t = String::new();
    let percent = |x: f64| format!("{:.1} %", 100.0 * x);
    let dir = out.display();
    let _ = writeln!(t, "\nlearnt in {:.1} minutes", s.seconds / 60.0);
    let _ = writeln!(
        t,
        "  tokenizer    {:.2} dB PSNR on validation images, {} of the codebook in use",
        s.psnr_db,
        percent(s.codebook_usage)
    );
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
    let Judged {
        real,
        samples,
        noise,
        judged,
    } = &s.judged;
    let _ = writeln!(
        t,
        "  classifier   names {} of real images, {} of {judged} samples and {} of noise as intended",
        percent(*real),
        percent(*samples),
        percent(*noise)
    );
    let _ = writeln!(t, "\nlook at");
    for (file, what) in [
        (
            "samples.png",
            "real images at the left, samples at the right, a class a row",
        ),
        (
            "reconstruction.png",
            "validation images, and what the tokenizer makes of them",
        ),
        ("summary.json", "these figures"),
        ("learn.json", "the options of both trainings"),
    ] {
        let _ = writeln!(t, "  {dir}/{file:<20} {what}");
    }
    let _ = writeln!(t, "  tensorboard --logdir={}", shell_word(&dir.to_string()));
    let _ = writeln!(t, "\ngo on with");
    let class = s.classes.first().map_or("0", String::as_str);
    let simple = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let class = match class.chars().all(simple) {
        true => class.to_owned(),
        false => format!("\"{}\"", class.replace('"', "\"\"")),
    };
    let _ = writeln!(
        t,
        "  nextscale sample --model={} --classes={} --per_class=16 --out=mine.png",
        shell_word(&s.model.display().to_string()),
        shell_word(&class)
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
        assert_eq!(validation(dir.path()).unwrap(), Some([4.5, 6.0]));
        std::fs::write(&path, "").unwrap();
        assert_eq!(validation(dir.path()).unwrap(), None);
    }

    #[test]
    fn figures_and_the_next_command_are_told() {
        let summary = Summary {
            seconds: 90.0,
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
                judged: 200,
            },
            classes: vec!["big cats".into()],
            said: vec!["validation loss 3.00".into()],
            tokenizer: "t".into(),
            model: "m".into(),
        };
        let text = report(&summary, Path::new("out"));
        for part in [
            "learnt in 1.5 minutes",
            "50.0 % below chance (6.00)",
            "names 50.0 % of real images, 25.0 % of 200 samples and 0.0 % of noise",
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
