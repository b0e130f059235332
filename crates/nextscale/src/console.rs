//! What is said on the terminal: results on standard output with [`say!`](crate::say), remarks on standard error with
//! [`tell!`](crate::tell).

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

pub use crate::text::counted;
use crate::text::shown;
use crate::{Error, Result};

/// Prints a line of a result on standard output: `say!("{} images", n)?`. A reader that has gone away does not matter.
///
/// # Errors
/// [`Error::Failed`](crate::Error::Failed) when it can't be written, as where standard output is a file on a full disk.
#[macro_export]
macro_rules! say {
    ($($text:tt)*) => { $crate::console::say(format_args!($($text)*)) };
}

/// Prints a remark on standard error: `tell!("{path}: left out")`. Where nobody can be told, nothing happens.
#[macro_export]
macro_rules! tell {
    ($($text:tt)*) => { $crate::console::tell(format_args!($($text)*)) };
}

/// What [`say!`](crate::say) does.
///
/// # Errors
/// When the line can't be written.
pub fn say(text: Arguments<'_>) -> Result<()> {
    printed(write_line(&mut io::stdout().lock(), text))
}

/// What [`tell!`](crate::tell) does.
pub fn tell(text: Arguments<'_>) {
    let _ = write_line(&mut io::stderr().lock(), text);
}

/// What became of printing a result on standard output.
///
/// # Errors
/// [`Error::Failed`] when it failed and not because the reader has gone away.
pub fn printed(outcome: io::Result<()>) -> Result<()> {
    match outcome {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(Error::failed(format!(
            "the result can't be printed on standard output: {e}"
        ))),
        _ => Ok(()),
    }
}

/// A line as it is shown on a terminal: options, which the library names in backticks, as flags, and nothing that moves the cursor.
/// Backticks within other text, as names of files may have them, stay.
pub fn on_terminal(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('`') {
        out.push_str(&rest[..at]);
        let before = out.chars().next_back();
        rest = &rest[at + 1..];
        let name = rest.split('`').next().unwrap_or_default();
        let after = rest.get(name.len() + 1..).unwrap_or_default();
        if rest.len() > name.len() && is_option(name) && stands_alone(before, after) {
            out.push_str("--");
            out.push_str(name);
            rest = after;
        } else {
            out.push('`');
        }
    }
    out.push_str(rest);
    shown(&out).into_owned()
}

fn is_option(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// Whether what lies between these is a word of its own.
fn stands_alone(before: Option<char>, after: &str) -> bool {
    let begins = before.is_none_or(|c| c == ' ' || c == '(');
    let end = after.trim_start_matches([',', ';', ':', ')', '.']);
    begins && (end.is_empty() || end.starts_with([' ', '=']))
}

/// A line in one piece, so that lines of several threads or processes do not mix.
fn write_line(out: &mut dyn Write, text: Arguments<'_>) -> io::Result<()> {
    let mut line = on_terminal(&text.to_string());
    line.push('\n');
    out.write_all(line.as_bytes()).and_then(|()| out.flush())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_an_error_and_a_closed_pipe_is_none() {
        let mut full = std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap();
        let error = printed(write_line(&mut full, format_args!("a {}", 1))).unwrap_err();
        assert_eq!(error.exit_code(), 1);
        assert!(error.to_string().contains("No space left"), "{error}");
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        printed(write_line(&mut writer, format_args!("a"))).unwrap();
        let mut line = Vec::new();
        write_line(&mut line, format_args!("{:>3}", 7)).unwrap();
        assert_eq!(line, b"  7\n");
    }

    #[test]
    fn options_are_shown_as_flags() {
        for (text, shown) in [
            (
                "`bs`=0: it must be at least 1",
                "--bs=0: it must be at least 1",
            ),
            ("give `pn` or `ch_mult`", "give --pn or --ch_mult"),
            (
                "a`b `Big` `with space` ``, `open",
                "a`b `Big` `with space` ``, `open",
            ),
            ("`a``b`", "`a``b`"),
            ("`out`=`bs`: no folder", "--out=`bs`: no folder"),
            ("x/`bs`/y and `bs`.png", "x/`bs`/y and `bs`.png"),
            ("(`fit`), `ac`; `ep`.", "(--fit), --ac; --ep."),
        ] {
            assert_eq!(on_terminal(text), shown);
        }
    }

    #[test]
    fn what_names_hold_stays_on_its_line() {
        let mut line = Vec::new();
        let name = "a\nb\x1b[31m\rc\td\u{202e}é";
        write_line(&mut line, format_args!("left out: {name}")).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "left out: a\\nb\\u{1b}[31m\\rc\\td\\u{202e}é\n"
        );
    }
}
