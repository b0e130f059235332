//! How far a tokenizer's pictures are from what they were made of, pair by pair.

use super::Args;
use nextscale::Result;
use nextscale::data::{Feed, RgbImage8};
use nextscale::model::ForwardPass;
use nextscale::model::lpips::Lpips;
use nextscale::score::network::{LpipsInfo, open_lpips};
use nextscale::score::{PictureBatch, PixelMeans, pixel_scores};
use nextscale_tensor::{Device, Math};
use serde::Serialize;

/// Means over all pairs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct PairScores {
    /// Of the pictures' PSNR in dB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psnr_db: Option<f64>,
    /// Of their SSIM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssim: Option<f64>,
    /// Of their LPIPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lpips: Option<f64>,
}

/// Adds up pairs.
pub struct Pairs {
    pixels: PixelMeans,
    lpips: Option<(Lpips, Feed)>,
    /// Its files.
    pub lpips_info: Option<LpipsInfo>,
    lpips_sum: f64,
}

impl Pairs {
    /// With LPIPS where its files are given.
    pub fn new(args: &Args, device: Device, math: Math) -> Result<Self> {
        let mut lpips_info = None;
        let lpips = match args.vgg.as_ref().zip(args.lpips.as_ref()) {
            Some((vgg, heads)) => {
                let (mut lpips, info) = open_lpips(vgg, heads)?;
                lpips_info = Some(info);
                lpips.to_device(device, math)?;
                Some((lpips, Feed::new(device)?))
            }
            None => None,
        };
        Ok(Self {
            pixels: PixelMeans::default(),
            lpips,
            lpips_info,
            lpips_sum: 0.0,
        })
    }

    /// Adds pictures as they were and as they came back.
    pub fn add(&mut self, before: &PictureBatch, after: &PictureBatch) -> Result<()> {
        let (height, width) = before.size;
        let bytes = (height * width * 3).max(1);
        let image = |rgb: &[u8]| RgbImage8::new(width, height, rgb.to_vec());
        let pairs = before
            .rgb
            .chunks_exact(bytes)
            .zip(after.rgb.chunks_exact(bytes));
        let pairs = pairs.map(|(a, b)| Ok((image(a)?, image(b)?)));
        let scores = pixel_scores(&pairs.collect::<Result<Vec<_>>>()?)?;
        scores.into_iter().for_each(|score| self.pixels.add(score));
        if let Some((lpips, feed)) = &mut self.lpips {
            let shape = [before.len(), height, width, 3];
            let (a, b) = (
                feed.images(shape, &before.rgb)?,
                feed.images(shape, &after.rgb)?,
            );
            let found = lpips.forward(&ForwardPass::plain(lpips.math), &a, &b)?;
            let found = found.to(Device::Cpu)?;
            self.lpips_sum += found.f32()?.iter().map(|v| f64::from(*v)).sum::<f64>();
        }
        Ok(())
    }

    /// What is to be known of the means.
    pub fn remarks(&self) -> Vec<String> {
        let mut remarks: Vec<String> = self
            .lpips_info
            .iter()
            .filter_map(LpipsInfo::remark)
            .collect();
        let (equal, small, count) = (self.pixels.equal, self.pixels.small, self.pixels.count);
        if equal > 0 {
            remarks.push(format!(
                "no mean PSNR: {equal} of {count} images came back as they were, whose PSNR is infinite"
            ));
        }
        if small > 0 {
            remarks.push(format!(
                "SSIM is of {} of {count} images; {small} are smaller than its window",
                count - small
            ));
        }
        remarks
    }

    /// The means.
    pub fn means(&self) -> PairScores {
        let count = self.pixels.count.max(1) as f64;
        PairScores {
            // Of equal pictures it is infinite, which no JSON has.
            psnr_db: self.pixels.psnr().filter(|psnr| psnr.is_finite()),
            ssim: self.pixels.ssim(),
            lpips: self.lpips.as_ref().map(|_| self.lpips_sum / count),
        }
    }
}
