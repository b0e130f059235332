//! Checks this build of nextscale against numbers that the PyTorch reference produced, and scores of pictures against those of the public packages.
//!
//! ```no_run
//! use nextscale_verify::{Bundle, Machine, Verdict};
//!
//! for bundle in Bundle::find("fixtures")? {
//!     let counts = bundle.check(Machine::CPU, &mut |line| {
//!         if line.verdict != Verdict::Pass {
//!             println!("{line}");
//!         }
//!     })?;
//!     println!("{}: {counts}", bundle.path.display());
//! }
//! # Ok::<(), nextscale::Error>(())
//! ```
//!
//! A *bundle* is a folder of such numbers. What kind of numbers it holds is told by its content ([`Kind`]), and
//! everything else, sizes, depths, options, file names, by its JSON, its tensors' shapes and its file names; nothing is
//! assumed. A `.gz` file counts as the file that is packed in it. Some kinds need a bundle beside them: `sampling` the models of
//! `../vae` and `../var`, `vqvae_train` the model and the images of `../vae`; `var` and `checkpoint` check less without.
//!
//! # When a quantity passes
//!
//! - **Token indices** are equal wherever they are decided: where the smallest gap that the bundle records for their scale,
//!   or the gap between the two best codes of that very token, is large against float noise. Where a token that is *not*
//!   decided differs, everything after it is checked with the recorded tokens, so that one coin toss hides no error.
//! - **Float32 quantities** keep within twice the noise floor of their section. `noise_floor.json` records for every quantity how far
//!   the reference is from itself with another number of threads and in float64; a section's floor is the worst of its
//!   quantities, as its README states it. It counts in two ways, either of which suffices: as relative L2 difference, and as
//!   largest absolute difference relative to the quantity's own largest magnitude. (A floor in plain absolute numbers would
//!   let a quantity of small numbers pass whatever it is.) Parameters' gradients have a floor apart from the forward results of their
//!   section, being noisier; among gradients the worst absolute difference counts as it is too, since their noise is that of the
//!   terms which cancel in them. Without a record, the tolerance that the READMEs suggest for the kind holds.
//! - **Parameters after optimizer steps**: where a gradient is all but zero, Adam turns its rounding noise into a step of up to the learning
//!   rate. So there the READMEs' tolerance holds too: 5e-5 relative L2, at most 0.1 % of the elements more than 1e-5 apart and none more
//!   than the learning rate.
//! - **Runs of many steps** amplify noise: each loss keeps within 1e-4 of its value, from the sixth on within four times the absolute
//!   difference that `noise_floor.json` records for the run's losses where that is wider; gradient norms within 1e-3 in the first five
//!   steps and 2e-2 later. A run's label smoothing is what its files state, or what explains its first loss. Smooth sampling amplifies it too: from the third scale on, 2e-3 suffices.
//! - **Schedules** agree to 1e-15 of each value, loss-scaler traces, token counts, file contents and layouts exactly.
//! - **Scores of pictures**, and what the Inception network makes of them, keep within a relative difference of 1e-4, on a GPU 1e-3.
//! - **Images** from lossless files are nowhere more than one grey level from Pillow's and equal in 99.5 % of the values; those from JPEG files,
//!   which depend on the decoder, differ by at most half a grey level in the mean.
//!
//! # Parts of quantities
//!
//! A name that ends in `_subN` holds every N-th row and column, fewer samples than there were are the first ones, and a plain list of numbers
//! where a tensor has several axes is spread evenly over all of it. What a bundle holds and nobody looked at, files and tensors,
//! is named at the end as not compared.
//!
//! # On a GPU
//!
//! In float32 every limit is four times as wide: sums are cut into other pieces than on a CPU. In half precision the losses of
//! single passes keep within 1 %, and so does every loss of a run from the weights that the run in float32 has at that step. Of the run that goes on
//! by itself the first five losses and the mean do; its later single losses are chance (the reference's own autocast is 2 to 11 % off at
//! the farthest, see `benches/pytorch/recorded_run.py`). What else a model computes is shown beside the record and not judged.
//!
//! Statistics of whole tensors (norm, sum, largest magnitude) may differ by what a difference within the limit can make of them: a sum
//! of n numbers by √n times the norm of the difference.

// Printing is for whoever uses the library.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod amp;
mod checkpoint;
mod compare;
mod dump;
mod floor;
mod folder;
mod grads;
mod interpolate;
mod machine;
mod models;
mod part;
mod recorded;
mod report;
mod sampling;
mod schedules;
mod score;
mod tokens;
mod transforms;
mod vae;
mod var;
mod vqvae_train;

