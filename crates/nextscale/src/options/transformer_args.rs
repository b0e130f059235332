//! The options of `train` from a command line, with what follows from a recipe and from files.

use super::values::parse_pn;
use super::{Given, Recipe, Size, TransformerOptions, precision, reference_flags, sizes};
use crate::checkpoint::open::{canvas_in, sizes_in};
use crate::world::World;
use crate::{Result, advice};
use clap::{Args, FromArgMatches};

/// [`TransformerOptions`] as read from a command line: `--recipe` has filled the flags that were not given, and the reference's other
/// flags are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct TransformerArgs {
    /// The flags.
    pub options: TransformerOptions,
    /// A line for each flag that was given and does nothing.
    pub does_nothing: Vec<String>,
    /// Whether `--pn` and `--patch_size` were given, by themselves, by a published model's recipe or a size.
    sizes_given: [bool; 2],
    /// The flags that were given.
    given: Given,
}

impl TransformerArgs {
    /// The flags, with those of `--recipe=auto` chosen, and `--pn` and `--patch_size`, where they were not given, taken from the file of
    /// the tokenizer or of tokens, where that says them, `--background` and `--aspect` from that of the tokenizer; with what was chosen, a
    /// line each. What is wrong with a file is said by whoever opens it. Of several processes the first one chooses.
    ///
    /// # Errors
    /// When the recipe is to be chosen for a folder that can't be used, or another process is gone.
    pub fn completed(&self, world: &World) -> Result<(TransformerOptions, Vec<String>)> {
        let mut options = self.options.clone();
        let chosen = match options.recipe {
            Some(Recipe::Auto) => {
                let was_given = |flag: &str| self.was_given(flag);
                let chosen = advice::choose_transformer(&mut options, was_given, world)?;
                Some(chosen)
            }
            _ => None,
        };
        let other_size = self.sizes(&mut options);
        let chosen = chosen.into_iter().chain(other_size).collect();
        if let (None, Some(tokenizer)) = (&options.tokens, &options.tokenizer) {
            let trained = canvas_in(tokenizer).ok().flatten();
            options.folder = options.folder.or_as(trained);
        }
        Ok((options, chosen))
    }

    /// Whether a flag has a value from the command line; `--precision` gives the reference's flag for it.
    pub(super) fn was_given(&self, flag: &str) -> bool {
        self.given.has(flag) || (flag == "fp16" && self.given.has("precision"))
    }

    /// Takes sizes from files; what to tell where they are others than the recipe's.
    fn sizes(&self, options: &mut TransformerOptions) -> Option<String> {
        let [pn_given, patch_given] = self.sizes_given;
        if pn_given && patch_given {
            return None;
        }
        let files = [&self.options.tokenizer, &self.options.tokens]
            .into_iter()
            .flatten();
        let mut said = files.filter_map(|path| sizes_in(path).ok().flatten());
        let (pn, patch) = said.next()?;
        if !pn_given {
            options.pn = pn;
        }
        if !patch_given {
            options.patch_size = patch;
        }
        let recipe = options.recipe?;
        let side = parse_pn(&options.pn).ok()?.last()? * options.patch_size;
        (recipe.side()? != side).then(|| {
            format!(
                "`recipe`={}: the tokenizer or tokens given are of pictures of {side} pixels, and these are learnt",
                recipe.name()
            )
        })
    }
}

fn with_size(command: clap::Command) -> clap::Command {
    let command = precision::add(reference_flags::add(command));
    sizes::add(command, ["pn", "patch_size"])
}

impl Args for TransformerArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        with_size(TransformerOptions::augment_args(command))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        with_size(TransformerOptions::augment_args_for_update(command))
    }
}

impl FromArgMatches for TransformerArgs {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut options = TransformerOptions::from_arg_matches(matches)?;
        let precision = precision::given(matches)?;
        let given = Given::of(matches);
        let is_given = |flag: &str| given.has(flag);
        if let Some(recipe) = options.recipe {
            recipe.apply(&mut options, is_given);
        }
        if let Some((fp16, tf32)) = precision {
            options.fp16 = fp16;
            options.machine.tf32 = tf32.unwrap_or(options.machine.tf32);
        }
        let size = Size::given(matches);
        if let Some(size) = size {
            options.pn = size.pn.to_owned();
            options.patch_size = size.patch_size;
        }
        let published = options
            .recipe
            .is_some_and(|r| Recipe::PUBLISHED.contains(&r));
        let both = published || size.is_some();
        Ok(Self {
            sizes_given: ["pn", "patch_size"].map(|flag| both || is_given(flag)),
            options,
            given,
            does_nothing: reference_flags::told(matches),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.does_nothing = reference_flags::told(matches);
        self.options.update_from_arg_matches(matches)
    }
}
