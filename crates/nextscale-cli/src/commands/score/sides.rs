//! What is judged and what it is held against: opening either.

use super::super::images::{tell_all, tell_bad};
use super::Args;
use nextscale::checkpoint::inspect::describe;
use nextscale::checkpoint::open::{OpenPair, OpenTokenizer, open_pair, open_tokenizer};
use nextscale::data::{
    Canvas, Cut, ImageSource, OnCanvas, ShapesSource, Splits, Subset, Transform, whole,
};
use nextscale::format::npz::Npz;
use nextscale::options::values::BadImages;
use nextscale::run::{BUILTIN_SHAPES, SHAPES_SEED};
use nextscale::score::Pictures;
use nextscale::score::pictures::{IMAGES, NpzPictures, StoredPictures};
use nextscale::{Error, Result};
use nextscale_tensor::{Device, Math};
use std::path::Path;
use std::sync::Arc;

/// Pictures, or what makes some.
pub enum Side {
    /// Image files, shards, or built-in images.
    Stored(Arc<dyn ImageSource>),
    /// An `.npz` file; whether it holds pictures, and whether statistics.
    Npz { pictures: bool, statistics: bool },
    /// A transformer with its tokenizer.
    Model(Box<OpenPair>),
    /// A tokenizer.
    Tokenizer(Box<OpenTokenizer>),
}

/// How pictures of a side are read.
#[derive(Clone, Copy)]
pub struct Reading {
    pub batch: usize,
    /// How they are cut; `None` leaves them as they are.
    pub cut: Option<Transform>,
}

impl Side {
    /// Opens `text`; a model is only looked for where one can be.
    /// Built-in images are made with `side` pixels.
    pub fn open(text: &str, args: &Args, is_samples: bool, side: Option<usize>) -> Result<Self> {
        let path = Path::new(text);
        if let Some(split) = built_in(text) {
            let side = args.size.filter(|size| *size > 0).or(side).unwrap_or(64);
            let (train, val) = ShapesSource::splits(side, SHAPES_SEED)?;
            return Ok(Self::Stored(match split {
                Split::Train => Arc::new(train),
                Split::Val => Arc::new(val),
            }));
        }
        if path.is_dir() || split_of(text).is_some() {
            return Ok(Self::Stored(images(text, args)?));
        }
        if is_npz(path)? {
            let npz = Npz::open(path)?;
            let (pictures, statistics) = (npz.has(IMAGES), npz.has("mu") && npz.has("sigma"));
            if !pictures && !statistics {
                return Err(Error::input(format!(
                    "{text}: it holds {}; images are expected as arr_0.npy, or statistics as mu.npy and sigma.npy",
                    npz.names().join(", ")
                )));
            }
            return Ok(Self::Npz {
                pictures,
                statistics,
            });
        }
        if matches!(path.try_exists(), Ok(false)) {
            let flag = if is_samples { "" } else { "--reference=" };
            return Err(Error::input(format!(
                "{flag}{text}: there is no such file or folder"
            )));
        }
        if !is_samples {
            nextscale::input::open_input(path)?;
            return Err(Error::input(format!(
                "--reference={text}: expected a folder of images or shards, an .npz file, or builtin:shapes"
            )));
        }
        let found = describe(path)?;
        if found.var.is_some() {
            let pair = open_pair(path, args.tokenizer.as_deref(), args.weights.kind)?;
            return Ok(Self::Model(Box::new(pair)));
        }
        if found.vae.is_some() {
            let tokenizer = open_tokenizer(path, None, args.weights.kind)?;
            return Ok(Self::Tokenizer(Box::new(tokenizer)));
        }
        Err(Error::input(format!(
            "{text}: holds neither a transformer nor a tokenizer; samples are a folder of images, an .npz file, or one of these"
        )))
    }

    /// Moves a model to where it computes.
    pub fn move_to(&mut self, device: Device, math: Math) -> Result<()> {
        match self {
            Self::Model(pair) => {
                pair.var.to_device(device, math)?;
                pair.tokenizer.vqvae.to_device(device, math)
            }
            Self::Tokenizer(tokenizer) => tokenizer.vqvae.to_device(device, math),
            Self::Stored(_) | Self::Npz { .. } => Ok(()),
        }
    }

