//! Images that can't be decoded.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::data::{ImageSource, LoadBuffers};
use crate::{Error, Result};

/// What to do with an image that can't be decoded. (A disk that can't be read always ends the run.)
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BadImages {
    /// Report it as an error of its batch.
    #[default]
    Stop,
    /// Remember it and go on: training takes the next image of the source that can be decoded (in the order of
    /// places, the first after the last), validation leaves it out.
    Skip,
}

/// What a link to itself is to Linux; the standard library has no stable name for it.
const LOOP: Option<i32> = Some(40);

/// Whether an error in loading an image is of its file (bad, gone, or not to be opened), and not of the disk.
pub fn is_of_the_file(e: &Error) -> bool {
    use std::io::ErrorKind::{NotFound, PermissionDenied};
    match e {
        Error::Input(_) => true,
        Error::Io { source, .. } => {
            matches!(source.kind(), NotFound | PermissionDenied) || source.raw_os_error() == LOOP
        }
        _ => false,
    }
}

/// The error of an image that ends a run, with the flag that would have left it out.
pub(super) fn how_to_go_on(e: Error) -> Error {
    match e {
        Error::Input(text) => Error::input(format!("{text}, or give `bad_images`=skip")),
        other => other,
    }
}

/// An image that was skipped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadImage {
    /// Its place in the source.
    pub index: usize,
    /// Why; the text names the file.
    pub reason: String,
}

/// The bad images met so far.
#[derive(Debug, Default)]
pub(super) struct BadList(Mutex<BTreeMap<usize, String>>);

impl BadList {
    pub(super) fn list(&self) -> Vec<BadImage> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known
            .iter()
            .map(|(&index, reason)| BadImage {
                index,
                reason: reason.clone(),
            })
            .collect()
    }

    /// The image that stands in for `index`, of `len`, as far as bad ones are known.
    pub(super) fn stand_in(&self, index: usize, len: usize) -> usize {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut candidates = (index..len).chain(0..index);
        candidates
            .find(|candidate| !known.contains_key(candidate))
            .unwrap_or(index)
    }

    /// Loads image `index` unless it is bad; whether it was loaded.
    pub(super) fn try_load(
        &self,
        source: &dyn ImageSource,
        index: usize,
        buffers: &mut LoadBuffers,
    ) -> Result<bool> {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lock().contains_key(&index) {
            return Ok(false);
        }
        match source.load(index, buffers) {
            Ok(()) => Ok(true),
            Err(e) if is_of_the_file(&e) => {
                lock().insert(index, e.to_string());
                Ok(false)
            }
            Err(other) => Err(other),
        }
    }

    /// Loads `index` or the next image after it that can be decoded; which one it was.
    pub(super) fn load_next(
        &self,
        source: &dyn ImageSource,
        index: usize,
        buffers: &mut LoadBuffers,
    ) -> Result<usize> {
        let len = source.len();
        for candidate in (index..len).chain(0..index) {
            if self.try_load(source, candidate, buffers)? {
                return Ok(candidate);
            }
        }
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let example = known.values().next().map_or("", String::as_str);
        Err(Error::input(format!(
            "none of the {len} images can be read, for example {example}"
        )))
    }
}
