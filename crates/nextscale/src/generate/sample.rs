//! Autoregressive drawing with classifier-free guidance (`autoregressive_infer_cfg` in the reference).

use super::Edit;
use crate::model::var::Var;
use crate::model::vqvae::Vqvae;
use crate::model::{ForwardPass, Pyramid};
use crate::{Error, Result};
use nextscale_tensor::ops::{self, Draw};
use nextscale_tensor::{Cx, Device, Tensor};

/// Given random numbers of one scale.
#[derive(Clone, Debug, Default)]
pub struct ScaleNoise {
    /// Unit-exponential numbers \[B, l, V\], where codes are drawn.
    pub exponential: Option<Vec<f32>>,
    /// Gumbel numbers \[B, l, V\], where codes are blended.
    pub gumbel: Option<Vec<f32>>,
}

/// Sees, after every scale, its index, the guided logits \[B, l, V\] before filtering, and f̂.
pub type Watch<'a> = dyn FnMut(usize, &Tensor, &Tensor) -> Result<()> + 'a;

/// Where random numbers come from.
#[derive(Clone, Debug)]
pub enum Noise {
    /// From the seed and each image's number, whatever the batch it is drawn in; on a GPU sums in another order may still turn a near tie.
    Seed(u64),
    /// Given, for each scale.
    Given(Vec<ScaleNoise>),
}

/// How images are drawn.
#[derive(Clone, Debug)]
pub struct SampleOptions {
    /// Strength of guidance; it rises linearly from 0 at the first scale to this at the last.
    pub cfg: f32,
    /// Keep the k likeliest codes (with ties); 0 keeps all; 1 is greedy.
    pub top_k: usize,
    /// Keep the likeliest codes that make up this probability; 0 keeps all.
    pub top_p: f32,
    /// Blend codes by a Gumbel softmax instead of drawing one: smoother pictures.
    pub more_smooth: bool,
    /// Random numbers.
    pub noise: Noise,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self {
            cfg: 1.5,
            top_k: 900,
            top_p: 0.96,
            more_smooth: false,
            noise: Noise::Seed(0),
        }
    }
}

/// A batch of drawn images.
pub struct Sampled {
    /// \[B, H, W, 3\] in \[0, 1\].
    pub images: Tensor,
    /// The accumulated feature \[B, h, w, Cvae\].
    pub f_hat: Tensor,
    /// Drawn tokens \[B, l\] of every scale.
    pub tokens: Vec<Tensor>,
}

impl Sampled {
    /// The images as 8-bit pixels. Waits for a GPU.
    ///
    /// # Errors
    /// [`NotNumbers`](nextscale_tensor::Error::NotNumbers) where logits or images are no numbers, which says which.
    pub fn pixels(&self) -> Result<Vec<u8>> {
        let pixels = ops::to_pixels(&self.images);
        if let Err(nextscale_tensor::Error::NotNumbers { .. }) = pixels {
            self.tokens.iter().try_for_each(check_drawn)?;
        }
        Ok(pixels?)
    }
}

/// Refuses tokens that were drawn from logits that are no numbers.
fn check_drawn(tokens: &Tensor) -> Result<()> {
    let here = tokens.to(Device::Cpu)?;
    let bad = here.i32()?.iter().filter(|t| **t == ops::NO_CODE).count();
    if bad == 0 {
        return Ok(());
    }
    Err(Error::Tensor(nextscale_tensor::Error::NotNumbers {
        what: "tokens' logits",
        bad,
        of: here.numel(),
    }))
}

/// Where the draws of one pass get their random numbers.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    /// As the caller said, with the number of the first image.
    Host(&'a Noise, u64),
    /// From a seed and the number of the first image that lie on the device ([`ops::draw_params`]).
    Device(&'a Tensor),
}

impl Numbers<'_> {
    /// Of scale `k`: where codes are drawn, and where they are blended.
    fn of(&self, k: usize) -> (Draw<'_>, Draw<'_>) {
        let scale = k as u64;
        let same = |d| (d, d);
        match *self {
            Self::Host(Noise::Seed(seed), first) => same(Draw::Seed {
                seed: *seed,
                scale,
                first,
            }),
            Self::Host(Noise::Given(all), _) => {
                let noise = &all[k];
                (
                    Draw::Given(noise.exponential.as_deref().unwrap_or(&[])),
                    Draw::Given(noise.gumbel.as_deref().unwrap_or(&[])),
                )
            }
            Self::Device(params) => same(Draw::Device { params, scale }),
        }
    }
}

