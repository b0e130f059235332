//! The built-in data set: coloured, textured shapes on soft backgrounds, drawn on demand.
//!
//! Twelve classes, each a shape with a colour and a texture of its own. Position, size, rotation, shade, texture
//! offset and background vary from picture to picture, drawn from (seed, split, index), so that there is
//! something to learn and the same picture can always be drawn again, at any resolution.

mod classes;
mod render;

use super::{ImageSource, LoadBuffers};
use crate::{Error, Result};

pub use classes::{Class, Form, Texture, classes};
use render::Scene;

/// Which of the two disjoint sets of pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShapesSplit {
    /// For training.
    Train,
    /// Never seen in training.
    HeldOut,
}

impl ShapesSplit {
    /// How many pictures the split has unless told otherwise: 12,000 and 1,200.
    pub fn default_len(self) -> usize {
        match self {
            Self::Train => 12_000,
            Self::HeldOut => 1_200,
        }
    }

    fn step(self) -> u64 {
        match self {
            Self::Train => 0,
            Self::HeldOut => 1,
        }
    }
}

/// One split of the built-in data set. Labels go round: picture i is of class i mod 12.
#[derive(Debug)]
pub struct ShapesSource {
    side: usize,
    split: ShapesSplit,
    len: usize,
    seed: u64,
    names: Vec<String>,
}

impl ShapesSource {
    /// `len` pictures of `side` × `side` pixels. Another `seed` gives other pictures of the same classes.
    ///
    /// # Errors
    /// [`Error::Input`] where `side` is not in 8..=4096 or `len` is 0 or above `u32::MAX`.
    pub fn new(side: usize, split: ShapesSplit, len: usize, seed: u64) -> Result<Self> {
        if !(8..=4096).contains(&side) {
            return Err(Error::input(format!(
                "the built-in shapes can't be drawn at {side} pixels; use 8 to 4096"
            )));
        }
        if len == 0 || u32::try_from(len).is_err() {
            return Err(Error::input(format!(
                "a set of {len} built-in shapes can't be made; use 1 to {}",
                u32::MAX
            )));
        }
        Ok(Self {
            side,
            split,
            len,
            seed,
            names: classes().iter().map(Class::name).collect(),
        })
    }

    /// Both splits at their default lengths.
    ///
    /// # Errors
    /// As [`ShapesSource::new`].
    pub fn splits(side: usize, seed: u64) -> Result<(Self, Self)> {
        let make = |split: ShapesSplit| Self::new(side, split, split.default_len(), seed);
        Ok((make(ShapesSplit::Train)?, make(ShapesSplit::HeldOut)?))
    }
}

impl ImageSource for ShapesSource {
    fn len(&self) -> usize {
        self.len
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn label(&self, index: usize) -> u32 {
        if index < self.len {
            (index % self.names.len()) as u32
        } else {
            0
        }
    }

    fn name(&self, index: usize) -> String {
        let class = &self.names[self.label(index) as usize];
        match self.split {
            ShapesSplit::Train => format!("built-in training shape {index} ({class})"),
            ShapesSplit::HeldOut => format!("built-in held-out shape {index} ({class})"),
        }
    }

    fn load(&self, index: usize, buffers: &mut LoadBuffers) -> Result<()> {
        if index >= self.len {
            return Err(Error::input(format!(
                "there is no picture {index} among {} built-in shapes",
                self.len
            )));
        }
        let class = &classes()[self.label(index) as usize];
        let scene = Scene::draw(class, self.seed, self.split.step(), index as u64);
        let pixels = buffers.image.reset(self.side, self.side);
        scene.render(self.side, pixels);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
