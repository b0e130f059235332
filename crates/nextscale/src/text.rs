//! Text for people.

use std::borrow::Cow;

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

/// A number of things: "1 step", "2 steps", "3 classes".
pub(crate) fn counted(n: u64, thing: &str) -> String {
    match n {
        1 => format!("1 {thing}"),
        _ if thing.ends_with('s') => format!("{n} {thing}es"),
        _ => format!("{n} {thing}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_strange_is_written_out() {
        assert!(matches!(shown("plain é"), Cow::Borrowed(_)));
        assert_eq!(shown("a\u{202e}b\n"), "a\\u{202e}b\\n");
    }
}
