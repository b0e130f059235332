//! A part of a set of images.

use super::{ImageSource, LoadBuffers};
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;

/// Some images of a source, with all of its classes.
pub struct Subset {
    all: Arc<dyn ImageSource>,
    /// Places in `all`.
    kept: Vec<u32>,
}

impl Subset {
    /// The images at the places `kept` of `all`, in that order.
    pub fn new(all: Arc<dyn ImageSource>, kept: Vec<u32>) -> Self {
        Self { all, kept }
    }

    fn place(&self, index: usize) -> Result<usize> {
        let place = self.kept.get(index).map(|&i| i as usize);
        place.ok_or_else(|| Error::input(format!("there is no image {index} among {}", self.len())))
    }
}

impl ImageSource for Subset {
    fn len(&self) -> usize {
        self.kept.len()
    }

    fn class_names(&self) -> &[String] {
        self.all.class_names()
    }

    fn label(&self, index: usize) -> u32 {
        self.place(index).map_or(0, |i| self.all.label(i))
    }

    fn name(&self, index: usize) -> String {
        self.place(index)
            .map_or_else(|_| format!("image {index}"), |i| self.all.name(i))
    }

    fn key(&self, index: usize) -> Result<String> {
        self.all.key(self.place(index)?)
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.all.path(self.place(index).ok()?)
    }

    fn is_stored(&self) -> bool {
        self.all.is_stored()
    }

    fn probe(&self, index: usize) -> Result<()> {
        self.all.probe(self.place(index)?)
    }

    fn load(&self, index: usize, buffers: &mut LoadBuffers) -> Result<()> {
        self.all.load(self.place(index)?, buffers)
    }
}
