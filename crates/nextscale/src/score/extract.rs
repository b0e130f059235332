//! From pictures to features.

use super::float_bicubic;
use super::protocol::{Metric, Preparation, Protocol};
use crate::model::ForwardPass;
use crate::model::inception::{FEATURES, Inception, LOGITS, SIDE, SPATIAL};
use crate::{Error, Result};
use nextscale_tensor::{Cx, DType, Device, Tensor, ops};

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
}

/// Pictures as the network takes them, `[n, 299, 299, 3]`, on `device`.
///
/// # Errors
/// When pictures are none, or the GPU refuses.
pub fn prepare(preparation: Preparation, pictures: &PictureBatch, device: Device) -> Result<Tensor> {
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
        Preparation::CornerBilinear => {
            let resized = ops::corner_bilinear(&Cx::off(), &unit()?, (SIDE, SIDE))?;
            // From v = u/127.5 − 1 to (u − 128)/128.
            ops::to_range(&resized, 127.5 / 128.0, -0.5 / 128.0)?
        }
        Preparation::FloatBicubic => {
            let mut all = Vec::with_capacity(n * SIDE * SIDE * 3);
            for rgb in pictures.rgb.chunks_exact(each) {
                let resized = float_bicubic(rgb, pictures.size, SIDE);
                all.extend(resized.into_iter().map(|v| (v - 128.0) / 128.0));
            }
            Tensor::from_vec([n, SIDE, SIDE, 3], all).to(device)?
        }
    })
}

/// How features come from pictures.
#[derive(Clone, Copy)]
pub enum Method<'a> {
    /// The Inception network, by a protocol.
    Inception(&'a Inception, Protocol),
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
    /// The class that the method names, `[n]`, where it knows the pictures' classes.
    pub named: Option<Vec<u32>>,
}

impl Method<'_> {
    /// Its name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Inception(_, protocol) => protocol.name(),
        }
    }

    /// The numbers that it knows.
    pub fn metrics(&self) -> &'static [Metric] {
        match self {
            Self::Inception(_, protocol) => protocol.metrics(),
        }
    }

    /// Features of a picture.
    pub fn width(&self) -> usize {
        match self {
            Self::Inception(..) => FEATURES,
        }
    }

    /// Spatial features of a picture, where there are any.
    pub fn spatial_width(&self) -> Option<usize> {
        match self {
            Self::Inception(..) => Some(SPATIAL),
        }
    }

    /// Outputs that the Inception score is made of.
    pub fn logits(&self) -> usize {
        match self {
            Self::Inception(..) => LOGITS,
        }
    }

    /// The split of the Inception score of each of `n` pictures.
    pub fn splits(&self, n: usize) -> Option<Vec<u32>> {
        match self {
            Self::Inception(_, protocol) => protocol.splits(n),
        }
    }

    /// Whether it names classes of the pictures' own.
    pub fn names_classes(&self) -> bool {
        match self {
            Self::Inception(..) => false,
        }
    }

    /// Features of pictures.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn extract(&self, pictures: &PictureBatch) -> Result<Features> {
        match self {
            Self::Inception(net, protocol) => {
                let x = prepare(protocol.preparation(), pictures, net.params.device())?;
                let found = net.forward(&ForwardPass::plain(net.math), &x)?;
                let wants = |metric| protocol.metrics().contains(&metric);
                let here = |x: &Tensor| -> Result<Vec<f32>> {
                    Ok(x.to(Device::Cpu)?.cast(DType::F32)?.f32()?.to_vec())
                };
                let of = |wanted: bool, x: &Tensor| wanted.then(|| here(x)).transpose();
                Ok(Features {
                    features: here(&found.features)?,
                    spatial: of(wants(Metric::Sfid), &found.spatial)?,
                    logits: of(wants(Metric::Is), &found.logits)?,
                    named: None,
                })
            }
        }
    }
}
