//! What a classifier is built from, and what goes with a side of images.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Channels of a group that is normalised together.
pub(super) const GROUP: usize = 8;

/// The smallest side of images.
pub const LEAST_SIDE: usize = 16;
/// The largest side of images.
pub const MOST_SIDE: usize = 1024;
/// Most classes.
const CLASSES: usize = 1 << 20;
/// Largest width of a level.
const WIDTH: usize = 1 << 12;
/// Most blocks of a level.
const BLOCKS: usize = 64;

/// The side down to which maps are halved.
const LAST_SIDE: usize = 4;
/// From this side on levels are twice as wide: such images hold more, and are for GPUs.
const WIDE_FROM: usize = 128;
/// Channels times the side of a map, so that every level has the same work.
const WIDTH_BY_SIDE: usize = 1024;

/// What a classifier is built from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassifierConfig {
    /// Side of the images in pixels.
    pub side: usize,
    /// Channels of each level; the first has half the side of the image, each of the others half the side of the one before.
    pub widths: Vec<usize>,
    /// Residual blocks of a level.
    pub blocks: usize,
    /// Classes.
    pub classes: usize,
}

impl ClassifierConfig {
    /// What goes with images of a side.
    ///
    /// # Errors
    /// When there can't be such images, or too few classes.
    pub fn for_side(side: usize, classes: usize) -> Result<Self> {
        if !(LEAST_SIDE..=MOST_SIDE).contains(&side) {
            return Err(Error::field(
                "size",
                side,
                format!(
                    "features are learnt from images of {LEAST_SIDE} to {MOST_SIDE} pixels a side"
                ),
            ));
        }
        let wide = if side >= WIDE_FROM { 2 } else { 1 };
        let sides = (1..).map(|level| side >> level);
        let widths = sides
            .take_while(|&map| map >= LAST_SIDE)
            .map(|map| (wide * WIDTH_BY_SIDE / map).clamp(16 * wide, 256 * wide) / 16 * 16)
            .collect();
        let config = Self {
            side,
            widths,
            blocks: 1,
            classes,
        };
        config.check("classifier")?;
        Ok(config)
    }

    /// Numbers of an image's features (F): the channels of the last level.
    pub fn features(&self) -> usize {
        self.widths.last().copied().unwrap_or(0)
    }

    /// Sides and channels of the maps after each level.
    pub fn maps(&self) -> impl Iterator<Item = (usize, usize)> + '_ {
        let widths = self.widths.iter().enumerate();
        widths.map(|(i, &width)| (self.side >> (i + 1), width))
    }

    /// Number of weights.
    pub fn parameters(&self) -> u64 {
        let conv = |i: u64, o: u64, size: u64| i * o * size * size + o;
        let mut from = self.widths.first().map_or(0, |&w| w as u64);
        let mut all = conv(3, from, 3);
        for &width in &self.widths {
            let o = width as u64;
            for _ in 0..self.blocks {
                let shortcut = if from == o { 0 } else { conv(from, o, 1) };
                all += 2 * from + conv(from, o, 3) + 2 * o + conv(o, o, 3) + shortcut;
                from = o;
            }
        }
        all + 2 * from + conv(from, self.classes as u64, 1)
    }

    /// Says in one line, which begins with `source`, what can't be built.
    ///
    /// # Errors
    /// When a value is out of range.
    pub fn check(&self, source: &str) -> Result<()> {
        let refuse = |text: String| Err(Error::input(format!("{source}: {text}")));
        let widest = self.widths.iter().copied().max().unwrap_or(0);
        for (name, n, least, most) in [
            ("side", self.side, LEAST_SIDE, MOST_SIDE),
            ("classes", self.classes, 2, CLASSES),
            ("blocks", self.blocks, 1, BLOCKS),
            ("widths", widest, 1, WIDTH),
        ] {
            if !(least..=most).contains(&n) {
                return refuse(format!("{name} is {n}; it must be from {least} to {most}"));
            }
        }
        if let Some(width) = self.widths.iter().find(|&w| *w == 0 || w % GROUP != 0) {
            return refuse(format!(
                "a level has {width} channels; they must be a multiple of {GROUP}"
            ));
        }
        if self.widths.len() >= usize::BITS as usize || self.side >> self.widths.len() == 0 {
            return refuse(format!(
                "{} levels halve {} pixels to nothing",
                self.widths.len(),
                self.side
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_side_has_levels_of_like_work() {
        let of = |side| ClassifierConfig::for_side(side, 2).unwrap().widths;
        assert_eq!(of(32), [64, 128, 256]);
        assert_eq!(of(64), [32, 64, 128, 256]);
        assert_eq!(of(128), [32, 64, 128, 256, 512]);
        assert_eq!(of(256), [32, 32, 64, 128, 256, 512]);
        for side in LEAST_SIDE..=MOST_SIDE {
            let config = ClassifierConfig::for_side(side, 2).unwrap();
            assert!((128..=512).contains(&config.features()), "{side}");
            assert!(config.maps().all(|(map, _)| map >= LAST_SIDE), "{side}");
        }
    }

    #[test]
    fn what_cant_be_built_is_refused_in_words() {
        let text = |side, classes| {
            let e = ClassifierConfig::for_side(side, classes).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            e.to_string()
        };
        assert!(text(8, 2).starts_with("`size`=8: "));
        assert!(text(5000, 2).starts_with("`size`=5000: "));
        assert!(text(32, 1).contains("classes is 1; it must be from 2"));
        let good = ClassifierConfig::for_side(32, 3).unwrap();
        for (widths, blocks, told) in [
            (vec![], 1, "widths is 0"),
            (vec![12], 1, "12 channels"),
            (vec![0, 8], 1, "0 channels"),
            (vec![8; 6], 1, "6 levels halve 32"),
            (vec![8; 70], 1, "70 levels"),
            (vec![1 << 13], 1, "widths is 8192"),
            (vec![8], 0, "blocks is 0"),
        ] {
            let config = ClassifierConfig {
                widths,
                blocks,
                ..good.clone()
            };
            let text = config.check("f").unwrap_err().to_string();
            assert!(text.starts_with("f: ") && text.contains(told), "{text}");
        }
    }
}
