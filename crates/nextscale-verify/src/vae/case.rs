//! One image batch: everything between it and its reconstruction.

use crate::compare::Limit;
use crate::models::Tokenizer;
use crate::part;
use crate::recorded::Recorded;
use crate::report::Report;
use crate::tokens::Maps;
use nextscale::model::vqvae::Vqvae;
use nextscale::model::{ForwardPass, Pyramid};
use nextscale::{Error, Result};
use nextscale_tensor::{Cx, Math, Tensor, ops};
use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};

/// One file of recorded numbers.
pub(super) struct Case<'a> {
    pub(super) stem: &'a str,
    pub(super) file: &'a Recorded,
    pub(super) tokenizer: &'a Tokenizer,
    pub(super) vqvae: &'a Vqvae,
    pub(super) pyramid: &'a Pyramid,
    pub(super) limit: Limit,
}

impl Case<'_> {
    pub(super) fn label(&self, what: impl std::fmt::Display) -> String {
        format!("{}/{what}", self.stem)
    }

    /// Compares everything that the file holds.
    pub(super) fn check(&self, report: &mut Report<'_>) -> Result<()> {
        let (file, vqvae) = (self.file, self.vqvae);
        if file.has("image") && file.has("image_u8") {
            let got = file.images("image_u8")?;
            let want = file.channels_last("image")?;
            report.numbers(self.label("image"), got.f32()?, want.f32()?, Limit::EXACT);
        }
        let machine = report.machine();
        let image = super::images(file)?.to(machine.device)?;
        let (seen, f) = probed(vqvae.math, |run| vqvae.features(run, &image, None))?;
        let mut done: BTreeSet<String> = ["image", "image_u8"].map(str::to_owned).into();

        let (seen_f_hats, code) = probed(vqvae.math, |run| {
            vqvae.quantizer.encode(run, &vqvae.params, &f, self.pyramid)
        })?;
        let recorded = self.recorded_maps(&image)?;
        let mut f_hats: Vec<Tensor> = Vec::new();
        match &recorded {
            None => f_hats.extend(
                (0..self.pyramid.count())
                    .filter_map(|k| seen_f_hats.get(&format!("f_hat.{k}")).cloned()),
            ),
            Some(recorded) => {
                let gaps = self.gaps();
                let maps = Maps {
                    vqvae,
                    pyramid: self.pyramid,
                    f: &f,
                    recorded,
                };
                let label = |k: usize| self.label(format!("idx.{k}"));
                if maps.compare(&code.indices, gaps.as_deref(), label, report)? {
                    f_hats.extend(
                        (0..recorded.len())
                            .filter_map(|k| seen_f_hats.get(&format!("f_hat.{k}")).cloned()),
                    );
                } else {
                    f_hats = vqvae.quantizer.f_hats(
                        &vqvae.params,
                        &machine.all(recorded)?,
                        self.pyramid,
                    )?;
                }
                done.extend((0..recorded.len()).map(|k| format!("idx.{k}")));
                self.statistics(&maps, &f_hats, report)?;
            }
        }
        let Some(f_hat) = f_hats.last() else {
            return Err(Error::input(format!("{}: has no scales", file.source())));
        };
        let (decoded, plain) = probed(vqvae.math, |run| vqvae.decode(run, f_hat, None))?;
        let recon = ops::clamp(&plain, -1.0, 1.0)?;
        self.clamped(&plain, report)?;

        for name in file.names() {
            if done.contains(name) {
                continue;
            }
            self.quantity(
                name,
                recorded.as_deref(),
                report,
                |bare| match bare {
                    "recon" => Some(recon.clone()),
                    "dec.conv_out_preclamp" => Some(plain.clone()),
                    _ => match bare
                        .strip_prefix("f_hat.")
                        .and_then(|k| k.parse::<usize>().ok())
                    {
                        Some(k) => f_hats.get(k).cloned(),
                        None => seen.get(bare).or_else(|| decoded.get(bare)).cloned(),
                    },
                },
                &f_hats,
            )?;
        }
        Ok(())
    }

    /// Recorded token maps, one a scale.
    fn recorded_maps(&self, image: &Tensor) -> Result<Option<Vec<Tensor>>> {
        if !self.file.has("idx.0") {
            return Ok(None);
        }
        let b = image.dims().first().copied().unwrap_or(0);
        let maps = (0..self.pyramid.count()).map(|k| {
            let name = format!("idx.{k}");
            let l = self.pyramid.len_of(k);
            if self.file.shape(&name)? != [b, l] {
                return Err(self.file.bad(
                    &name,
                    format!(
                        "has the shape {:?}, expected [{b}, {l}]",
                        self.file.shape(&name)?
                    ),
                ));
            }
            Ok(Tensor::from_i32(
                [b, l],
                self.file.ints(&name, self.tokenizer.vocab())?,
            ))
        });
        maps.collect::<Result<_>>().map(Some)
    }

    /// Compares one recorded tensor.
    fn quantity(
        &self,
        name: &str,
        recorded: Option<&[Tensor]>,
        report: &mut Report<'_>,
        find: impl Fn(&str) -> Option<Tensor>,
        f_hats: &[Tensor],
    ) -> Result<()> {
        let (file, vqvae) = (self.file, self.vqvae);
        let label = self.label(name);
        let (bare, _) = part::bare(name);
        let number = |lead: &str| {
            bare.strip_prefix(lead)
                .and_then(|k| k.parse::<usize>().ok())
        };
        let recorded = recorded.unwrap_or_default();
        let on_device = report.machine().all(recorded)?;
        // Of the first samples alone, unless a plain list of numbers tells nothing of samples.
        let first = match file.shape(name)? {
            &[b, _, _, _] => b,
            _ => usize::MAX,
        };
        if name == "idx_cat" {
            if recorded.is_empty() {
                report.unchecked(label, "the maps of the scales are not recorded");
                return Ok(());
            }
            let parts: Vec<&Tensor> = recorded.iter().collect();
            let got = ops::concat_tokens(&parts)?;
            report.numbers(
                label,
                got.i32()?,
                &file.ints(name, self.tokenizer.vocab())?,
                Limit::EXACT,
            );
            return Ok(());
        }
        if bare == "var_input" {
            let got = vqvae.quantizer.var_input(
                &vqvae.params,
                &on_device,
                self.pyramid,
                recorded.len(),
            )?;
            match got {
                Some(got) => {
                    self.map(name, &got, report)?;
                }
                None => report.unchecked(label, "it needs token maps of two scales"),
            }
            return Ok(());
        }
        if let Some(k) = number("idx_to_img_growing.") {
            let maps = on_device
                .iter()
                .take(k + 1)
                .map(|m| m.narrow(0, first.min(m.dims()[0])))
                .collect::<nextscale_tensor::Result<Vec<_>>>()?;
            let grown = vqvae
                .quantizer
                .f_hats_growing(&vqvae.params, &maps, self.pyramid)?;
            return match grown.get(k) {
                Some(f) => self.map(name, &vqvae.decode_clamped(f)?, report),
                None => {
                    report.unchecked(label, "there is no such scale");
                    Ok(())
                }
            };
        }
        if let Some(k) = number("idx_to_img.") {
            return match f_hats.get(k) {
                Some(f) => {
                    let f = f.narrow(0, first.min(f.dims()[0]))?;
                    self.map(name, &vqvae.decode_clamped(&f)?, report)
                }
                None => {
                    report.unchecked(label, "there is no such scale");
                    Ok(())
                }
            };
        }
        match find(bare) {
            Some(got) => self.map(name, &got, report),
            None => {
                report.unchecked(label, "no known quantity");
                Ok(())
            }
        }
    }

    /// Compares what is recorded of a feature map or image batch.
    fn map(&self, name: &str, got: &Tensor, report: &mut Report<'_>) -> Result<()> {
        part::compare(self.label(name), got, (self.file, name), self.limit, report)
    }
}

/// Runs `f` in this arithmetic with a probe and returns all that it saw.
fn probed<T>(
    math: Math,
    f: impl FnOnce(&ForwardPass<'_>) -> Result<T>,
) -> Result<(HashMap<String, Tensor>, T)> {
    let seen = RefCell::new(HashMap::new());
    let probe = |name: &str, value: &Tensor| {
        seen.borrow_mut().insert(name.to_owned(), value.clone());
    };
    let run = ForwardPass {
        cx: Cx::off().with(math),
        probe: Some(&probe),
    };
    let out = f(&run)?;
    Ok((seen.into_inner(), out))
}
