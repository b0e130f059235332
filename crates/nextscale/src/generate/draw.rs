//! Images from the file of a model in one call.

use super::{BatchSampler, Noise, SampleOptions, Sampler};
use crate::checkpoint::class_names::known_classes;
use crate::checkpoint::open::{OpenPair, open_pair};
use crate::checkpoint::weights::WeightsKind;
use crate::device::resolve_device;
use crate::memory::{self, Workload, advise};
use crate::options::values::DeviceChoice;
use crate::pictures::Picture;
use crate::{Error, Result};
use nextscale_tensor::{Device, Precision};
use std::path::{Path, PathBuf};

/// Draws images with a trained model: a training checkpoint or weights, of this library or of the reference.
///
/// Settings have the defaults of `nextscale sample`, and with the same settings the images are the same.
///
/// ```no_run
/// // A checkpoint of `train` holds its tokenizer.
/// let images = nextscale::draw("my_model/ar-ckpt-last.safetensors")
///     .classes(["cat", "dog"])
///     .per_class(4)
///     .seed(7)
///     .images()?;
/// for (i, image) in images.iter().enumerate() {
///     image.picture.save(format!("{i}.png").as_ref())?;
/// }
///
/// // The published files come in two, and their classes have numbers.
/// let lakes = nextscale::draw("var_d16.pth")
///     .tokenizer("vae_ch160v4096z32.pth")
///     .classes([975])
///     .cfg(4.0)
///     .images()?;
/// let side = lakes[0].picture.width;
/// assert_eq!(lakes[0].picture.rgb.len(), side * side * 3);
/// # Ok::<(), nextscale::Error>(())
/// ```
pub fn draw(model: impl Into<PathBuf>) -> Draw {
    Draw {
        model: model.into(),
        tokenizer: None,
        weights: None,
        device: DeviceChoice::Auto,
        precision: Precision::Bf16,
        classes: None,
        per_class: 1,
        batch: 16,
        options: SampleOptions::default(),
        opened: None,
    }
}

/// A class by its name or its number, from 0 on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Class {
    /// Its number in the model.
    Number(i64),
    /// Its name, where the model's file holds names.
    Name(String),
}

macro_rules! class_of_numbers {
    ($($number:ty)*) => {
        $(impl From<$number> for Class {
            fn from(number: $number) -> Self {
                // One that does not fit is no class of any model.
                Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
            }
        })*
    };
}
class_of_numbers!(i32 u32 i64 usize);

impl From<&str> for Class {
    fn from(name: &str) -> Self {
        Self::Name(name.to_owned())
    }
}

impl From<String> for Class {
    fn from(name: String) -> Self {
        Self::Name(name)
    }
}

/// An image that was drawn.
#[derive(Clone, Debug)]
pub struct DrawnImage {
    /// The number of its class.
    pub label: usize,
    /// The name of its class, where the model's file holds names.
    pub class: Option<String>,
    /// Its pixels, three bytes each (RGB), with width and height.
    pub picture: Picture,
}

/// What [`draw`] is asked for. The model is opened by the first [`images`](Draw::images) and stays open.
pub struct Draw {
    model: PathBuf,
    tokenizer: Option<PathBuf>,
    weights: Option<WeightsKind>,
    device: DeviceChoice,
    precision: Precision,
    classes: Option<Vec<Class>>,
    per_class: usize,
    batch: usize,
    options: SampleOptions,
    opened: Option<Opened>,
}

/// A model on its device.
struct Opened {
    pair: OpenPair,
    device: Device,
}

impl Draw {
    /// The file of the tokenizer, where the model's own does not hold it.
    #[must_use]
    pub fn tokenizer(mut self, file: impl Into<PathBuf>) -> Self {
        self.tokenizer = Some(file.into());
        self.opened = None;
        self
    }