/// A condition between two classes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Blend {
    /// The class where `share` is 0.
    pub from: i32,
    /// The class where `share` is 1.
    pub to: i32,
    /// How far from the one to the other, 0 to 1: class embeddings are blended linearly.
    pub share: f32,
}

/// A transformer with the tokenizer it was trained on.
#[derive(Clone, Copy)]
pub struct Sampler<'a> {
    /// The transformer.
    pub var: &'a Var,
    /// The tokenizer.
    pub vqvae: &'a Vqvae,
}

impl Sampler<'_> {
    fn pyramid(&self) -> &Pyramid {
        &self.var.config.pyramid
    }

    /// Draws one image a label. `first` is the number of the first image, which with the seed fixes its random
    /// numbers. `edit` keeps parts of a source image. `watch` sees, after every scale, its index, the guided logits
    /// \[B, l, V\] before filtering, and f̂.
    ///
    /// # Errors
    /// When a label is out of range or the models do not fit each other.
    pub fn draw(
        &self,
        labels: &[i32],
        first: u64,
        options: &SampleOptions,
        edit: Option<&Edit>,
        watch: Option<&mut Watch<'_>>,
    ) -> Result<Sampled> {
        let rows = self.rows(labels, options)?;
        let rows = Tensor::from_i32([rows.len()], rows).to(self.var.device())?;
        let numbers = Numbers::Host(&options.noise, first);
        self.pass(&rows, numbers, options, edit, watch, &mut || Ok(()))
    }

    /// [`Sampler::draw`] of the same images, which asks `each` after every scale whether to go on.
    ///
    /// # Errors
    /// As [`Sampler::draw`], and those of `each`, which so ends it.
    pub fn draw_while(
        &self,
        labels: &[i32],
        first: u64,
        options: &SampleOptions,
        each: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Sampled> {
        let rows = self.rows(labels, options)?;
        let rows = Tensor::from_i32([rows.len()], rows).to(self.var.device())?;
        let numbers = Numbers::Host(&options.noise, first);
        self.pass(&rows, numbers, options, None, None, each)
    }

    /// Draws one image a blend of classes, as [`Sampler::draw`] does of labels; where a share is 0 or 1 it is the image of that class. The
    /// pass is never recorded as a graph.
    ///
    /// # Errors
    /// When a label or a share is out of range or the models do not fit each other.
    pub fn draw_between(
        &self,
        blends: &[Blend],
        first: u64,
        options: &SampleOptions,
        watch: Option<&mut Watch<'_>>,
    ) -> Result<Sampled> {
        if let Some(b) = blends.iter().find(|b| !(0.0..=1.0).contains(&b.share)) {
            return Err(Error::input(format!(
                "a share of {} between two classes: expected a number from 0 to 1",
                b.share
            )));
        }
        let side = |of: fn(&Blend) -> i32| -> Result<Tensor> {
            let labels: Vec<i32> = blends.iter().map(of).collect();
            let rows = self.rows(&labels, options)?;
            Ok(Tensor::from_i32([rows.len()], rows).to(self.var.device())?)
        };
        let (from, to) = (side(|b| b.from)?, side(|b| b.to)?);
        let mut shares: Vec<f32> = blends.iter().map(|b| b.share).collect();
        // Of rows without a class both sides are the same.
        shares.resize(from.numel(), 0.0);
        let cond = self.var.blended_condition(&from, &to, &shares)?;
        let numbers = Numbers::Host(&options.noise, first);
        self.pass_of(&cond, numbers, options, None, watch, &mut || Ok(()))
    }

    /// Labels of all rows of the batch: the images', then "no class" as often where there is guidance, without which a
    /// second half would have no influence.
    pub(super) fn rows(&self, labels: &[i32], options: &SampleOptions) -> Result<Vec<i32>> {
        self.var.check_labels(labels)?;
        let mut all = labels.to_vec();
        if options.cfg != 0.0 {
            all.extend(std::iter::repeat_n(self.var.no_class(), labels.len()));
        }
        Ok(all)
    }

    /// All scales and the decoder, for the labels of all rows on the models' device; `each` is asked after every scale.
    pub(super) fn pass(
        &self,
        rows: &Tensor,
        numbers: Numbers<'_>,
        options: &SampleOptions,
        edit: Option<&Edit>,
        watch: Option<&mut Watch<'_>>,
        each: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Sampled> {
        let pass = ForwardPass::plain(self.var.math);
        let cond = self.var.condition(&pass.cx.full(), rows)?;
        self.pass_of(&cond, numbers, options, edit, watch, each)
    }

    /// The same for conditions \[rows, C\].
    fn pass_of(
        &self,
        cond: &Tensor,
        numbers: Numbers<'_>,
        options: &SampleOptions,
        edit: Option<&Edit>,
        mut watch: Option<&mut Watch<'_>>,
        each: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Sampled> {
        let (var, pyramid) = (self.var, self.pyramid());
        let pass = ForwardPass::plain(var.math);
        let guided = options.cfg != 0.0;
        let copies = if guided { 2 } else { 1 };
        let conditions = var.conditions(&pass, cond)?;
        let mut caches = var.caches(cond.dims()[0])?;
        let codebook = self.vqvae.quantizer.codebook(&self.vqvae.params);
        let mut x = var.embed_first(cond)?;
        let mut f_hat: Option<Tensor> = None;
        let mut tokens = Vec::new();
        let last = pyramid.count() - 1;
        for k in 0..=last {
            let ratio = if last == 0 {
                0.0
            } else {
                k as f32 / last as f32
            };
            let logits = var.forward_scale(&pass, x.clone(), &conditions, &mut caches)?;
            let t = guided.then_some(options.cfg * ratio);
            let (exponential, gumbel) = numbers.of(k);
            let (top_k, top_p) = (options.top_k, options.top_p);
            // Intermediate results are made where somebody looks at them.
            let (mut idx, seen) = if options.more_smooth || watch.is_some() {
                let guided = ops::guide(&logits, t)?;
                let filtered = ops::filter_logits(&guided, top_k, top_p)?;
                let idx = ops::draw_tokens(&filtered, &exponential)?;
                (idx, Some((guided, filtered)))
            } else {
                let idx = ops::sample_tokens(&logits, t, top_k, top_p, &exponential)?;
                (idx, None)
            };
            drop(logits);
            // On a GPU nobody waits here: such a token makes not-a-numbers of its image.
            if idx.device() == Device::Cpu {
                check_drawn(&idx)?;
            }
            if let Some(edit) = edit {
                idx = edit.apply(&idx, k, pyramid)?;
            }
            let codes = match &seen {
                Some((_, filtered)) if options.more_smooth => {
                    ops::smooth_codes(filtered, ratio, &gumbel, &codebook)?
                }
                _ => ops::gather_rows(&Cx::off(), &codebook, &idx)?,
            };
            let params = &self.vqvae.params;
            let (sum, next) =
                self.vqvae
                    .quantizer
                    .advance(params, f_hat.as_ref(), &codes, k, pyramid)?;
            if let (Some(watch), Some((guided, _))) = (&mut watch, &seen) {
                watch(k, guided, &sum)?;
            }
            f_hat = Some(sum);
            tokens.push(idx);
            each()?;
            if let Some(features) = next {
                x = var.embed_scale(&features, k + 1, copies)?;
            }
        }
        let Some(f_hat) = f_hat else {
            return Err(Error::failed("a pyramid has at least one scale"));
        };
        Ok(Sampled {
            images: self.image(&f_hat)?,
            f_hat,
            tokens,
        })
    }

    /// f̂ decoded to \[B, H, W, 3\] in \[0, 1\].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn image(&self, f_hat: &Tensor) -> Result<Tensor> {
        let image = self.vqvae.decode_clamped(f_hat)?;
        Ok(ops::to_unit_range(&image)?)
    }
}
