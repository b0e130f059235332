//! The flags of `score`.

use super::super::machine::MachineArgs;
use super::super::sweep::{self, Sweep};
use super::super::weights_args::WeightsArgs;
use super::sides::{Side, split_of};
use nextscale::options::values::BadImages;
use nextscale::options::{CanvasOptions, Given};
use nextscale::score::{Metric, Protocol};
use nextscale::{Error, Result};
use std::path::PathBuf;

/// Pixels along a side at most.
const MOST_SIDE: usize = 4096;
/// Samples at most.
const MOST: usize = 10_000_000;

/// Flags of `score`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    pub given: Given,
    /// What is judged: a folder of images or shards (FOLDER:train or FOLDER:val: the part that trainings take of it), an .npz file of images
    /// (arr_0), builtin:shapes, a transformer's checkpoint (images are drawn, judged and thrown away), or a tokenizer (what it makes of the
    /// reference's images)
    #[arg(value_name = "SAMPLES")]
    pub samples: String,
    /// What it is held against: a folder of images or shards (FOLDER:val: the images that trainings hold out), an .npz file of images or of
    /// statistics (mu, sigma, mu_s, sigma_s), or builtin:shapes
    #[arg(long, value_name = "REF")]
    pub reference: Option<String>,
    /// With FOLDER:train and FOLDER:val: the --val_share that the trainings were given
    #[arg(long, value_name = "X")]
    pub val_share: Option<f64>,
    /// How numbers are computed; several, separated by commas, give a row each. Numbers of different protocols can't be compared. Not
    /// with features of train-features. torch-fidelity's precision and recall are those of --feature_extractor=inception-v3-compat
    #[arg(long, value_enum, value_delimiter = ',', default_value = "adm")]
    pub protocol: Vec<Protocol>,
    /// The network: a file of the Inception network as the protocols use it, or one of train-features
    #[arg(long, value_name = "FILE")]
    pub features: Option<PathBuf>,
    /// For LPIPS of a tokenizer: the weights of VGG-16 (vgg16-397923af.pth)
    #[arg(long, value_name = "FILE", requires = "lpips")]
    pub vgg: Option<PathBuf>,
    /// For LPIPS of a tokenizer: its linear heads (vgg.pth of the package lpips, version 0.1)
    #[arg(long, value_name = "FILE", requires = "vgg")]
    pub lpips: Option<PathBuf>,
    /// The numbers to compute, separated by commas; without it all that the protocol knows
    #[arg(long, value_enum, value_delimiter = ',')]
    pub metrics: Vec<Metric>,
    /// Images of both sides are resized to this side and their middle is cut out first; 0: they stay as they are; without it the side of the
    /// model where one draws, else with features of train-features their side, else 0
    #[arg(long, value_name = "N")]
    pub size: Option<usize>,
    /// With --size: images are resized to this many times the side before the cut
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub mid_reso: f64,
    /// Images to draw
    #[arg(long = "count", value_name = "N", default_value_t = 10_000)]
    pub count: usize,
    /// The tokenizer, where the transformer's file does not hold it
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Classes to draw, separated by commas, in turn; without it all
    #[arg(long, value_name = "LIST", visible_alias = "class")]
    pub classes: Option<String>,
    /// Guidance: 0 none, larger values follow the class more strictly
    #[arg(long, value_name = "X", default_value_t = 1.5)]
    pub cfg: f32,
    /// Draw from the k likeliest codes; 0: from all; 1: always the likeliest
    #[arg(long, value_name = "N", default_value_t = 900)]
    pub top_k: usize,
    /// Draw from the likeliest codes that make up this probability; 0: from all
    #[arg(long, value_name = "X", default_value_t = 0.96)]
    pub top_p: f32,
    /// Seed; image number n of a seed is drawn with the same numbers whatever --batch is
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Blend codes for smoother pictures
    #[arg(long)]
    pub more_smooth: bool,
    /// Draw and judge with every combination of these values: cfg=1:3:0.5 (from, to, step) or top_p=0.9,0.96,1; cfg, top_k and top_p can be
    /// given. The table has a row for each, and a plot is written beside it (.svg)
    #[arg(long, value_name = "FLAG=VALUES", num_args = 1..)]
    pub sweep: Vec<String>,
    /// Keep the samples' statistics for later, as a reference (.npz)
    #[arg(long, value_name = "FILE")]
    pub save_statistics: Option<PathBuf>,
    /// The result as JSON
    #[arg(long, value_name = "FILE", default_value = "score.json")]
    pub out: PathBuf,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    pub batch: usize,
    /// What happens to image files that can't be decoded
    #[arg(long, value_enum, default_value_t = BadImages::Fail)]
    pub bad_images: BadImages,
    #[command(flatten)]
    pub canvas: CanvasOptions,
    #[command(flatten)]
    pub weights: WeightsArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
}