    /// The side of the images that a model makes.
    pub fn model_side(&self) -> Option<usize> {
        let of = |config: &nextscale::model::vqvae::VqvaeConfig| {
            config.pyramid.finest().0 * config.downsample()
        };
        match self {
            Self::Model(pair) => Some(of(&pair.tokenizer.vqvae.config)),
            Self::Tokenizer(tokenizer) => Some(of(&tokenizer.vqvae.config)),
            Self::Stored(_) | Self::Npz { .. } => None,
        }
    }

    /// What the images were laid on that a model was trained with.
    pub fn canvas(&self) -> Option<Canvas> {
        match self {
            Self::Model(pair) => pair.canvas,
            Self::Tokenizer(tokenizer) => tokenizer.canvas,
            Self::Stored(_) | Self::Npz { .. } => None,
        }
    }

    /// The names of its classes, where they are known.
    pub fn class_names(&self) -> Option<&[String]> {
        match self {
            Self::Stored(source) => Some(source.class_names()),
            Self::Model(pair) => pair.class_names.as_deref(),
            Self::Npz { .. } | Self::Tokenizer(_) => None,
        }
    }

    /// Its pictures, where it is no model.
    pub fn pictures(&self, text: &str, reading: Reading) -> Result<Box<dyn Pictures>> {
        match self {
            Self::Stored(source) => {
                let source = Arc::clone(source);
                let stored = StoredPictures::new(source, reading.batch, reading.cut)?;
                Ok(Box::new(stored))
            }
            Self::Npz { pictures: true, .. } => {
                let npz = NpzPictures::open(Path::new(text), reading.batch, reading.cut)?;
                Ok(Box::new(npz))
            }
            Self::Npz { .. } => Err(Error::input(format!(
                "{text}: holds statistics and no images"
            ))),
            Self::Model(_) | Self::Tokenizer(_) => {
                Err(Error::failed(format!("{text}: is a model and no images")))
            }
        }
    }
}

/// One of the two parts into which trainings divide a folder.
#[derive(Clone, Copy)]
pub enum Split {
    Train,
    Val,
}

/// The folder and the split of `FOLDER:train` or `FOLDER:val`; `None` for other texts, and for a folder that is called so.
pub fn split_of(text: &str) -> Option<(&Path, Split)> {
    let parts = [(":train", Split::Train), (":val", Split::Val)];
    let (folder, split) = parts
        .iter()
        .find_map(|(end, split)| Some((Path::new(text.strip_suffix(end)?), *split)))?;
    (folder.is_dir() && !Path::new(text).exists()).then_some((folder, split))
}

/// The split of built-in images that is named, if any: the validation images where none is.
fn built_in(text: &str) -> Option<Split> {
    match text.strip_prefix(BUILTIN_SHAPES)? {
        "" | ":val" => Some(Split::Val),
        ":train" => Some(Split::Train),
        _ => None,
    }
}

/// The images of a folder or of one of its splits, or of its shards.
fn images(text: &str, args: &Args) -> Result<Arc<dyn ImageSource>> {
    let named = |e: Error| match e {
        Error::Input(text) => Error::Input(text.replace("`data_path`=", "")),
        other => other,
    };
    let (source, remarks) = match split_of(text) {
        None => whole(Path::new(text)),
        Some((root, split)) => {
            let cut = Cut {
                val_path: None,
                val_share: args.val_share,
            };
            Splits::open(root, &cut).map(|splits| match split {
                Split::Train => (splits.train, splits.remarks),
                Split::Val => (splits.val, splits.remarks),
            })
        }
    }
    .map_err(named)?;
    tell_all(&remarks);
    if args.bad_images == BadImages::Fail {
        return Ok(source);
    }
    let (readable, bad) = Subset::readable(source, 0)?;
    tell_bad(&bad);
    match readable.is_empty() {
        true => Err(Error::input(format!(
            "{text}: none of its images can be read"
        ))),
        false => Ok(Arc::new(readable)),
    }
}

/// Lays the images of a side on what a model's were laid on.
pub fn on_canvas(side: Side, canvas: Canvas) -> Side {
    match side {
        Side::Stored(source) => Side::Stored(Arc::new(OnCanvas::new(source, canvas))),
        other => other,
    }
}

/// Whether a file is a zip archive of numpy arrays, told by its content.
fn is_npz(path: &Path) -> Result<bool> {
    if !path.is_file() {
        return Ok(false);
    }
    let Ok(npz) = Npz::open(path) else {
        return Ok(path.extension().is_some_and(|e| e == "npz"));
    };
    Ok(npz
        .names()
        .iter()
        .any(|name| name == IMAGES || name == "mu")
        || path.extension().is_some_and(|e| e == "npz"))
}