    /// Which weights of a training checkpoint: averaged ones, which come first where nothing is said, or those of the last step.
    #[must_use]
    pub fn weights(mut self, kind: WeightsKind) -> Self {
        self.weights = Some(kind);
        self.opened = None;
        self
    }

    /// Where to compute; without it on the first GPU that can be used, else on the CPU.
    #[must_use]
    pub fn device(mut self, device: DeviceChoice) -> Self {
        self.device = device;
        self.opened = None;
        self
    }

    /// Precision of products on a GPU; without it bfloat16.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self.opened = None;
        self
    }

    /// The classes to draw, by name or number; without it every class of the model.
    #[must_use]
    pub fn classes<C: Into<Class>>(mut self, classes: impl IntoIterator<Item = C>) -> Self {
        self.classes = Some(classes.into_iter().map(Into::into).collect());
        self
    }

    /// Images of each class; without it one.
    #[must_use]
    pub fn per_class(mut self, images: usize) -> Self {
        self.per_class = images;
        self
    }

    /// Guidance: 0 none, larger values follow the class more strictly; without it 1.5.
    #[must_use]
    pub fn cfg(mut self, strength: f32) -> Self {
        self.options.cfg = strength;
        self
    }

    /// Draw from the k likeliest codes; 0: from all; 1: always the likeliest; without it 900.
    #[must_use]
    pub fn top_k(mut self, codes: usize) -> Self {
        self.options.top_k = codes;
        self
    }

    /// Draw from the likeliest codes that make up this probability; 0: from all; without it 0.96.
    #[must_use]
    pub fn top_p(mut self, probability: f32) -> Self {
        self.options.top_p = probability;
        self
    }

    /// Blend codes for smoother pictures.
    #[must_use]
    pub fn more_smooth(mut self, on: bool) -> Self {
        self.options.more_smooth = on;
        self
    }

    /// Seed of the random draws; image number n of a seed is the same one whatever the batch; without it 0.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.noise = Noise::Seed(seed);
        self
    }

    /// Images drawn at once; without it 16.
    #[must_use]
    pub fn batch(mut self, images: usize) -> Self {
        self.batch = images;
        self
    }

    /// The names of the model's classes, in their order, where its file holds them. Opens the model.
    ///
    /// # Errors
    /// Where the files can't be used or do not belong together.
    pub fn class_names(&mut self) -> Result<Option<&[String]>> {
        Ok(self.opened()?.pair.class_names.as_deref())
    }

    /// How many classes the model has. Opens the model.
    ///
    /// # Errors
    /// Where the files can't be used or do not belong together.
    pub fn class_count(&mut self) -> Result<usize> {
        Ok(self.opened()?.pair.var.config.classes)
    }

    /// Draws the images, class by class.
    ///
    /// # Errors
    /// [`Error::Field`] for a setting that can't be used, [`Error::Input`] for files that can't be used or do not belong together, and
    /// for weights that make no images, [`Error::Tensor`] where memory or a GPU fails.
    pub fn images(&mut self) -> Result<Vec<DrawnImage>> {
        self.check()?;
        let source = self.source();
        let (batch, options) = (self.batch, self.options.clone());
        let (classes, per_class) = (self.classes.clone(), self.per_class);
        let Opened { pair, device } = self.opened()?;
        let labels = labels(classes.as_deref(), per_class, pair)?;
        let drawn = pixels(pair, *device, &labels, &options, batch);
        let (rgb, [width, height]) = drawn.map_err(|e| e.of_weights(source))?;
        let each = width * height * 3;
        let images = labels.iter().zip(rgb.chunks_exact(each.max(1)));
        Ok(images
            .map(|(&label, rgb)| DrawnImage {
                label: label as usize,
                class: pair
                    .class_names
                    .as_ref()
                    .and_then(|names| names.get(label as usize).cloned()),
                picture: Picture {
                    width,
                    height,
                    rgb: rgb.to_vec(),
                },
            })
            .collect())
    }

    fn check(&self) -> Result<()> {
        let counts = [("per_class", self.per_class), ("batch", self.batch)];
        for (name, value) in counts {
            if value == 0 {
                return Err(Error::field(name, value, "it must be at least 1"));
            }
        }
        let ranges = [
            ("cfg", self.options.cfg, 1000.0),
            ("top_p", self.options.top_p, 1.0),
        ];
        for (name, value, most) in ranges {
            if !(0.0..=most).contains(&value) {
                let why = format!("it must be from 0 to {most}");
                return Err(Error::field(name, value, why));
            }
        }
        Ok(())
    }

    /// The files, for messages.
    fn source(&self) -> String {
        match &self.tokenizer {
            Some(tokenizer) => format!("{} and {}", self.model.display(), tokenizer.display()),
            None => self.model.display().to_string(),
        }
    }

    fn opened(&mut self) -> Result<&Opened> {
        let opened = match self.opened.take() {
            Some(opened) => opened,
            None => self.open()?,
        };
        Ok(self.opened.insert(opened))
    }

    fn open(&self) -> Result<Opened> {
        let device = resolve_device(self.device)?;
        let tokenizer = self.tokenizer.as_deref();
        let mut pair = open_pair(Path::new(&self.model), tokenizer, self.weights)?;
        let math = self.precision.math();
        pair.var.to_device(device, math)?;
        pair.tokenizer.vqvae.to_device(device, math)?;
        Ok(Opened { pair, device })
    }
}

