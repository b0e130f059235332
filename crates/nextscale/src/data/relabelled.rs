//! Images under the labels of another list of classes.

use super::{ImageSource, LoadBuffers};
use crate::Result;
use std::path::PathBuf;
use std::sync::Arc;

/// A source whose labels are places in another list of classes than its own.
pub struct Relabelled {
    inner: Arc<dyn ImageSource>,
    labels: Vec<u32>,
    names: Arc<[String]>,
}

impl Relabelled {
    /// Label `i` of `inner` becomes `labels[i]`, a place in `names`.
    pub fn new(inner: Arc<dyn ImageSource>, labels: Vec<u32>, names: Arc<[String]>) -> Self {
        Self {
            inner,
            labels,
            names,
        }
    }
}

impl ImageSource for Relabelled {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn label(&self, index: usize) -> u32 {
        let own = self.inner.label(index) as usize;
        self.labels.get(own).copied().unwrap_or(0)
    }

    fn name(&self, index: usize) -> String {
        self.inner.name(index)
    }

    fn key(&self, index: usize) -> Result<String> {
        self.inner.key(index)
    }

    fn path(&self, index: usize) -> Option<PathBuf> {
        self.inner.path(index)
    }

    fn is_stored(&self) -> bool {
        self.inner.is_stored()
    }

    fn probe(&self, index: usize) -> Result<()> {
        self.inner.probe(index)
    }

    fn load(&self, index: usize, buffers: &mut LoadBuffers) -> Result<()> {
        self.inner.load(index, buffers)
    }
}
