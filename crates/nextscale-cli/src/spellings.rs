//! Other spellings of flags: dashes for underscores, and a second name for what the reference and other programs call otherwise.

use clap::{Arg, Command};
use std::collections::HashSet;

/// Names that stand for each other in every command that has one of them.
const SAME: [[&str; 2]; 2] = [["bs", "batch"], ["ep", "epochs"]];

/// The command, and its subcommands, with other spellings of their names and flags.
pub fn added(command: Command) -> Command {
    let mut taken: HashSet<String> = command
        .get_arguments()
        .flat_map(names)
        .map(str::to_owned)
        .collect();
    let command = command.mut_args(|arg| {
        let mut arg = arg;
        if let Some(other) = second_name(&arg)
            && taken.insert(other.to_owned())
        {
            arg = arg.visible_alias(other);
        }
        let dashed: Vec<String> = names(&arg).into_iter().filter_map(dashed).collect();
        for spelling in dashed {
            if taken.insert(spelling.clone()) {
                arg = arg.alias(spelling);
            }
        }
        arg
    });
    command.mut_subcommands(|sub| {
        let underscored = sub.get_name().replace('-', "_");
        let sub = match underscored == sub.get_name() {
            true => sub,
            false => sub.alias(underscored),
        };
        added(sub)
    })
}

/// All long names of a flag.
fn names(arg: &Arg) -> Vec<&str> {
    let own = arg.get_long().into_iter();
    own.chain(arg.get_all_aliases().unwrap_or_default())
        .collect()
}

/// The other name of a flag that has two.
fn second_name(arg: &Arg) -> Option<&'static str> {
    let long = arg.get_long()?;
    let pair = SAME.iter().find(|pair| pair.contains(&long))?;
    pair.iter().copied().find(|name| *name != long)
}

/// A name with dashes where it has underscores.
fn dashed(name: &str) -> Option<String> {
    name.contains('_').then(|| name.replace('_', "-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    /// The flags of a command, and of those below it, with the words that lead there.
    fn all(command: &Command, path: &[String], found: &mut Vec<(Vec<String>, Arg)>) {
        for arg in command.get_arguments().filter(|a| a.get_long().is_some()) {
            found.push((path.to_vec(), arg.clone()));
        }
        for sub in command.get_subcommands() {
            let path = [path, &[sub.get_name().to_owned()]].concat();
            all(sub, &path, found);
        }
    }

    #[test]
    fn every_flag_of_every_command_is_taken_with_dashes_and_underscores() {
        let program = added(crate::Cli::command());
        let mut found = Vec::new();
        all(&program, &[], &mut found);
        let mut with_two = 0;
        for (path, arg) in &found {
            for name in names(arg) {
                for spelling in [name.replace('_', "-"), name.replace('-', "_")] {
                    with_two += usize::from(spelling != name);
                    assert!(
                        names(arg).contains(&spelling.as_str()),
                        "{path:?}: --{name} has no spelling --{spelling}"
                    );
                    let flag = match arg.get_action().takes_values() {
                        true => format!("--{spelling}=1"),
                        false => format!("--{spelling}"),
                    };
                    let words = [&["nextscale".to_owned()], &path[..], &[flag]].concat();
                    // Other flags may be missing and the value be none; the flag itself is known.
                    if let Err(e) = program.clone().try_get_matches_from(&words) {
                        assert_ne!(e.kind(), ErrorKind::UnknownArgument, "{words:?}: {e}");
                    }
                }
            }
        }
        assert!(found.len() > 250 && with_two > 100, "{}", found.len());
    }

    #[test]
    fn a_spelling_belongs_to_one_flag() {
        let mut commands = vec![added(crate::Cli::command())];
        while let Some(command) = commands.pop() {
            let mut seen = HashSet::new();
            for name in command.get_arguments().flat_map(names) {
                assert!(seen.insert(name), "{}: --{name}", command.get_name());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn images_at_once_have_two_names_in_every_command_that_has_one() {
        let program = added(crate::Cli::command());
        let mut with = Vec::new();
        for sub in program.get_subcommands() {
            for arg in sub.get_arguments() {
                let names = names(arg);
                let has = |name: &str| names.contains(&name);
                assert_eq!(has("bs"), has("batch"), "{}", sub.get_name());
                if has("bs") {
                    with.push(sub.get_name());
                }
            }
        }
        for command in ["train", "train-tokenizer", "sample", "tokenize", "eval"] {
            assert!(with.contains(&command), "{command} of {with:?}");
        }
    }

    /// Every command that chooses a device for its products chooses their precision too.
    #[test]
    fn who_has_a_device_has_a_precision() {
        let program = added(crate::Cli::command());
        let mut with = 0;
        for sub in program.get_subcommands() {
            let has = |name: &str| sub.get_arguments().any(|a| a.get_long() == Some(name));
            // doctor adds numbers up, it multiplies none.
            if has("device") && sub.get_name() != "doctor" {
                assert!(has("precision"), "{}", sub.get_name());
                with += 1;
            }
        }
        assert!(with > 8, "{with}");
    }
}
