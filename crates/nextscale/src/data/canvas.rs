//! What pictures are laid on before they are resized: a colour behind their transparent parts, a square around them.

use super::decode::Finish;
use super::{ImageSource, LoadBuffers};
use crate::Result;
use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;

/// What becomes of transparent parts (PNG, WebP and GIF).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Background {
    /// Transparency is left away: whatever colour lies under it is seen, as in the reference.
    Drop,
    /// They are laid over this colour: red, green, blue.
    Color([u8; 3]),
}

impl Background {
    /// White, on which most pictures with transparent parts are meant to be seen.
    pub const WHITE: Self = Self::Color([255; 3]);
    /// Black.
    pub const BLACK: Self = Self::Color([0; 3]);

    /// The colour, where there is one.
    pub fn color(self) -> Option<[u8; 3]> {
        match self {
            Self::Drop => None,
            Self::Color(color) => Some(color),
        }
    }
}

impl Display for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Drop => f.write_str("drop"),
            Self::WHITE => f.write_str("white"),
            Self::BLACK => f.write_str("black"),
            Self::Color([r, g, b]) => write!(f, "{r:02x}{g:02x}{b:02x}"),
        }
    }
}

impl FromStr for Background {
    type Err = String;

    /// Reads `white`, `black`, `drop` or a colour's six hexadecimal digits.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "drop" => return Ok(Self::Drop),
            "white" => return Ok(Self::WHITE),
            "black" => return Ok(Self::BLACK),
            _ => {}
        }
        let digits = text.strip_prefix('#').unwrap_or(text);
        let is_color = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match u32::from_str_radix(digits, 16) {
            Ok(n) if is_color => {
                let [_, r, g, b] = n.to_be_bytes();
                Ok(Self::Color([r, g, b]))
            }
            _ => Err("give white, black, drop or a colour as RRGGBB".into()),
        }
    }
}

impl From<Background> for String {
    fn from(background: Background) -> Self {
        background.to_string()
    }
}

impl TryFrom<String> for Background {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

/// How a picture that is no square becomes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "cli", value(rename_all = "snake_case"))]
pub enum Aspect {
    /// What is beyond a square is cut off.
    #[default]
    Crop,
    /// It is set in the middle of a square of the background's colour.
    Pad,
}

impl Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crop => "crop",
            Self::Pad => "pad",
        })
    }
}

/// A source's images on a canvas.
pub struct Canvas {
    inner: Arc<dyn ImageSource>,
    finish: Finish,
}

impl Canvas {
    /// Lays the images of `inner` on a canvas. With [`Background::Drop`] what is set around them is black.
    pub fn new(inner: Arc<dyn ImageSource>, background: Background, aspect: Aspect) -> Self {
        let around = background.color().unwrap_or([0; 3]);
        let finish = Finish {
            over: background.color(),
            around: (aspect == Aspect::Pad).then_some(around),
        };
        Self { inner, finish }
    }
}

impl ImageSource for Canvas {
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
    use crate::data::FolderSource;
    use image::{ImageBuffer, Rgba};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn backgrounds_are_read_as_they_are_written(color in any::<[u8; 3]>()) {
            for background in [Background::Color(color), Background::Drop] {
                prop_assert_eq!(background.to_string().parse::<Background>(), Ok(background));
            }
        }

        #[test]
        fn other_words_are_refused(text in "[^#]{0,9}") {
            let digits = text.len() == 6 && text.bytes().all(|b| b.is_ascii_hexdigit());
            let known = ["white", "black", "drop"].contains(&text.as_str());
            prop_assert_eq!(text.parse::<Background>().is_ok(), digits || known);
        }
    }

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
                let canvas = Canvas::new(Arc::clone(&source), background, aspect);
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
        let canvas = Canvas::new(source, Background::BLACK, Aspect::Crop);
        canvas.load(0, &mut buffers).unwrap();
        assert_eq!(buffers.image.data(), [9, 9, 9, 0, 0, 0, 0, 0, 0]);
        assert!(buffers.is_transparent);
    }
}
