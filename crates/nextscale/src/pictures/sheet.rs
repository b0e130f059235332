//! A grid of square tiles: where each stands, and the names left of its rows and above its columns.

use super::labels::{LETTER, cut, write, write_upwards};
use super::{GAP, MOST_HELD, Picture, PictureFormat};
use crate::{Error, Result};
use std::path::Path;

/// Space between a name and what it names.
const SPACE: usize = 4;
/// Letters of a name at most.
const LONGEST: usize = 32;

/// How square tiles stand in rows, white between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sheet {
    count: usize,
    side: usize,
    columns: usize,
    /// A name a row, or none at all.
    rows: Vec<String>,
    /// Names above, each over `span` columns.
    heads: Vec<String>,
    span: usize,
}

impl Sheet {
    /// For `count` tiles of side `side`, `columns` a row.
    pub fn new(count: usize, side: usize, columns: usize) -> Self {
        Self {
            count,
            side,
            columns: columns.clamp(1, count.max(1)),
            rows: Vec::new(),
            heads: Vec::new(),
            span: 1,
        }
    }

    /// With a name left of every row.
    #[must_use]
    pub fn with_rows(mut self, names: &[String]) -> Self {
        self.rows = names.iter().map(|n| cut(n, LONGEST)).collect();
        self
    }

    /// With names above, each over `span` columns. They stand upright where they are too long for that.
    #[must_use]
    pub fn with_heads(mut self, names: &[String], span: usize) -> Self {
        self.heads = names.iter().map(|n| cut(n, LONGEST)).collect();
        self.span = span.max(1);
        self
    }

    /// How many tiles there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Tiles a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Pixels along a side of a tile.
    pub fn side(&self) -> usize {
        self.side
    }

    /// Width and height of the whole.
    pub fn size(&self) -> (usize, usize) {
        let along = |tiles: usize| tiles.saturating_mul(self.side + GAP).saturating_add(GAP);
        let rows = self.count.div_ceil(self.columns);
        (
            along(self.columns).saturating_add(self.left()),
            along(rows).saturating_add(self.top()),
        )
    }

    /// Checks, before anything is drawn, that the whole can be held and written to `path`. `advice` ends the message.
    ///
    /// # Errors
    /// When a side is longer than the file's format has it, or the picture is too large to hold.
    pub fn check(&self, path: &Path, advice: &str) -> Result<()> {
        let format = PictureFormat::of(path).unwrap_or(PictureFormat::Png);
        let (width, height) = self.size();
        let most = format.most_side();
        let limit = if width.max(height) > most {
            format!("{format:?} has at most {most} along a side")
        } else if width.saturating_mul(height) > MOST_HELD {
            format!("at most {MOST_HELD} in all are held in memory")
        } else {
            return Ok(());
        };
        Err(Error::input(format!(
            "`out`={}: a picture of {} images has {width} by {height} pixels, and {limit}; give {advice}",
            path.display(),
            self.count
        )))
    }

    /// The whole, of tiles `[count, side, side, 3]`; those that are missing are white.
    pub fn picture(&self, tiles: &[u8]) -> Picture {
        let (width, height) = self.size();
        let mut rgb = self.head().rgb;
        let each = (self.side * self.side * 3).max(1);
        for (row, tiles) in tiles.chunks(each * self.columns).enumerate() {
            let mut band = self.band(row);
            for (column, tile) in tiles.chunks_exact(each).enumerate() {
                self.set(&mut band, column, tile);
            }
            rgb.extend(band.rgb);
        }
        rgb.resize(width * height * 3, 255);
        Picture { width, height, rgb }
    }

    /// What stands above the first row.
    pub(super) fn head(&self) -> Picture {
        let mut head = Picture::filled(self.size().0, self.top(), [255; 3]);
        for (i, name) in self.heads.iter().enumerate() {
            let x = self.x(i * self.span);
            if self.heads_fit() {
                write(&mut head, name, (x, SPACE));
            } else {
                let middle = self.side.saturating_sub(LETTER) / 2;
                let bottom = head.height.saturating_sub(SPACE);
                write_upwards(&mut head, name, (x + middle, bottom));
            }
        }
        head
    }

    /// A row without its tiles, with the gap above it.
    pub(super) fn band(&self, row: usize) -> Picture {
        let mut band = Picture::filled(self.size().0, GAP + self.side, [255; 3]);
        if let Some(name) = self.rows.get(row) {
            let y = GAP + self.side.saturating_sub(LETTER) / 2;
            write(&mut band, name, (SPACE, y));
        }
        band
    }

    /// Sets a tile into a row.
    pub(super) fn set(&self, band: &mut Picture, column: usize, tile: &[u8]) {
        band.paste(tile, (self.side, self.side), (self.x(column), GAP));
    }

    /// Where a column begins.
    fn x(&self, column: usize) -> usize {
        self.left() + GAP + column * (self.side + GAP)
    }

    /// Width of the names on the left.
    fn left(&self) -> usize {
        match longest(&self.rows) {
            0 => 0,
            letters => letters * LETTER + 2 * SPACE,
        }
    }

