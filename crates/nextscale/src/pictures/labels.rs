//! Rows of tiles with a name before each, for pictures of samples by class.

use super::Picture;
use font8x8::legacy::BASIC_LEGACY;

/// Side of a letter in pixels.
const LETTER: usize = 8;
/// Space between tiles and around names.
const GAP: usize = 4;

/// A picture of rows: a name, then its square tiles of side `side` (`[n, side, side, 3]`).
pub fn labelled_rows(rows: &[(&str, &[u8])], side: usize) -> Picture {
    let bytes = (side * side * 3).max(1);
    let longest = rows.iter().map(|r| r.0.len()).max().unwrap_or(0);
    let most = rows.iter().map(|r| r.1.len() / bytes).max().unwrap_or(0);
    let left = longest * LETTER + 2 * GAP;
    let mut out = Picture::filled(
        left + most * (side + GAP),
        rows.len() * (side + GAP) + GAP,
        [255; 3],
    );
    for (i, (name, tiles)) in rows.iter().enumerate() {
        let y = GAP + i * (side + GAP);
        write(&mut out, name, (GAP, y + side.saturating_sub(LETTER) / 2));
        for (j, tile) in tiles.chunks_exact(bytes).enumerate() {
            out.paste(tile, (side, side), (left + j * (side + GAP), y));
        }
    }
    out
}

/// Writes ASCII text in black; other characters show as a question mark.
fn write(out: &mut Picture, text: &str, (x, y): (usize, usize)) {
    for (i, c) in text.chars().enumerate() {
        let code = if c.is_ascii() {
            c as usize
        } else {
            '?' as usize
        };
        for (row, bits) in BASIC_LEGACY[code].iter().enumerate() {
            for col in 0..LETTER {
                let (px, py) = (x + i * LETTER + col, y + row);
                if bits >> col & 1 == 1 && px < out.width && py < out.height {
                    let at = (py * out.width + px) * 3;
                    out.rgb[at..at + 3].fill(0);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_left_of_their_tiles() {
        let tile = vec![7u8; 16 * 16 * 3];
        let p = labelled_rows(&[("ab", &tile), ("é", &[])], 16);
        assert_eq!((p.width, p.height), (2 * 8 + 8 + 20, 2 * 20 + 4));
        let black = |from: usize, to: usize| {
            (0..p.height)
                .flat_map(|y| (from..to).map(move |x| (y * p.width + x) * 3))
                .filter(|&i| p.rgb[i] == 0)
                .count()
        };
        assert!(black(0, 24) > 10, "letters are drawn");
        assert_eq!(black(24, p.width), 0);
        assert_eq!(p.rgb[(4 * p.width + 24) * 3], 7);
    }
}