pub use compare::Difference;
pub use dump::dump_gradients;
pub use machine::Machine;
pub use report::{Counts, Line, Verdict};

use folder::Folder;
use nextscale::{Error, Result};
use report::Report;
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How deep folders of bundles may lie in each other.
const MAX_DEPTH: usize = 3;

/// What a bundle holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A trace of the loss scaler.
    Amp,
    /// A training checkpoint and what resuming from it gives.
    Checkpoint,
    /// Resizing of feature maps and the choice of φ.
    Interpolate,
    /// Filters and autoregressive runs.
    Sampling,
    /// Learning rate, weight decay and progressive stages.
    Schedules,
    /// The Inception network and scores of pictures.
    Score,
    /// Decoding, resizing and cropping of images.
    Transforms,
    /// The tokenizer in use.
    Vae,
    /// The transformer: forward, gradients, optimizer steps, runs.
    Var,
    /// The tokenizer's training pass.
    VqvaeTrain,
}

impl Kind {
    /// The kind's name, that of its folder among the repository's fixtures.
    pub fn name(self) -> &'static str {
        match self {
            Self::Amp => "amp",
            Self::Checkpoint => "checkpoint",
            Self::Interpolate => "interpolate",
            Self::Sampling => "sampling",
            Self::Schedules => "schedules",
            Self::Score => "score",
            Self::Transforms => "transforms",
            Self::Vae => "vae",
            Self::Var => "var",
            Self::VqvaeTrain => "vqvae_train",
        }
    }
}

/// A folder of recorded numbers of one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// The folder.
    pub path: PathBuf,
    /// What it holds.
    pub kind: Kind,
}

impl Bundle {
    /// The bundles at `path`: the folder itself or, where it is none, those in its folders, sorted by name. A folder with numbers
    /// of several kinds is as many bundles.
    ///
    /// # Errors
    /// [`Error::Input`] when there is no such folder or no bundle in it.
    pub fn find(path: impl AsRef<Path>) -> Result<Vec<Self>> {
        let path = path.as_ref();
        let bad = |why: &str| Error::input(format!("{}: {why}", path.display()));
        match std::fs::metadata(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Err(bad(
                    "there is no such folder; name a folder of recorded numbers",
                ));
            }
            Err(e) => return Err(Error::io(path)(e)),
            Ok(m) if !m.is_dir() => {
                return Err(bad(
                    "is a file; name the folder of recorded numbers it lies in",
                ));
            }
            Ok(_) => {}
        }
        let mut found = Vec::new();
        collect(path, 0, &mut found)?;
        if found.is_empty() {
            let none = bad(
                "holds no recorded numbers (a folder such as fixtures/vae, with .safetensors, .json or .csv files of the reference)",
            );
            return Err(match unreadable(path) {
                Some(why) => none.and(&why.to_string()),
                None => none,
            });
        }
        Ok(found)
    }

    /// Checks the bundle on a machine; `see` gets a line for every quantity.
    ///
    /// # Errors
    /// [`Error::Input`] when a file is damaged or contradicts another, or a bundle that this one needs is missing.
    pub fn check(&self, machine: Machine, see: &mut dyn FnMut(&Line)) -> Result<Counts> {
        let folder = Folder::open(&self.path)?.on(machine);
        let mut report = Report::new(machine, see);
        let check = match self.kind {
            Kind::Amp => amp::check,
            Kind::Checkpoint => checkpoint::check,
            Kind::Interpolate => interpolate::check,
            Kind::Sampling => sampling::check,
            Kind::Schedules => schedules::check,
            Kind::Score => score::check,
            Kind::Transforms => transforms::check,
            Kind::Vae => vae::check,
            Kind::Var => var::check,
            Kind::VqvaeTrain => vqvae_train::check,
        };
        check(&folder, &mut report).map_err(|e| match e {
            // Models are sound by themselves: what an operator refuses comes from the bundle.
            Error::Tensor(e) => Error::input(format!(
                "{}: its numbers do not fit each other: {e}",
                self.path.display()
            )),
            other => other,
        })?;
        self.left_out(&folder, &mut report);
        if report.counts.passed + report.counts.failed == 0 {
            return Err(Error::input(format!(
                "{}: holds nothing that can be compared",
                self.path.display()
            )));
        }
        Ok(report.counts)
    }

    /// Names what was not looked at, so that nothing is left out silently.
    fn left_out(&self, folder: &Folder, report: &mut Report<'_>) {
        let unread: Vec<String> = folder.unread().into_iter().map(str::to_owned).collect();
        let overlooked = folder.overlooked();
        let kinds = kinds_of(folder);
        let others = |file: &str| {
            let of = kind_of_file(folder, file);
            of.map_or(kinds.first() != Some(&self.kind), |k| k != self.kind)
        };
        for file in unread.iter().filter(|f| !others(f)) {
            if !report.was_told(file) {
                report.unchecked(file.as_str(), "nothing is known of such a file");
            }
        }
        for (file, name) in overlooked.iter().filter(|(f, _)| !others(f)) {
            if !report.was_told(name) && !report.was_told(file) {
                let stem = file.strip_suffix(".safetensors").unwrap_or(file);
                report.unchecked(format!("{stem}/{name}"), "no known quantity");
            }
        }
    }
}

