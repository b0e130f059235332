//! What is said on the terminal: results on standard output with [`say!`](crate::say), remarks on standard error with
//! [`tell!`](crate::tell).

use std::borrow::Cow;
use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

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

/// A line as it is shown: what would move the cursor, change colours, begin another line or turn the writing direction is written out
/// (`\n`, `\u{1b}`), as names of files and tensors may hold anything.
pub fn shown(line: &str) -> Cow<'_, str> {
    let strange = |c: char| {
        c.is_control()
            || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}')
    };
    if !line.contains(strange) {
        return Cow::Borrowed(line);
    }
    let mut out = String::with_capacity(line.len() + 16);
    for c in line.chars() {
        if strange(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// A line in one piece, so that lines of several threads or processes do not mix.
fn write_line(out: &mut dyn Write, text: Arguments<'_>) -> io::Result<()> {
    let mut line = shown(&text.to_string()).into_owned();
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
    fn what_names_hold_stays_on_its_line() {
        let mut line = Vec::new();
        let name = "a\nb\x1b[31m\rc\td\u{202e}é";
        write_line(&mut line, format_args!("left out: {name}")).unwrap();
        assert_eq!(
            String::from_utf8(line).unwrap(),
            "left out: a\\nb\\u{1b}[31m\\rc\\td\\u{202e}é\n"
        );
        assert!(matches!(shown("plain é"), Cow::Borrowed(_)));
    }
}
