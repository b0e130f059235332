//! What stands in and around pictures: names of files, labels of grids, texts of PNG files.

use super::super::file_names::file_names;
use super::super::record::{Image, Origin, Record};
use super::call::{Call, Tile};
use nextscale::Result;
use nextscale::pictures::{Picture, PngText, Sheet};
use std::collections::HashMap;

/// What is known of all images of a call.
pub struct Shown<'a> {
    origin: &'a Origin,
    /// The name of every image's files, without an ending.
    names: Vec<String>,
    /// Height and width of an image.
    extent: (usize, usize),
    /// How long a frame stands.
    pub frame_ms: u32,
}

impl<'a> Shown<'a> {
    /// For these images; `classes` are the names of all classes, where they are known.
    pub fn new(
        origin: &'a Origin,
        classes: Option<&[String]>,
        tiles: &[Tile],
        extent: (usize, usize),
        frame_ms: u32,
    ) -> Self {
        Self {
            origin,
            names: names_of(tiles, classes),
            extent,
            frame_ms,
        }
    }

    /// The name of an image's files, without an ending.
    pub fn name(&self, index: usize) -> &str {
        &self.names[index]
    }

    /// An image as a picture.
    pub fn picture(&self, pixels: &[u8]) -> Picture {
        let (height, width) = self.extent;
        Picture {
            width,
            height,
            rgb: pixels.to_vec(),
        }
    }

    /// How the images of a call stand in a grid.
    pub fn sheet(&self, call: &Call, tiles: &[Tile], side: usize) -> Sheet {
        let columns = call.grid_columns();
        let sheet = Sheet::new(tiles.len(), side, columns);
        if !call.labels {
            return sheet;
        }
        if let Some(sweep) = &call.sweep {
            let rows: Vec<String> = (0..sweep.values.len()).map(|i| sweep.label(i)).collect();
            let heads: Vec<String> = call.classes.iter().map(|&c| label(call, c)).collect();
            return sheet.with_rows(&rows).with_heads(&heads, call.per_class);
        }
        if call.interpolate.is_some() {
            let end = |tile: &Tile| match tile.class() {
                Some(class) => call.name(class).unwrap_or_default().to_owned(),
                None => String::new(),
            };
            let heads: Vec<String> = tiles.iter().take(columns).map(end).collect();
            return sheet.with_heads(&heads, 1);
        }
        if call.names.is_none() {
            return sheet;
        }
        let row = |tiles: &[Tile]| {
            let classes: Vec<i32> = tiles.iter().filter_map(Tile::class).collect();
            match (classes.first(), classes.last()) {
                (Some(first), Some(last)) if first != last => {
                    format!("{} .. {}", label(call, *first), label(call, *last))
                }
                (Some(one), _) => label(call, *one),
                _ => String::new(),
            }
        };
        let columns = sheet.columns();
        let rows: Vec<String> = tiles.chunks(columns).map(row).collect();
        sheet.with_rows(&rows)
    }

    /// The texts of a PNG file that `call` draws: of all its images, or of one.
    ///
    /// # Errors
    /// When they can't be made.
    pub fn texts(&self, call: &Call, tile: Option<&Tile>) -> Result<Vec<PngText>> {
        let image = tile.map(|tile| Image {
            class: tile.class(),
            class_name: tile.class().and_then(|c| call.name(c)).map(str::to_owned),
            number: tile.number,
        });
        let record = Record {
            origin: self.origin.clone(),
            command: "sample".into(),
            image,
            flags: call.clone(),
        };
        record.texts(&call.in_words())
    }
}

/// A class as people read it.
fn label(call: &Call, class: i32) -> String {
    let name = call.name(class).map(str::to_owned);
    name.unwrap_or_else(|| format!("class {class}"))
}

/// Names of files: the class and a number within it where classes have names, else the number of all and the class's.
fn names_of(tiles: &[Tile], classes: Option<&[String]>) -> Vec<String> {
    let class = |tile: &Tile| tile.class().unwrap_or(tile.condition.from);
    let Some(classes) = classes else {
        let digits = tiles.len().to_string().len();
        let name = |(i, tile)| format!("{i:0digits$}_class{}", class(tile));
        return tiles.iter().enumerate().map(name).collect();
    };
    let files = file_names(classes);
    let mut counts: HashMap<i32, usize> = HashMap::new();
    let mut numbers = Vec::with_capacity(tiles.len());
    for tile in tiles {
        let count = counts.entry(class(tile)).or_default();
        numbers.push(*count);
        *count += 1;
    }
    let most = counts.values().max().copied().unwrap_or(1);
    let digits = most.saturating_sub(1).to_string().len();
    let name = |(tile, number): (&Tile, usize)| {
        let class = class(tile);
        let known = usize::try_from(class).ok().and_then(|c| files.get(c));
        let name = known.cloned().unwrap_or_else(|| format!("class{class}"));
        format!("{name}-{number:0digits$}")
    };
    tiles.iter().zip(numbers).map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::super::call::tests::call;
    use super::*;

    #[test]
    fn files_are_called_as_their_classes_where_these_have_names() {
        let mut twelve = call();
        twelve.per_class = 12;
        let tiles = twelve.tiles();
        let unnamed = names_of(&tiles, None);
        assert_eq!((&*unnamed[0], &*unnamed[23]), ("00_class4", "23_class2"));
        let classes = ["a", "b", "c/d", "e", "f"].map(str::to_owned);
        let named = names_of(&tiles, Some(&classes));
        assert_eq!((&*named[0], &*named[11]), ("f-00", "f-11"));
        assert_eq!((&*named[12], &*named[23]), ("c_d-00", "c_d-11"));
        let few = names_of(&call().tiles(), Some(&classes));
        assert_eq!(few, ["f-0", "f-1", "c_d-0", "c_d-1"]);
    }
}