fn collect(path: &Path, depth: usize, found: &mut Vec<Bundle>) -> Result<()> {
    let kinds = kinds_of(&Folder::open(path)?);
    if !kinds.is_empty() {
        found.extend(kinds.into_iter().map(|kind| Bundle {
            path: path.to_path_buf(),
            kind,
        }));
        return Ok(());
    }
    if depth == MAX_DEPTH {
        return Ok(());
    }
    let entries = std::fs::read_dir(path).map_err(Error::io(path))?;
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    for folder in folders {
        collect(&folder, depth + 1, found)?;
    }
    Ok(())
}

/// The kinds that the folder's files show. Files that can't be read show none.
fn kinds_of(folder: &Folder) -> BTreeSet<Kind> {
    folder
        .names()
        .filter_map(|file| kind_of_file(folder, file))
        .collect()
}

/// Why the first of a folder's files that can't be read can't.
fn unreadable(path: &Path) -> Option<Error> {
    let folder = Folder::open(path).ok()?;
    let why = |file: &str| {
        if file.ends_with(".safetensors") {
            folder.tensor_names(file).err()
        } else if file.ends_with(".json") {
            folder.json(file).err()
        } else if file.ends_with(".csv") {
            folder.text(file).err()
        } else {
            None
        }
    };
    folder.names().find_map(why)
}

/// The kind that a file's content shows.
fn kind_of_file(folder: &Folder, file: &str) -> Option<Kind> {
    if file.ends_with(".safetensors") {
        kind_of_tensors(&folder.tensor_names(file).ok()?)
    } else if file.ends_with(".json") {
        kind_of_json(&folder.json(file).ok()?)
    } else if file.ends_with(".csv") {
        let text = folder.text(file).ok()?;
        let known = schedules::is_known(text.lines().next().unwrap_or_default());
        known.then_some(Kind::Schedules)
    } else {
        None
    }
}

fn kind_of_tensors(names: &[String]) -> Option<Kind> {
    let has = |name: &str| names.iter().any(|n| n == name);
    let starts = |lead: &str| names.iter().any(|n| n.starts_with(lead));
    // More telling names first: several kinds have indices and losses.
    Some(
        if starts("guided_logits.0") || names.iter().any(|n| n.ends_with(".masked")) {
            Kind::Sampling
        } else if has("vq_loss") {
            Kind::VqvaeTrain
        } else if has("losses_after_resume") || (starts("param.") && starts("exp_avg.")) {
            Kind::Checkpoint
        } else if starts("area_") || starts("bicubic_") {
            Kind::Interpolate
        } else if names.iter().any(|n| score::is_known(n)) {
            Kind::Score
        } else if has("gt_BL") || has("x_BLCv_wo_first_l") || starts("step1.") {
            Kind::Var
        } else if (has("image_u8") || has("image")) && (has("idx.0") || has("recon") || has("f")) {
            Kind::Vae
        } else if names.iter().any(|n| transforms::side_of(n).is_some()) {
            Kind::Transforms
        } else {
            return None;
        },
    )
}

fn kind_of_json(json: &Json) -> Option<Kind> {
    let has = |key: &str| json.get(key).is_some();
    Some(if has("scale_before_runs") && has("found_inf_steps") {
        Kind::Amp
    } else if has("var_keys") && has("optimizer_keys") {
        Kind::Checkpoint
    } else if has("tuples") && json["tuples"].is_object() {
        Kind::Interpolate
    } else if has("formula_scores") && has("weights") {
        Kind::Score
    } else if has("variants") && json["variants"].is_object() {
        Kind::Var
    } else {
        return None;
    })
}

/// The example of the README is right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
