//! The options of `train-tokenizer` from a command line.

use super::{Given, Recipe, Size, TokenizerOptions, precision, sizes};
use crate::world::World;
use crate::{Result, advice};
use clap::{Args, FromArgMatches};

/// [`TokenizerOptions`] as read from a command line: shared flags that are not given have this trainer's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerArgs {
    /// The options.
    pub options: TokenizerOptions,
    /// The flags that were given.
    given: Given,
}

impl TokenizerArgs {
    /// The flags, with those of `--recipe=auto` chosen, and what was chosen, in words. Of several processes the first one chooses.
    ///
    /// # Errors
    /// When the recipe is to be chosen for a folder that can't be used, or another process is gone.
    pub fn completed(&self, world: &World) -> Result<(TokenizerOptions, Option<String>)> {
        let mut options = self.options.clone();
        let chosen = match options.recipe {
            Some(Recipe::Auto) => {
                let is_given = |flag: &str| self.given.has(flag);
                Some(advice::choose_tokenizer(&mut options, is_given, world)?)
            }
            _ => None,
        };
        Ok((options, chosen))
    }
}

fn with_own_defaults(command: clap::Command) -> clap::Command {
    let own = TokenizerOptions::default().schedule;
    command
        .mut_arg("bs", |arg| arg.default_value(own.bs.to_string()))
        .mut_arg("ep", |arg| arg.default_value(own.ep.to_string()))
}

impl Args for TokenizerArgs {
    fn augment_args(command: clap::Command) -> clap::Command {
        let command = with_own_defaults(TokenizerOptions::augment_args(command));
        sizes::add(command, ["pn", "ch_mult"])
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        let command = TokenizerOptions::augment_args_for_update(command);
        sizes::add(command, ["pn", "ch_mult"])
    }
}

impl FromArgMatches for TokenizerArgs {
    fn from_arg_matches(matches: &clap::ArgMatches) -> Result<Self, clap::Error> {
        let mut options = TokenizerOptions::from_arg_matches(matches)?;
        let given = Given::of(matches);
        // Refused where --tf32 says something else.
        precision::given(matches)?;
        if let Some(recipe) = options.recipe {
            recipe.apply_to_tokenizer(&mut options, |flag| given.has(flag));
        }
        if let Some(size) = Size::given(matches) {
            options.pn = size.pn.to_owned();
            options.ch_mult = size.ch_mult.to_owned();
        }
        Ok(Self { options, given })
    }

    fn update_from_arg_matches(&mut self, matches: &clap::ArgMatches) -> Result<(), clap::Error> {
        self.options.update_from_arg_matches(matches)
    }
}
