//! The images of a set that can be read, for passes that must know beforehand how many there are.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::loader::is_of_the_file;
use super::{BadImage, ImageSource, LoadBuffers, Subset};
use crate::{Error, Result};

impl Subset {
    /// A set without its bad images: decodes every image of `all` once on `workers` threads (0: one a core), and gives those that can be decoded, with
    /// the others.
    ///
    /// # Errors
    /// [`Error::Input`] where there is none left; whatever else than a bad file goes wrong.
    pub fn readable(all: Arc<dyn ImageSource>, workers: usize) -> Result<(Subset, Vec<BadImage>)> {
        let workers = match workers {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            n => n,
        };
        let next = AtomicUsize::new(0);
        let found = Mutex::new((Vec::new(), None));
        let look = || {
            let mut buffers = LoadBuffers::default();
            loop {
                let index = next.fetch_add(1, Ordering::Relaxed);
                if index >= all.len() {
                    break;
                }
                let outcome = all.load(index, &mut buffers);
                buffers.let_go();
                let Err(error) = outcome else { continue };
                let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
                if is_of_the_file(&error) {
                    let reason = error.to_string();
                    found.0.push(BadImage { index, reason });
                } else {
                    found.1.get_or_insert(error);
                    next.store(all.len(), Ordering::Relaxed);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..workers.min(all.len()) {
                scope.spawn(look);
            }
        });
        let (mut bad, failure) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(error) = failure {
            return Err(error);
        }
        bad.sort_by_key(|b| b.index);
        let mut left_out = bad.iter().map(|b| b.index).peekable();
        let kept: Vec<u32> = (0..all.len())
            .filter(|&index| left_out.next_if_eq(&index).is_none())
            .map(|index| index as u32)
            .collect();
        if kept.is_empty() {
            let example = bad.first().map_or("there are none", |b| b.reason.as_str());
            return Err(Error::input(format!(
                "none of the {} images can be read: {example}",
                all.len()
            )));
        }
        Ok((Subset::new(all, kept), bad))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::FolderSource;

    #[test]
    fn bad_files_are_left_out_and_named_in_order() {
        let dir = tempfile::tempdir().unwrap();
        for (class, images) in [("a", ["1", "2"]), ("b", ["3", "4"])] {
            let folder = dir.path().join(class);
            std::fs::create_dir(&folder).unwrap();
            for name in images {
                let path = folder.join(format!("{name}.ppm"));
                std::fs::write(path, b"P6 1 1 255\n\x07\x08\x09").unwrap();
            }
        }
        for name in ["a/2.ppm", "b/3.ppm"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let source = || Arc::new(FolderSource::open(dir.path()).unwrap());
        let (good, bad) = Subset::readable(source(), 3).unwrap();
        assert_eq!(bad.iter().map(|b| b.index).collect::<Vec<_>>(), [1, 2]);
        assert!(bad[0].reason.contains("2.ppm") && bad[1].reason.contains("3.ppm"));
        assert_eq!((good.len(), good.label(0), good.label(1)), (2, 0, 1));
        assert!(
            good.name(1).ends_with("4.ppm") && good.load(2, &mut LoadBuffers::default()).is_err()
        );
        assert_eq!(good.image(1).unwrap().data(), [7, 8, 9]);
        for name in ["a/1.ppm", "b/4.ppm"] {
            std::fs::write(dir.path().join(name), b"").unwrap();
        }
        let Err(error) = Subset::readable(source(), 0) else {
            panic!("nothing is left")
        };
        assert!(
            error.to_string().contains("none of the 4 images"),
            "{error}"
        );
    }
}
