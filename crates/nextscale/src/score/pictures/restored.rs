//! Pictures through a tokenizer and back.

use super::Pictures;
use crate::data::Feed;
use crate::model::Pyramid;
use crate::model::vqvae::Vqvae;
use crate::score::PictureBatch;
use crate::{Error, Result};
use nextscale_tensor::ops;

/// What a tokenizer makes of pictures of its size.
pub struct RestoredPictures<'a> {
    originals: &'a mut dyn Pictures,
    vqvae: &'a Vqvae,
    pyramid: Pyramid,
    feed: Feed,
    /// Is shown every batch as it was and as it came back.
    pairs: &'a mut dyn FnMut(&PictureBatch, &PictureBatch) -> Result<()>,
}

impl<'a> RestoredPictures<'a> {
    /// Of these originals, which have the size that the tokenizer is made for.
    ///
    /// # Errors
    /// When the GPU can't be used.
    pub fn new(
        originals: &'a mut dyn Pictures,
        vqvae: &'a Vqvae,
        pairs: &'a mut dyn FnMut(&PictureBatch, &PictureBatch) -> Result<()>,
    ) -> Result<Self> {
        Ok(Self {
            originals,
            vqvae,
            pyramid: vqvae.config.pyramid.clone(),
            feed: Feed::new(vqvae.params.device())?,
            pairs,
        })
    }
}

impl Pictures for RestoredPictures<'_> {
    fn len(&self) -> usize {
        self.originals.len()
    }

    fn next(&mut self) -> Result<Option<Vec<PictureBatch>>> {
        let Some(window) = self.originals.next()? else {
            return Ok(None);
        };
        let restored = window.iter().map(|batch| self.restore(batch));
        restored.collect::<Result<_>>().map(Some)
    }
}

impl RestoredPictures<'_> {
    /// What the tokenizer makes of some.
    fn restore(&mut self, original: &PictureBatch) -> Result<PictureBatch> {
        let (height, width) = original.size;
        let (h, w) = self.pyramid.finest();
        let step = self.vqvae.config.downsample();
        if (height, width) != (h * step, w * step) {
            return Err(Error::failed(format!(
                "a picture of {width}×{height} came to a tokenizer of {}×{}",
                w * step,
                h * step
            )));
        }
        let x = self
            .feed
            .images([original.len(), height, width, 3], &original.rgb)?;
        let (back, _) = self.vqvae.reconstruct(&x, &self.pyramid)?;
        let restored = PictureBatch {
            rgb: ops::to_pixels(&ops::to_unit_range(&back)?)?,
            ..original.clone()
        };
        (self.pairs)(original, &restored)?;
        Ok(restored)
    }
}