/// The label of every image.
fn labels(classes: Option<&[Class]>, per_class: usize, pair: &OpenPair) -> Result<Vec<i32>> {
    let count = pair.var.config.classes;
    let names = pair.class_names.as_deref();
    let label =
        |class: &Class| match class {
            Class::Number(n) => usize::try_from(*n)
                .ok()
                .filter(|n| *n < count)
                .ok_or_else(|| {
                    let why = format!("the model has classes 0 to {}", count.saturating_sub(1));
                    Error::field("classes", n, why)
                }),
            Class::Name(name) => {
                let place = names.and_then(|names| names.iter().position(|n| n == name));
                place.ok_or_else(|| {
                    let why = match names {
                    Some(names) => {
                        format!("it is none of the model's classes {}", known_classes(name, names))
                    }
                    None => {
                        "the model's file does not say what its classes are called; give numbers"
                            .to_owned()
                    }
                };
                    Error::field("classes", format!("{name:?}"), why)
                })
            }
        };
    let labels: Vec<usize> = match classes {
        Some(classes) => classes.iter().map(label).collect::<Result<_>>()?,
        None => (0..count).collect(),
    };
    let of_each = |label: usize| std::iter::repeat_n(label as i32, per_class);
    Ok(labels.into_iter().flat_map(of_each).collect())
}

/// The pixels of all images one behind the other, and the width and height of each.
fn pixels(
    pair: &OpenPair,
    device: Device,
    labels: &[i32],
    options: &SampleOptions,
    batch: usize,
) -> Result<(Vec<u8>, [usize; 2])> {
    let (var, vqvae) = (&pair.var, &pair.tokenizer.vqvae);
    let workload = || Workload::Sample {
        var: &var.config,
        vqvae: &vqvae.config,
        math: var.math,
        options,
    };
    let (h, w) = var.config.pyramid.finest();
    let step = vqvae.config.downsample();
    let mut rgb = Vec::new();
    if labels.is_empty() {
        return Ok((rgb, [w * step, h * step]));
    }
    memory::check(device, "batch", batch.min(labels.len()), workload())?;
    let mut batches = BatchSampler::new(Sampler { var, vqvae }, options.clone(), batch);
    for (i, labels) in labels.chunks(batch).enumerate() {
        let drawn = batches.draw(labels, (i * batch) as u64);
        let drawn = drawn.map_err(|e| advise(e, device, "batch", batch, workload()))?;
        rgb.extend(drawn.pixels()?);
    }
    Ok((rgb, [w * step, h * step]))
}