    /// Height of the names above.
    fn top(&self) -> usize {
        match longest(&self.heads) {
            0 => 0,
            _ if self.heads_fit() => LETTER + 2 * SPACE,
            letters => letters * LETTER + 2 * SPACE,
        }
    }

    /// Whether every name above is as short as its columns are wide.
    fn heads_fit(&self) -> bool {
        longest(&self.heads) * LETTER <= self.span * (self.side + GAP) - GAP
    }
}

/// A picture of rows: a name, then its square tiles of side `side` (`[n, side, side, 3]`), which may be more in one row than in another.
pub fn labelled_rows(rows: &[(&str, &[u8])], side: usize) -> Picture {
    let bytes = (side * side * 3).max(1);
    let most = rows.iter().map(|(_, tiles)| tiles.len() / bytes).max();
    let columns = most.unwrap_or(0).max(1);
    let mut all = vec![255; rows.len() * columns * bytes];
    for (row, (_, tiles)) in all.chunks_exact_mut(columns * bytes).zip(rows) {
        let own = tiles.len() / bytes * bytes;
        row[..own].copy_from_slice(&tiles[..own]);
    }
    let names: Vec<String> = rows.iter().map(|(name, _)| (*name).to_owned()).collect();
    let sheet = Sheet::new(rows.len() * columns, side, columns);
    sheet.with_rows(&names).picture(&all)
}

fn longest(names: &[String]) -> usize {
    names.iter().map(|n| n.chars().count()).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    /// Black pixels in a rectangle.
    fn black(p: &Picture, xs: std::ops::Range<usize>, ys: std::ops::Range<usize>) -> usize {
        let inside = ys.flat_map(|y| xs.clone().map(move |x| (x, y)));
        inside
            .filter(|&(x, y)| p.rgb[(y * p.width + x) * 3] == 0)
            .count()
    }

    #[test]
    fn rows_of_different_lengths_have_their_names_at_the_left() {
        let tile = vec![7u8; 16 * 16 * 3];
        let two = [&tile[..], &tile].concat();
        let p = labelled_rows(&[("ab", &tile), ("é", &two), ("", &[])], 16);
        assert_eq!(
            (p.width, p.height),
            (2 * 8 + 2 * SPACE + 2 * 18 + GAP, 3 * 18 + GAP)
        );
        let left = 2 * 8 + 2 * SPACE;
        assert!(black(&p, 0..left, 0..p.height) > 10, "letters are drawn");
        assert_eq!(black(&p, left..p.width, 0..p.height), 0);
        let at = |x: usize, y: usize| p.rgb[(y * p.width + x) * 3];
        assert_eq!(at(left + GAP, GAP), 7);
        assert_eq!(
            (at(left + GAP + 18, GAP), at(left + GAP + 18, GAP + 18)),
            (255, 7)
        );
        let none = labelled_rows(&[], 16);
        assert_eq!((none.width, none.height), (18 + GAP, GAP));
    }

    #[test]
    fn names_take_room_beside_tiles_that_stay_as_they_are() {
        let tiles: Vec<u8> = (0..4 * 20 * 20 * 3).map(|i| (i % 250 + 1) as u8).collect();
        let plain = Sheet::new(4, 20, 2);
        let named = plain
            .clone()
            .with_rows(&names(&["ab", "c"]))
            .with_heads(&names(&["x", "yz"]), 1);
        assert_eq!(plain.size(), (46, 46));
        // Two letters and their space on the left, one line above.
        assert_eq!(named.size(), (46 + 24, 46 + 16));
        let (p, q) = (plain.picture(&tiles), named.picture(&tiles));
        for y in 0..46 {
            let from = ((y + 16) * q.width + 24) * 3;
            assert_eq!(q.rgb[from..][..46 * 3], p.rgb[y * 46 * 3..][..46 * 3]);
        }
        assert!(black(&q, 0..24, 16..38) > 10 && black(&q, 0..24, 38..62) > 5);
        assert!(black(&q, 26..46, 0..16) > 5 && black(&q, 48..70, 0..16) > 10);
        assert_eq!(black(&p, 0..46, 0..46), 0);
    }

    #[test]
    fn long_names_above_stand_upright_and_are_cut() {
        let long = "n".repeat(50);
        let sheet = Sheet::new(2, 20, 2).with_heads(&[long.clone(), "b".into()], 1);
        assert_eq!(sheet.size(), (46, 24 + 32 * 8 + 8));
        let p = sheet.picture(&vec![7; 2 * 20 * 20 * 3]);
        // Along the whole height, over its own column alone.
        let top = 32 * 8 + 8;
        assert!(black(&p, 2..22, 0..20) > 0 && black(&p, 2..22, top - 20..top) > 0);
        assert!(black(&p, 24..44, 0..top - 20) == 0 && black(&p, 24..44, top - 20..top) > 5);
        // Over more columns it may lie.
        let wide = Sheet::new(2, 200, 2).with_heads(&[long], 2);
        assert_eq!(wide.size().1, 204 + 16);
    }
}