impl Args {
    /// Checks what needs no file.
    pub fn check(&self) -> Result<()> {
        let counts = [("batch", self.batch, 1 << 16), ("count", self.count, MOST)];
        for (name, value, most) in counts {
            if !(1..=most).contains(&value) {
                let needed = format!("it must be from 1 to {most}");
                return Err(Error::field(name, value, needed));
            }
        }
        // Statistics are kept for distances, with or without one now.
        if self.reference.is_none()
            && self.save_statistics.is_none()
            && let Some(metric) = self.metrics.iter().find(|m| m.needs_reference())
        {
            return Err(Error::input(format!(
                "--metrics={}: it holds samples against others; give these with --reference",
                metric.name()
            )));
        }
        if let Some(share) = self.val_share {
            let needed = if !(share > 0.0 && share < 1.0) {
                "it must be more than 0 and less than 1, such as 0.05"
            } else if !self.has_split() {
                "it says which images FOLDER:train and FOLDER:val are; give one of these, or leave it out"
            } else {
                ""
            };
            if !needed.is_empty() {
                return Err(Error::field("val_share", share, needed));
            }
        }
        if self.save_statistics.is_some() && !self.sweep.is_empty() {
            return Err(Error::input(
                "--save_statistics: with --sweep there are several sets of samples; leave one of the two away",
            ));
        }
        if self.save_statistics.is_some() && self.protocol.len() > 1 {
            return Err(Error::input(
                "--save_statistics: statistics are those of one protocol; give one",
            ));
        }
        if let Some(size) = self.size
            && size > MOST_SIDE
        {
            let needed = format!("it must be from 0 to {MOST_SIDE}");
            return Err(Error::field("size", size, needed));
        }
        let ranges = [("cfg", self.cfg, 1000.0), ("top_p", self.top_p, 1.0)];
        for (name, value, most) in ranges {
            if !(0.0..=most).contains(&value) {
                return Err(Error::field(
                    name,
                    value,
                    format!("it must be from 0 to {most}"),
                ));
            }
        }
        Ok(())
    }

    /// Refuses flags that were given and change nothing for samples of this kind.
    pub fn check_for(&self, samples: &Side, is_cut: bool) -> Result<()> {
        let (is_model, is_tokenizer) = match samples {
            Side::Model(_) => (true, false),
            Side::Tokenizer(_) => (false, true),
            Side::Stored(_) | Side::Npz { .. } => (false, false),
        };
        let draws = ["count", "classes", "cfg", "top_k", "top_p", "more_smooth"];
        let draws = draws.map(|flag| (flag, is_model, "nothing is drawn from SAMPLES"));
        let rest = [
            ("sweep", is_model, "nothing is drawn from SAMPLES"),
            ("tokenizer", is_model, "it belongs to a transformer"),
            ("vgg", is_tokenizer, "LPIPS is that of a tokenizer's images"),
            ("mid_reso", is_cut, "images are not cut; give --size"),
        ];
        let idle = |(flag, counts, _): &(&str, bool, &str)| self.given.has(flag) && !counts;
        match draws.into_iter().chain(rest).find(idle) {
            Some((flag, _, why)) => {
                Err(Error::input(format!("--{flag}: {why}; leave the flag out")))
            }
            None => Ok(()),
        }
    }

    /// Whether a side is a split of a folder.
    fn has_split(&self) -> bool {
        let sides = [Some(&self.samples), self.reference.as_ref()];
        let is_split = |text: &String| split_of(text).is_some();
        sides.into_iter().flatten().any(is_split)
    }

    /// The sweeps; each flag stands once.
    pub fn sweeps(&self) -> Result<Vec<Sweep>> {
        let mut sweeps: Vec<Sweep> = Vec::new();
        for text in &self.sweep {
            let sweep = sweep::of_flag(text)?;
            let flag = sweep.flag.name();
            if self.given.has(flag) || sweeps.iter().any(|s| s.flag == sweep.flag) {
                return Err(Error::input(format!(
                    "--sweep={text}: {flag} is given twice; leave one away"
                )));
            }
            sweeps.push(sweep);
        }
        Ok(sweeps)
    }

    /// The numbers asked for.
    pub fn wanted(&self) -> Vec<Metric> {
        match self.metrics.is_empty() {
            true => Metric::ALL.to_vec(),
            false => self.metrics.clone(),
        }
    }
}
