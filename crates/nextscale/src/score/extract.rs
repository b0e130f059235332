//! From pictures to features.

use super::float_bicubic;
use super::protocol::{Metric, Preparation, Protocol};
use crate::checkpoint::classifier::TrainedClassifier;
use crate::data::{Resizer, RgbImage8, Transform};
use crate::eval::largest;
use crate::model::ForwardPass;
use crate::model::inception::{FEATURES, Inception, LOGITS, SIDE, SPATIAL};
use crate::{Error, Result};
use nextscale_tensor::{Cx, DType, Device, Tensor, ops};
use rayon::prelude::*;

/// Pictures of one size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PictureBatch {
    /// 8-bit RGB, `[n, height, width, 3]`.
    pub rgb: Vec<u8>,
    /// Height and width.
    pub size: (usize, usize),
    /// The number of each in its set, `[n]`.
    pub places: Vec<usize>,
    /// The class of each, `[n]`, or nothing where classes are not known.
    pub labels: Vec<u32>,
}

impl PictureBatch {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The same with the middle of each, as `transform` resizes and cuts it.
    ///
    /// # Errors
    /// When a picture is too long for its width.
    pub fn cut(&self, transform: Transform) -> Result<Self> {
        let (height, width) = self.size;
        let mut rgb = vec![0; self.len() * transform.bytes()];
        rgb.par_chunks_exact_mut(transform.bytes())
            .zip(self.rgb.par_chunks_exact((height * width * 3).max(1)))
            .try_for_each_init(Resizer::default, |resizer, (out, rgb)| {
                transform.center(&RgbImage8::new(width, height, rgb.to_vec())?, resizer, out)
            })?;
        Ok(Self {
            rgb,
            size: (transform.side(), transform.side()),
            places: self.places.clone(),
            labels: self.labels.clone(),
        })
    }
}

/// How many pictures there are in batches of one size each.
pub fn count_of(batches: &[PictureBatch]) -> usize {
    batches.iter().map(PictureBatch::len).sum()
}

/// Pictures in batches of one size each as the network takes them, one after the other, `[n, 299, 299, 3]`, on `device`: sizes that
/// differ are prepared on the host, so that the network sees them all at once.
fn prepare_all(
    preparation: Preparation,
    batches: &[PictureBatch],
    device: Device,
) -> Result<Tensor> {
    if let [one] = batches {
        return prepare(preparation, one, device);
    }
    let mut all = Vec::with_capacity(count_of(batches) * SIDE * SIDE * 3);
    for batch in batches {
        all.extend_from_slice(prepare(preparation, batch, Device::Cpu)?.f32()?);
    }
    Ok(Tensor::from_vec([count_of(batches), SIDE, SIDE, 3], all).to(device)?)
}

/// Pictures of one size as the network takes them, `[n, 299, 299, 3]`, on `device`.
///
/// # Errors
/// When pictures are none, or the GPU refuses.
pub fn prepare(
    preparation: Preparation,
    pictures: &PictureBatch,
    device: Device,
) -> Result<Tensor> {
    let ((height, width), n) = (pictures.size, pictures.len());
    let each = height * width * 3;
    if each == 0 || pictures.rgb.len() != n * each {
        let bytes = pictures.rgb.len();
        let text = format!("{bytes} bytes are no {n} pictures of {width}×{height}");
        return Err(Error::failed(text));
    }
    let unit = || ops::from_pixels_on(device, DType::F32, [n, height, width, 3], &pictures.rgb);
    Ok(match preparation {
        Preparation::Bilinear => ops::bilinear(&Cx::off(), &unit()?, (SIDE, SIDE))?,
        Preparation::AsymmetricBilinear => {
            let resized = ops::asymmetric_bilinear(&Cx::off(), &unit()?, (SIDE, SIDE))?;
            // From v = u/127.5 − 1 to (u − 128)/128.
            ops::to_range(&resized, 127.5 / 128.0, -0.5 / 128.0)?
        }
        Preparation::FloatBicubic => {
            let mut all = vec![0.0; n * SIDE * SIDE * 3];
            all.par_chunks_exact_mut(SIDE * SIDE * 3)
                .zip(pictures.rgb.par_chunks_exact(each))
                .for_each(|(out, rgb)| {
                    let resized = float_bicubic(rgb, pictures.size, SIDE);
                    for (out, v) in out.iter_mut().zip(resized) {
                        *out = (v - 128.0) / 128.0;
                    }
                });
            Tensor::from_vec([n, SIDE, SIDE, 3], all).to(device)?
        }
    })
}

/// Pictures as a classifier of images of `side` takes them, `[n, side, side, 3]`; those that have another size are resized to it, and
/// their middle is cut out.
fn of_side(batches: &[PictureBatch], side: usize, device: Device) -> Result<Tensor> {
    let shape = [count_of(batches), side, side, 3];
    let from = |rgb: &[u8]| Ok(ops::from_pixels_on(device, DType::F32, shape, rgb)?);
    if let [one] = batches
        && one.size == (side, side)
    {
        return from(&one.rgb);
    }
    let transform = Transform::new(side, 1.0, false)?;
    let cut = batches.iter().map(|batch| batch.cut(transform));
    let cut: Vec<PictureBatch> = cut.collect::<Result<_>>()?;
    from(
        &cut.into_iter()
            .flat_map(|batch| batch.rgb)
            .collect::<Vec<u8>>(),
    )
}

