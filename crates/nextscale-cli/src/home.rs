//! `~` at the beginning of a path: shells leave it as it is in `--out=~/run`.

use clap::Command;
use clap::builder::{PathBufValueParser, StringValueParser, TypedValueParser};
use std::any::TypeId;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// What the value of a path is called in the help.
const PATHS: [&str; 5] = ["FILE", "DIR", "FOLDER", "PATH", "IMAGE"];

/// The command with all of its paths, and those of its subcommands, standing for what a shell makes of them.
pub fn expanded(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let kind = arg.get_value_parser().type_id();
        let names = arg.get_value_names().unwrap_or_default();
        if kind == TypeId::of::<PathBuf>() {
            arg.value_parser(PathBufValueParser::new().map(of_path))
        } else if kind == TypeId::of::<String>()
            && names.iter().any(|n| PATHS.contains(&n.as_str()))
        {
            arg.value_parser(StringValueParser::new().map(of_text))
        } else {
            arg
        }
    });
    command.mut_subcommands(expanded)
}

fn of_path(path: PathBuf) -> PathBuf {
    in_home(&path, std::env::var_os("HOME")).unwrap_or(path)
}

fn of_text(text: String) -> String {
    in_home(Path::new(&text), std::env::var_os("HOME"))
        .and_then(|path| path.into_os_string().into_string().ok())
        .unwrap_or(text)
}

/// The path that `~` or `~/…` stands for; `None` for every other path, and where there is no home.
fn in_home(path: &Path, home: Option<OsString>) -> Option<PathBuf> {
    let rest = path.strip_prefix("~").ok()?;
    let home = PathBuf::from(home.filter(|home| !home.is_empty())?);
    // Joining nothing would add a slash.
    Some(if rest.as_os_str().is_empty() {
        home
    } else {
        home.join(rest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn only_a_tilde_that_stands_alone_at_the_beginning_is_the_home() {
        let of = |path: &str| in_home(Path::new(path), Some("/home/a".into()));
        assert_eq!(of("~/x/~/y").unwrap(), Path::new("/home/a/x/~/y"));
        assert_eq!(of("~").unwrap().as_os_str(), "/home/a");
        for other in ["~b/x", "x/~", "./~/x", "~x", "", "/~"] {
            assert_eq!(of(other), None, "{other}");
        }
        assert_eq!(in_home(Path::new("~/x"), None), None);
        assert_eq!(in_home(Path::new("~/x"), Some("".into())), None);
    }

    /// Every flag for a file or folder of every subcommand is taken, whatever type it has.
    #[test]
    fn every_path_is_expanded() {
        let home = PathBuf::from(std::env::var_os("HOME").unwrap());
        let mut found = 0;
        for sub in expanded(crate::Cli::command()).get_subcommands() {
            let ids: Vec<_> = sub.get_arguments().map(|a| a.get_id().clone()).collect();
            for id in ids {
                let arg = sub.get_arguments().find(|a| a.get_id() == &id).unwrap();
                let kind = arg.get_value_parser().type_id();
                let word = arg.get_value_names().unwrap_or_default().first().cloned();
                let is_path = kind == TypeId::of::<PathBuf>()
                    || word.is_some_and(|w| PATHS.contains(&w.as_str()));
                if !is_path {
                    continue;
                }
                // In a command of its own, where nothing else is asked for.
                let one = Command::new("one").arg(arg.clone());
                let given = match arg.get_long() {
                    Some(long) => format!("--{long}=~/x"),
                    None => "~/x".into(),
                };
                let matches = one.try_get_matches_from(["one".to_owned(), given]).unwrap();
                let got = match kind == TypeId::of::<PathBuf>() {
                    true => matches
                        .get_many::<PathBuf>(id.as_str())
                        .unwrap()
                        .next()
                        .cloned(),
                    false => matches
                        .get_many::<String>(id.as_str())
                        .unwrap()
                        .next()
                        .map(PathBuf::from),
                };
                assert_eq!(got, Some(home.join("x")), "{} {id}", sub.get_name());
                found += 1;
            }
        }
        assert!(found > 20, "{found}");
    }
}
