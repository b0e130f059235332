//! What a set of labelled images is to the rest of the library.

use super::{LoadBuffers, RgbImage8};
use crate::input::open_input;
use crate::{Error, Result};
use std::io::Read;
use std::path::PathBuf;

/// A numbered set of labelled images. Loading takes `&self`: many threads read one source.
pub trait ImageSource: Send + Sync {
    /// How many images there are; at most `u32::MAX`.
    fn len(&self) -> usize;

    /// Whether there are none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The classes' names in the order of their labels.
    fn class_names(&self) -> &[String];

    /// The class of image `index`; 0 where there is no such image.
    fn label(&self, index: usize) -> u32;

    /// What to call image `index` in a message: its path, if it is a file; if it is in one, that with the member or row.
    fn name(&self, index: usize) -> String;

    /// What tells image `index` from the others of the source wherever that lies: what it is called below the source's folder.
    ///
    /// # Errors
    /// When it has to be read and can't.
    fn key(&self, index: usize) -> Result<String> {
        Ok(self.name(index))
    }

    /// The file of image `index`; `None` where images are no files.
    fn path(&self, index: usize) -> Option<PathBuf> {
        let _ = index;
        None
    }

    /// Whether images are stored somewhere, so that one may be missing or damaged.
    fn is_stored(&self) -> bool {
        self.path(0).is_some()
    }

    /// Finds out whether image `index` is there, without decoding it; takes hardly any time.
    ///
    /// # Errors
    /// As [`ImageSource::load`].
    fn probe(&self, index: usize) -> Result<()> {
        let Some(path) = self.path(index) else {
            return Ok(());
        };
        let (mut file, _) = open_input(&path)?;
        match file.read(&mut [0; 16]).map_err(Error::io(&path))? {
            0 => Err(Error::input(format!("{}: is empty", path.display()))),
            _ => Ok(()),
        }
    }

    /// Loads image `index` into `buffers.image`.
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) that names the image where its content can't be used or there is no
    /// such image; [`Error::Io`](crate::Error::Io) where it can't be read.
    fn load(&self, index: usize, buffers: &mut LoadBuffers) -> Result<()>;

    /// Loads image `index` alone. For more than a few use [`ImageSource::load`], which reuses its buffers.
    ///
    /// # Errors
    /// As [`ImageSource::load`].
    fn image(&self, index: usize) -> Result<RgbImage8> {
        let mut buffers = LoadBuffers::default();
        self.load(index, &mut buffers)?;
        Ok(buffers.image)
    }
}