/// Numbers on the host.
fn here(x: &Tensor) -> Result<Vec<f32>> {
    Ok(x.to(Device::Cpu)?.cast(DType::F32)?.f32()?.to_vec())
}

/// What results by a classifier's features are called.
pub const OWN: &str = "own-features";

/// How features come from pictures.
#[derive(Clone, Copy)]
pub enum Method<'a> {
    /// The Inception network, by a protocol.
    Inception(&'a Inception, Protocol),
    /// A classifier of some folder's own classes (`train-features`). What it gives is no FID.
    Own(&'a TrainedClassifier),
}

/// What a method finds in some pictures.
#[derive(Clone, Debug)]
pub struct Features {
    /// Features, `[n, width]`.
    pub features: Vec<f32>,
    /// Spatial features, `[n, spatial_width]`, where the method has some.
    pub spatial: Option<Vec<f32>>,
    /// What the Inception score is made of, `[n, logits]`.
    pub logits: Option<Vec<f32>>,
    /// The class that the method takes each for, `[n]`, where it knows the pictures' classes.
    pub predicted: Option<Vec<u32>>,
}

impl Method<'_> {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inception(_, protocol) => protocol.name(),
            Self::Own(_) => OWN,
        }
    }

    /// The numbers that it knows.
    pub fn metrics(&self) -> &'static [Metric] {
        match self {
            Self::Inception(_, protocol) => protocol.metrics(),
            Self::Own(_) => &[Metric::Fid, Metric::Pr],
        }
    }

    /// Those of `metrics` that it knows.
    pub fn known_of(&self, metrics: &[Metric]) -> Vec<Metric> {
        let known = metrics.iter().filter(|m| self.metrics().contains(m));
        known.copied().collect()
    }

    /// Features of a picture.
    pub fn width(&self) -> usize {
        match self {
            Self::Inception(..) => FEATURES,
            Self::Own(own) => own.classifier.config.features(),
        }
    }

    /// Spatial features of a picture, where there are any.
    pub fn spatial_width(&self) -> Option<usize> {
        match self {
            Self::Inception(..) => Some(SPATIAL),
            Self::Own(_) => None,
        }
    }

    /// Outputs that the Inception score is made of.
    pub fn logits(&self) -> usize {
        match self {
            Self::Inception(..) => LOGITS,
            Self::Own(own) => own.classifier.config.classes,
        }
    }

    /// The split of the Inception score of each of `n` pictures.
    pub fn splits(&self, n: usize) -> Option<Vec<u32>> {
        match self {
            Self::Inception(_, protocol) => protocol.splits(n),
            Self::Own(_) => None,
        }
    }

    /// Whether it names classes of the pictures' own.
    pub fn names_classes(&self) -> bool {
        match self {
            Self::Inception(..) => false,
            Self::Own(_) => true,
        }
    }

    /// Whether `other` finds the same in pictures.
    pub fn sees_like(&self, other: &Method<'_>) -> bool {
        self.sight() == other.sight()
    }

    /// The network, by its place in memory, and how pictures are prepared for it.
    fn sight(&self) -> (*const (), Option<Preparation>) {
        match *self {
            Self::Inception(net, protocol) => {
                let net = std::ptr::from_ref(net).cast();
                (net, Some(protocol.preparation()))
            }
            Self::Own(own) => (std::ptr::from_ref(own).cast(), None),
        }
    }

    /// Features of pictures, in batches of one size each, as far as `metrics` need them.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn extract(&self, pictures: &[PictureBatch], metrics: &[Metric]) -> Result<Features> {
        match self {
            Self::Inception(net, protocol) => {
                let x = prepare_all(protocol.preparation(), pictures, net.params.device())?;
                let found = net.forward(&ForwardPass::plain(net.math), &x)?;
                let wants = |metric| metrics.contains(&metric);
                let of = |wanted: bool, x: &Tensor| wanted.then(|| here(x)).transpose();
                Ok(Features {
                    features: here(&found.features)?,
                    spatial: of(wants(Metric::Sfid), &found.spatial)?,
                    logits: of(wants(Metric::Is), &found.logits)?,
                    predicted: None,
                })
            }
            Self::Own(own) => {
                let net = &own.classifier;
                let x = of_side(pictures, net.config.side, net.device())?;
                let found = net.forward(&ForwardPass::plain(net.math), &x)?;
                let logits = here(&found.logits)?;
                let rows = logits.chunks_exact(net.config.classes);
                Ok(Features {
                    features: here(&found.features)?,
                    spatial: None,
                    logits: None,
                    predicted: Some(rows.map(|row| largest(row).unwrap_or(0) as u32).collect()),
                })
            }
        }
    }
}
