//! Models from files: what to build is read off the file itself.

use super::trainer_state::{is_native_trainer, read_native_header};
use super::{ModelKind, WeightsKind, load_part};
use crate::canvas::Canvas;
use crate::checkpoint::weights::{
    CANVAS_KEY, FINGERPRINT_KEY, TOKENIZER_KEY, format_patch_nums, understood,
};
use crate::format::safetensors::SafetensorsFile;
use crate::format::sniff::{FileFormat, sniff};
use crate::model::MAX_SIDE;
use crate::model::Pyramid;
use crate::model::state::{fingerprint, hit_averages, load_var, load_vqvae};
use crate::model::var::state_dict::VarShape;
use crate::model::var::{Var, VarConfig};
use crate::model::vqvae::state_dict::{PhiKind, VaeShape};
use crate::model::vqvae::{Vqvae, VqvaeConfig};
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::Path;

/// A tokenizer from a file.
pub struct OpenTokenizer {
    /// The tokenizer.
    pub vqvae: Vqvae,
    /// Hit averages \[scales\]\[V\].
    pub hits: Vec<Vec<f32>>,
    /// What the images were laid on that it was trained with, where the file says it.
    pub canvas: Option<Canvas>,
    /// The scales that it was trained with, where the file states them (the reference's files do not).
    pub trained_with: Option<Pyramid>,
}

/// Settings of a tokenizer with these tensors; what tensors do not tell is as published.
pub fn vqvae_config(shape: &VaeShape, pyramid: Pyramid) -> VqvaeConfig {
    let (share, counts, rho) = match shape.phi {
        PhiKind::None => (4, 0, 0.0),
        PhiKind::Shared => (1, 0, 0.5),
        PhiKind::PerScale(n) => (0, n, 0.5),
        PhiKind::Partial(n) => (n, 0, 0.5),
    };
    VqvaeConfig {
        vocab: shape.vocab_size,
        cvae: shape.cvae,
        ch: shape.ch,
        ch_mult: shape.ch_mult.clone(),
        num_res_blocks: shape.num_res_blocks,
        quant_conv_ks: shape.quant_conv_ks,
        quant_resi: rho,
        share_quant_resi: share,
        default_qresi_counts: counts,
        ..VqvaeConfig::published(pyramid)
    }
}

/// Opens a tokenizer: weights of either format, or a training checkpoint, from which `kind` chooses. `pyramid` are the scales to use;
/// `None` takes those of the file.
///
/// # Errors
/// One line naming the file when it can't be used, when scales are asked for that end elsewhere than those the
/// tokenizer was trained with, or when none are given and the file states none.
pub fn open_tokenizer(
    path: &Path,
    pyramid: Option<&Pyramid>,
    kind: Option<WeightsKind>,
) -> Result<OpenTokenizer> {
    open_tokenizer_for(path, pyramid, None, kind)
}

/// [`open_tokenizer`] for a run whose flags say how many pixels along a side a token stands for.
///
/// # Errors
/// As [`open_tokenizer`], and where that number is another: all that contradicts is in the one line.
pub fn open_tokenizer_for(
    path: &Path,
    pyramid: Option<&Pyramid>,
    patch_size: Option<usize>,
    kind: Option<WeightsKind>,
) -> Result<OpenTokenizer> {
    let name = path.display();
    let weights = load_part(path, ModelKind::Vae, kind)?;
    let shape = weights.vae_shape(path)?;
    let recorded: Option<VqvaeConfig> = match weights.metadata.get(TOKENIZER_KEY) {
        None => None,
        Some(text) => Some(understood(path, TOKENIZER_KEY, text)?),
    };
    let trained_with = match (&recorded, &weights.patch_nums) {
        (Some(c), _) => Some(c.pyramid.clone()),
        (None, Some(sides)) => Some(Pyramid::square(sides)?),
        (None, None) => None,
    };
    let mut contradictions = Vec::new();
    if let (Some(asked), Some(had)) = (pyramid, recorded.as_ref().map(|c| &c.pyramid))
        && asked.finest() != had.finest()
    {
        let (a, h) = (asked.finest(), had.finest());
        let list = had.sides().map_or("a list that ends there".into(), |s| {
            format!("one that does, such as {}", format_patch_nums(&s))
        });
        contradictions.push(format!(
            "`pn` ends at {}x{} but the tokenizer {name} was trained with scales that end at {}x{}: give {list}",
            a.0, a.1, h.0, h.1
        ));
    }
    contradictions.extend(other_patch(path, shape.ch_mult.len(), patch_size));
    refuse_all(&contradictions)?;
    let Some(pyramid) = pyramid.cloned().or_else(|| trained_with.clone()) else {
        return Err(Error::input(format!(
            "{name}: the file does not say with which scales the tokenizer was trained; give them with `pn` (256 for the published one)"
        )));
    };
    let config = match recorded {
        Some(c) => VqvaeConfig { pyramid, ..c },
        None => vqvae_config(&shape, pyramid),
    };
    // Before anything is made of these numbers.
    config.check_of(&format!("{name}: its tokenizer"))?;
    let side = config.pyramid.finest().0 * config.downsample();
    if side > MAX_SIDE {
        return Err(Error::input(format!(
            "{name}: with these scales (`pn`) images would have {side} pixels a side; at most {MAX_SIDE} can be made"
        )));
    }
    let canvas = weights.canvas(path)?;
    let hits = hit_averages(&weights.tensors, config.pyramid.count(), config.vocab);
    let mut vqvae = Vqvae::new(config, false)?;
    load_vqvae(&mut vqvae, &weights.tensors, &name.to_string())?;
    Ok(OpenTokenizer {
        vqvae,
        hits,
        canvas,
        trained_with,
    })
}

