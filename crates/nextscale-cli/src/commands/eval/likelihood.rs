//! `nextscale eval --likelihood`: how likely images are, and which class they are named by that.

use super::super::images::{check_parent, may_write};
use nextscale::console::counted;
use nextscale::data::ImageSource;
use nextscale::eval::{Estimated, Likelihood, LikelihoodFile};
use nextscale::{Result, Team, say, tell};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Flags of likelihoods.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct LikelihoodArgs {
    /// How likely the images are: nats an image, and bits for each of its values
    #[arg(long, help_heading = "Likelihood")]
    likelihood: bool,
    /// Likelihoods, and name every image by the class under which it is likeliest, of all the model's or of those that are present;
    /// the transformer runs once for each of them
    #[arg(
        long,
        value_enum,
        value_name = "CLASSES",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "model",
        help_heading = "Likelihood"
    )]
    zero_shot: Option<Compared>,
    /// Likelihoods, and a file with a row for every image, .jsonl or .csv
    #[arg(long, value_name = "FILE", help_heading = "Likelihood")]
    out: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long, requires = "out", help_heading = "Likelihood")]
    force: bool,
}

/// Which classes are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Compared {
    /// All that the model has
    Model,
    /// Those of the validation images
    Present,
}

/// Likelihoods that were asked for.
pub struct Asked {
    file: Option<LikelihoodFile>,
    compared: Option<Compared>,
}

impl LikelihoodArgs {
    /// Whether processes may wait long for each other.
    pub fn takes_long(&self) -> bool {
        self.zero_shot.is_some()
    }

    /// What was asked for; `None` where it was losses.
    ///
    /// # Errors
    /// Where the file can't be written.
    pub fn asked(&self) -> Result<Option<Asked>> {
        let file = self.out.as_ref().map(LikelihoodFile::new).transpose()?;
        if let Some(file) = &file {
            check_parent(file.path())?;
            may_write(file.path(), self.force)?;
        }
        let is_asked = self.likelihood || self.zero_shot.is_some() || self.out.is_some();
        Ok(is_asked.then_some(Asked {
            file,
            compared: self.zero_shot,
        }))
    }
}

impl Asked {
    /// The classes to compare, of a model with so many; what that takes is told.
    ///
    /// # Errors
    /// Where processes were asked for different ones.
    pub fn classes(&self, known: usize, source: &dyn ImageSource, team: &Team) -> Result<Vec<u32>> {
        let classes: Vec<u32> = match self.compared {
            None => Vec::new(),
            Some(Compared::Model) => (0..known as u32).collect(),
            Some(Compared::Present) => {
                let labels = (0..source.len()).map(|i| source.label(i));
                labels.collect::<BTreeSet<_>>().into_iter().collect()
            }
        };
        team.compare([("`zero_shot` with", format!("{} classes", classes.len()))])?;
        if self.compared.is_some() && team.world.is_first() {
            tell!(
                "every image is looked at under {}: the transformer does {} times the work of an evaluation of losses",
                counted(classes.len(), "class", "classes"),
                classes.len()
            );
        }
        Ok(classes)
    }

    /// Writes what was found and says it; `chance` is what a token costs a model that knows nothing.
    ///
    /// # Errors
    /// Where the file or the lines can't be written.
    pub fn report(&self, found: &Likelihood, source: &dyn ImageSource, chance: f64) -> Result<()> {
        if let Some(file) = &self.file {
            file.write(found, source)?;
        }
        let (nats, tokens) = (found.nats(), found.tokens as f64);
        say!("images              {}", found.images.len())?;
        say!("nats per image      {}", shown(nats, 3))?;
        say!("nats per token      {}", shown(nats.over(tokens), 4))?;
        let per_bit = found.nats_per_bit();
        say!("bits per dimension  {}", shown(nats.over(per_bit), 5))?;
        say!(
            "of the {} of an image, given its class; a model that knows nothing has {:.3} nats per image, {chance:.4} per token",
            counted(found.tokens, "token", "tokens"),
            chance * tokens
        )?;
        say!(
            "bits are over the {} values of an image; they are of its tokens, and no bound on the likelihood of its pixels",
            found.values
        )?;
        let n = found.compared as f64;
        for k in [1, 5] {
            // Among five all are right.
            if k > 1 && found.compared <= k {
                continue;
            }
            let Some(share) = found.top(k) else { continue };
            say!(
                "zero-shot top-{k}     {} %, chance {:.2} %",
                shown(share.over(0.01), 2),
                (100.0 * k as f64 / n).min(100.0)
            )?;
        }
        if found.compared > 0 {
            say!(
                "among {} by likelihood; naming always the most frequent one would be right for {:.2} %",
                counted(found.compared, "class", "classes"),
                100.0 * found.most_frequent()
            )?;
        }
        match &self.file {
            Some(file) => say!("by image: {}", file.path().display()),
            None => Ok(()),
        }
    }
}

/// A mean with its standard error, where it has one.
fn shown(value: Estimated, digits: usize) -> String {
    let Estimated { mean, error } = value;
    match error.is_finite() {
        true => format!("{mean:.digits$} ± {error:.digits$}"),
        false => format!("{mean:.digits$}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_value_has_no_error() {
        let one = |error| Estimated { mean: 2.0, error };
        assert_eq!(shown(one(0.25), 2), "2.00 ± 0.25");
        assert_eq!(shown(one(f64::NAN), 1), "2.0");
    }
}
