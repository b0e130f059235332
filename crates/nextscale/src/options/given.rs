//! Which flags stand on the command line, whatever their defaults are.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Error};
use std::any::Any;
use std::collections::BTreeSet;

/// The names of the flags that were given. As the first field of a command's flags it sees them all: others take theirs out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given(BTreeSet<String>);

impl Given {
    /// Whether a flag was given.
    pub fn has(&self, flag: &str) -> bool {
        self.0.contains(flag)
    }

    /// Those of a command line.
    pub(super) fn of(matches: &ArgMatches) -> Self {
        let ids = matches.ids().map(|id| id.as_str());
        let given = ids.filter(|id| matches.value_source(id) == Some(ValueSource::CommandLine));
        Self(given.map(str::to_owned).collect())
    }
}

/// A flag's value where the command line has it.
pub(super) fn given_value<T: Any + Clone + Send + Sync>(
    matches: &ArgMatches,
    flag: &str,
) -> Option<T> {
    match Given::of(matches).has(flag) {
        true => matches.get_one::<T>(flag).cloned(),
        false => None,
    }
}

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        Ok(Self::of(matches))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::of(matches);
        Ok(())
    }
}

impl clap::Args for Given {
    fn augment_args(command: Command) -> Command {
        command
    }

    fn augment_args_for_update(command: Command) -> Command {
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::{CommandFactory, Parser};

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        given: Given,
        #[arg(long, default_value_t = 1)]
        a: u8,
        #[arg(long)]
        b: bool,
    }

    #[test]
    fn defaults_are_not_given() {
        let flags = Flags::parse_from(["x", "--a=1"]);
        assert!(flags.given.has("a") && !flags.given.has("b"));
        let flags = Flags::parse_from(["x", "--b"]);
        assert!(!flags.given.has("a") && flags.given.has("b") && flags.b && flags.a == 1);
        let matches = Flags::command().get_matches_from(["x", "--a=7"]);
        assert_eq!(given_value::<u8>(&matches, "a"), Some(7));
        let matches = Flags::command().get_matches_from(["x"]);
        assert_eq!(given_value::<u8>(&matches, "a"), None);
        assert_eq!(given_value::<u8>(&matches, "none"), None);
    }
}