/// The scales that a tokenizer's or a token file was made with, as `--pn` takes them, and the pixels along a side of a token, where the
/// file says so: the reference's do not. Nothing but its header is read.
///
/// # Errors
/// When it can't be read, or what it says is damaged.
pub fn sizes_in(path: &Path) -> Result<Option<(String, usize)>> {
    let config: Option<VqvaeConfig> = stated(path, TOKENIZER_KEY)?;
    Ok(config.and_then(|config| {
        let sides = config.pyramid.sides()?;
        Some((format_patch_nums(&sides), config.downsample()))
    }))
}

/// What the images were laid on that a tokenizer was trained with, where its file says it. Nothing but its header is read.
///
/// # Errors
/// As [`sizes_in`].
pub fn canvas_in(path: &Path) -> Result<Option<Canvas>> {
    stated(path, CANVAS_KEY)
}

/// What a file states as JSON beside its tensors.
fn stated<T: DeserializeOwned>(path: &Path, key: &str) -> Result<Option<T>> {
    if sniff(path)? != FileFormat::Safetensors {
        return Ok(None);
    }
    let file = SafetensorsFile::open(path)?;
    let text = match is_native_trainer(&file) {
        true => {
            let header = read_native_header(&file)?;
            header.extra.get(key).map(ToString::to_string)
        }
        false => file.metadata().get(key).cloned(),
    };
    text.map(|text| understood(path, key, &text)).transpose()
}

/// What is to be said of `--patch_size` where a tokenizer of so many levels has another.
pub fn other_patch(path: &Path, levels: usize, patch_size: Option<usize>) -> Option<String> {
    // Every level but the last halves the image.
    let (asked, has) = (patch_size?, 1 << (levels - 1));
    (asked != has).then(|| {
        format!(
            "`patch_size`={asked}: a token of {} stands for {has}x{has} pixels; use `patch_size`={has}",
            path.display()
        )
    })
}

/// Refuses what contradicts, all of it in one line.
///
/// # Errors
/// Where there is something.
pub fn refuse_all(contradictions: &[String]) -> Result<()> {
    match contradictions {
        [] => Ok(()),
        all => Err(Error::input(all.join("; and "))),
    }
}

/// Settings of a transformer with these tensors.
///
/// # Errors
/// When its scales are not known; `source` names it.
pub fn var_config(shape: &VarShape, source: &str) -> Result<VarConfig> {
    let Some(sides) = &shape.patch_nums else {
        return Err(Error::input(format!(
            "{source}: the file does not say which scales its {} tokens are; convert it from the reference's file again",
            shape.seq_len
        )));
    };
    let base = VarConfig::of_depth(shape.depth, shape.num_classes, Pyramid::square(sides)?);
    Ok(VarConfig {
        heads: shape.heads,
        head_dim: shape.width / shape.heads.max(1),
        vocab: shape.vocab_size,
        cvae: shape.cvae,
        shared_aln: shape.shared_aln,
        attn_l2_norm: shape.anorm,
        mlp_ratio: shape.ffn_width as f64 / shape.width.max(1) as f64,
        ..base
    })
}

