//! Which flags stand on the command line, whatever their defaults are.

use clap::parser::ValueSource;
use clap::{ArgMatches, Command, Error};
use std::collections::HashSet;

/// The names of the flags that were given. As the first field of a command's flags it sees them all: others take theirs out.
pub struct Given(HashSet<String>);

impl Given {
    /// Whether a flag was given.
    pub fn has(&self, flag: &str) -> bool {
        self.0.contains(flag)
    }
}

impl clap::FromArgMatches for Given {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given =
            |id: &&clap::Id| matches.value_source(id.as_str()) == Some(ValueSource::CommandLine);
        let ids = matches.ids().filter(given);
        Ok(Self(ids.map(|id| id.as_str().to_owned()).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
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
    use clap::Parser;

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
    }
}
