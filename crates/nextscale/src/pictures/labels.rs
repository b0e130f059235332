//! Letters in pictures.

use super::Picture;
use font8x8::legacy::{BASIC_LEGACY, GREEK_LEGACY, LATIN_LEGACY};

/// Side of a letter in pixels.
pub(super) const LETTER: usize = 8;
/// Writes text in black; letters that the font lacks show as a question mark.
pub(super) fn write(out: &mut Picture, text: &str, (x, y): (usize, usize)) {
    for (i, c) in text.chars().enumerate() {
        for (row, col) in dots(c) {
            dot(out, Some(x + i * LETTER + col), Some(y + row));
        }
    }
}

/// The same from (`x`, `bottom`) upwards, turned to the left.
pub(super) fn write_upwards(out: &mut Picture, text: &str, (x, bottom): (usize, usize)) {
    for (i, c) in text.chars().enumerate() {
        for (row, col) in dots(c) {
            dot(out, Some(x + row), bottom.checked_sub(i * LETTER + col + 1));
        }
    }
}

/// A text of at most so many letters; of a longer one the beginning with two dots.
pub(super) fn cut(text: &str, letters: usize) -> String {
    if text.chars().count() <= letters {
        return text.to_owned();
    }
    let begin: String = text.chars().take(letters.saturating_sub(2)).collect();
    format!("{begin}..")
}

/// Row and column of the black pixels of a letter.
fn dots(c: char) -> impl Iterator<Item = (usize, usize)> {
    let letter = glyph(c).unwrap_or(BASIC_LEGACY[usize::from(b'?')]);
    let all = (0..LETTER).flat_map(|row| (0..LETTER).map(move |col| (row, col)));
    all.filter(move |&(row, col)| letter[row] >> col & 1 == 1)
}

/// ASCII, the letters of western Europe and Greek.
fn glyph(c: char) -> Option<[u8; LETTER]> {
    let code = c as usize;
    let of = |table: &[[u8; LETTER]], first: usize| table.get(code.checked_sub(first)?).copied();
    match code {
        0..0x80 => of(&BASIC_LEGACY, 0),
        0xa0..0x100 => of(&LATIN_LEGACY, 0xa0),
        0x390.. => of(&GREEK_LEGACY, 0x390),
        _ => None,
    }
}

/// Blackens a pixel, if it lies in the picture.
fn dot(out: &mut Picture, x: Option<usize>, y: Option<usize>) {
    if let (Some(x), Some(y)) = (x, y)
        && x < out.width
        && y < out.height
    {
        let at = (y * out.width + x) * 3;
        out.rgb[at..at + 3].fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_beyond_ascii_are_their_own_and_unknown_ones_are_question_marks() {
        let drawn = |text: &str| {
            let mut picture = Picture::filled(16, 16, [255; 3]);
            write(&mut picture, text, (4, 4));
            picture.rgb
        };
        for (known, plain) in [("é", "e"), ("ß", "s"), ("Ω", "O")] {
            assert!(glyph(known.chars().next().unwrap()).is_some());
            assert!(drawn(known) != drawn("?") && drawn(known) != drawn(plain));
        }
        for unknown in ['漢', '\u{10ffff}', '\u{85}'] {
            assert_eq!(glyph(unknown), None);
        }
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcd..");
    }
}
