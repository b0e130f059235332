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

/// So many of something: `counted(1, "step", "steps")` is "1 step".
pub fn counted(count: impl TryInto<u64>, one: &str, many: &str) -> String {
    // What does not fit is many.
    let count = count.try_into().unwrap_or(u64::MAX);
    format!("{count} {}", if count == 1 { one } else { many })
}

/// A word of a command line as a shell reads it back.
pub fn shell_word(word: &str) -> Cow<'_, str> {
    let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return Cow::Borrowed(word);
    }
    Cow::Owned(format!("'{}'", word.replace('\'', r"'\''")))
}

/// An error's text in which names do not stand in backticks, which a console takes for options.
pub(crate) fn unquoted(error: &dyn std::error::Error) -> String {
    error.to_string().replace('`', "'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_reads_words_back() {
        assert!(matches!(shell_word("a/b-c_1.png"), Cow::Borrowed(_)));
        for word in [
            "my pictures",
            "children's toys",
            "a\"b",
            "$HOME",
            "",
            "*",
            "~",
        ] {
            let out = std::process::Command::new("sh")
                .args(["-c", &format!("printf %s {}", shell_word(word))])
                .output();
            assert_eq!(String::from_utf8(out.unwrap().stdout).unwrap(), word);
        }
    }

    #[test]
    fn one_is_no_plural() {
        let images = |n: usize| counted(n, "image", "images");
        assert_eq!([0, 1, 2].map(images), ["0 images", "1 image", "2 images"]);
    }

    #[test]
    fn only_what_is_strange_is_written_out() {
        assert!(matches!(shown("plain é"), Cow::Borrowed(_)));
        assert_eq!(shown("a\u{202e}b\n"), "a\\u{202e}b\\n");
    }
}
