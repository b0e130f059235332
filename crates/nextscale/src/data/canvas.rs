//! Pictures laid on a canvas as they are read.

use super::decode::{Finish, decode_file};
use super::{ImageSource, LoadBuffers};
use crate::Result;
use crate::canvas::{Aspect, Canvas};
use std::path::{Path, PathBuf};
use std::sync::Arc;

impl Canvas {
    /// Reads and decodes `path` into `buffers.image`, laid on this canvas.
    ///
    /// # Errors
    /// As [`decode_file`].
    pub fn decode(self, path: &Path, buffers: &mut LoadBuffers) -> Result<()> {
        let before = std::mem::replace(&mut buffers.finish, self.finish());
        let decoded = decode_file(path, buffers);
        buffers.finish = before;
        decoded
    }

    /// With [`Background::Drop`] what is set around pictures is black.
    fn finish(self) -> Finish {
        let around = self.background.color().unwrap_or([0; 3]);
        Finish {
            over: self.background.color(),
            around: (self.aspect == Aspect::Pad).then_some(around),
        }
    }
}

/// A source's images on a canvas.
pub struct OnCanvas {
    inner: Arc<dyn ImageSource>,
    finish: Finish,
}

impl OnCanvas {
    /// Lays the images of `inner` on `canvas`.
    pub fn new(inner: Arc<dyn ImageSource>, canvas: Canvas) -> Self {
        Self {
            inner,
            finish: canvas.finish(),
        }
    }
}

impl ImageSource for OnCanvas {
    fn len(&self) -> usize {
        self.inner.len()
    }

    fn class_names(&self) -> &[String] {
        self.inner.class_names()
    }

    fn label(&self, index: usize) -> u32 {
        self.inner.label(index)
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
        let before = std::mem::replace(&mut buffers.finish, self.finish);
        let loaded = self.inner.load(index, buffers);
        buffers.finish = before;
        loaded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canvas::Background;
    use crate::data::FolderSource;
    use image::{ImageBuffer, Rgba};

    /// Three pixels in a row, red: opaque, half and not at all.
    fn source(ending: &str) -> (tempfile::TempDir, Arc<dyn ImageSource>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let pixels = [255, 128, 0].into_iter().flat_map(|a| [200, 0, 0, a]);
        let image: ImageBuffer<Rgba<u8>, _> =
            ImageBuffer::from_raw(3, 1, pixels.collect::<Vec<_>>()).unwrap();
        image
            .save(dir.path().join("a").join(format!("0.{ending}")))
            .unwrap();
        let source = FolderSource::open(dir.path()).unwrap();
        (dir, Arc::new(source))
    }

    #[test]
    fn transparent_parts_are_laid_over_a_colour() {
        for ending in ["png", "webp"] {
            let (_dir, source) = source(ending);
            let mut buffers = LoadBuffers::default();
            let mut on = |background, aspect| {
                let canvas = OnCanvas::new(Arc::clone(&source), Canvas { background, aspect });
                canvas.load(0, &mut buffers).unwrap();
                (buffers.image.clone(), buffers.is_transparent)
            };
            let (dropped, seen) = on(Background::Drop, Aspect::Crop);
            assert_eq!(dropped.data(), [200, 0, 0, 200, 0, 0, 200, 0, 0]);
            assert!(!seen, "nobody looked");
            let (white, seen) = on(Background::WHITE, Aspect::Crop);
            assert_eq!(white.data(), [200, 0, 0, 227, 127, 127, 255, 255, 255]);
            assert!(seen);
            let (blue, _) = on(Background::Color([0, 0, 255]), Aspect::Pad);
            assert_eq!((blue.width(), blue.height()), (3, 3));
            assert_eq!(blue.row(0), [0, 0, 255].repeat(3));
            assert_eq!(blue.row(1), [200, 0, 0, 100, 0, 127, 0, 0, 255]);
            assert_eq!(blue.row(2), blue.row(0));
            // A file by itself is read in the same way.
            let name = PathBuf::from(source.name(0));
            let path = source.path(0).unwrap_or(name);
            let canvas = Canvas {
                background: Background::WHITE,
                aspect: Aspect::Pad,
            };
            let mut single = LoadBuffers::default();
            canvas.decode(&path, &mut single).unwrap();
            assert_eq!(single.image.row(1), white.row(0));
            assert_eq!(single.image.row(0), [255; 9]);
            // The source itself is as it was.
            assert_eq!(source.image(0).unwrap(), dropped);
        }
    }

    #[test]
    fn a_transparent_palette_entry_of_a_gif_takes_the_colour() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("a")).unwrap();
        let file = std::fs::File::create(dir.path().join("a/0.gif")).unwrap();
        let mut encoder = gif::Encoder::new(file, 3, 1, &[9, 9, 9, 50, 60, 70]).unwrap();
        let frame = gif::Frame {
            width: 2,
            height: 1,
            transparent: Some(1),
            buffer: vec![0, 1].into(),
            ..gif::Frame::default()
        };
        encoder.write_frame(&frame).unwrap();
        drop(encoder);
        let source: Arc<dyn ImageSource> = Arc::new(FolderSource::open(dir.path()).unwrap());
        let dropped = source.image(0).unwrap();
        assert_eq!(dropped.data(), [9, 9, 9, 50, 60, 70, 50, 60, 70]);
        let mut buffers = LoadBuffers::default();
        let on_black = Canvas {
            background: Background::BLACK,
            aspect: Aspect::Crop,
        };
        let canvas = OnCanvas::new(source, on_black);
        canvas.load(0, &mut buffers).unwrap();
        assert_eq!(buffers.image.data(), [9, 9, 9, 0, 0, 0, 0, 0, 0]);
        assert!(buffers.is_transparent);
    }
}