/// Opens a transformer: weights of either format, or a training checkpoint, from which `kind` chooses.
///
/// # Errors
/// One line naming the file when it can't be used.
pub fn open_var(path: &Path, kind: Option<WeightsKind>) -> Result<Var> {
    open_var_of(path, kind).map(|opened| opened.var)
}

/// A transformer, and what its file says beside the weights.
struct OpenVar {
    var: Var,
    /// The fingerprint of its tokenizer.
    trained_on: Option<String>,
    class_names: Option<Vec<String>>,
    canvas: Option<Canvas>,
}

fn open_var_of(path: &Path, kind: Option<WeightsKind>) -> Result<OpenVar> {
    let name = path.display().to_string();
    let mut weights = load_part(path, ModelKind::Var, kind)?;
    let shape = weights.var_shape(path)?;
    let class_names = weights.class_names(path, shape.num_classes)?;
    let canvas = weights.canvas(path)?;
    let mut var = Var::new(var_config(&shape, &name)?, false)?;
    load_var(&mut var, &weights.tensors, &name)?;
    Ok(OpenVar {
        var,
        trained_on: weights.metadata.remove(FINGERPRINT_KEY),
        class_names,
        canvas,
    })
}

/// A transformer with its tokenizer.
pub struct OpenPair {
    /// The transformer.
    pub var: Var,
    /// Its tokenizer.
    pub tokenizer: OpenTokenizer,
    /// The names of the classes, in class order, where the file holds them.
    pub class_names: Option<Vec<String>>,
    /// What the images were laid on that they were trained with, where a file says it.
    pub canvas: Option<Canvas>,
}

/// A transformer with its tokenizer: from one training checkpoint, or the tokenizer from a file of its own. `kind` chooses the
/// transformer's weights.
///
/// # Errors
/// As [`open_var`] and [`open_tokenizer`], and when the two do not fit each other.
pub fn open_pair(
    model: &Path,
    tokenizer: Option<&Path>,
    kind: Option<WeightsKind>,
) -> Result<OpenPair> {
    let OpenVar {
        var,
        trained_on,
        class_names,
        canvas,
    } = open_var_of(model, kind)?;
    let source = tokenizer.unwrap_or(model);
    let tok =
        open_tokenizer(source, Some(&var.config.pyramid), None).map_err(|e| match tokenizer {
            Some(_) => e,
            None => Error::input(format!("{e}; give the tokenizer with `tokenizer`=FILE")),
        })?;
    let (a, b) = (&var.config, &tok.vqvae.config);
    if a.vocab != b.vocab || a.cvae != b.cvae {
        return Err(Error::input(format!(
            "{} predicts {} codes of width {} but the tokenizer {} has {} of width {}",
            model.display(),
            a.vocab,
            a.cvae,
            source.display(),
            b.vocab,
            b.cvae
        )));
    }
    // One that lies in the model's own file is the one that it was trained with.
    if let (None, Some(given)) = (&trained_on, tokenizer) {
        refuse_other_codes(model, given, &tok.vqvae)?;
    }
    if let (Some(expected), Some(_)) = (trained_on, tokenizer) {
        let found = fingerprint(&tok.vqvae.params)?;
        if found != expected {
            return Err(Error::input(format!(
                "`tokenizer`={}: {} was trained on tokens of another tokenizer (weights {expected}, not {found}); give that one",
                source.display(),
                model.display()
            )));
        }
    }
    Ok(OpenPair {
        var,
        canvas: canvas.or(tok.canvas),
        tokenizer: tok,
        class_names,
    })
}

/// Refuses a tokenizer whose codes are not those of the one that lies in the model's own file, where one does. Another decoder for the
/// same codes is welcome.
fn refuse_other_codes(model: &Path, given: &Path, vqvae: &Vqvae) -> Result<()> {
    let Ok(own) = open_tokenizer(model, Some(&vqvae.config.pyramid), None) else {
        return Ok(());
    };
    let codes = |vqvae: &Vqvae| vqvae.quantizer.codebook(&vqvae.params);
    let (own, other) = (codes(&own.vqvae), codes(vqvae));
    if own.f32()? == other.f32()? {
        return Ok(());
    }
    Err(Error::input(format!(
        "`tokenizer`={}: {} was trained on the codes of another tokenizer, which it holds itself; leave the flag out",
        given.display(),
        model.display()
    )))
}
