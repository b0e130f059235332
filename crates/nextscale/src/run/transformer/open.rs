//! What a transformer's run is given: data and tokenizer, from flags and files, checked against each other.

use super::source::{Data, TokenData};
use crate::checkpoint::class_names::first_difference;
use crate::checkpoint::open::{open_tokenizer_for, other_patch, refuse_all};
use crate::checkpoint::weights::format_patch_nums;
use crate::data::tokens::TokenFile;
use crate::model::Pyramid;
use crate::model::state::fingerprint;
use crate::model::vqvae::codes::Tokenizer;
use crate::options::{Recipe, TransformerOptions, TransformerPlan};
use crate::run::Dataset;
use crate::{Error, Result};

/// Data and tokenizer of a run.
pub(super) struct Given {
    pub(super) data: Data,
    pub(super) tokenizer: Tokenizer,
    /// The tokenizer's hit averages \[scales\]\[V\], for the run's checkpoints; empty where only its codebook is at hand.
    pub(super) hits: Vec<Vec<f32>>,
}

/// Opens what the flags name.
///
/// # Errors
/// One line naming the flag or the file.
pub(super) fn open(
    o: &TransformerOptions,
    plan: &TransformerPlan,
    pyramid: &Pyramid,
) -> Result<Given> {
    let data = open_data(o, plan, pyramid)?;
    let Some(path) = &o.tokenizer else {
        return without_tokenizer(data);
    };
    let tok = open_tokenizer_for(path, Some(pyramid), Some(o.patch_size), None)?;
    if let Data::Tokens(t) = &data
        && let Some(info) = t.train.info()
    {
        let found = fingerprint(&tok.vqvae.params)?;
        if found != info.tokenizer {
            return Err(Error::input(format!(
                "`tokenizer`={}: {} was made with another tokenizer (weights {}, not {found}); give that one, or leave the flag out",
                path.display(),
                t.train.path().display(),
                info.tokenizer
            )));
        }
    }
    Ok(Given {
        data,
        hits: tok.hits,
        tokenizer: tok.vqvae.into(),
    })
}

/// A token file brings the codebook.
fn without_tokenizer(data: Data) -> Result<Given> {
    let Data::Tokens(mut t) = data else {
        return Err(Error::input(
            "`tokenizer` is missing: give the tokenizer's file (train one with: nextscale train-tokenizer)",
        ));
    };
    let path = t.train.path().to_path_buf();
    let Some(codes) = t.train.codes()? else {
        return Err(Error::input(format!(
            "{}: holds no codebook; give its tokenizer with `tokenizer`=FILE",
            path.display()
        )));
    };
    Ok(Given {
        data: Data::Tokens(t),
        tokenizer: codes.into(),
        hits: Vec::new(),
    })
}

fn open_data(o: &TransformerOptions, plan: &TransformerPlan, pyramid: &Pyramid) -> Result<Data> {
    match (&o.data.data_path, &o.tokens) {
        (Some(_), Some(_)) => Err(Error::input(
            "`tokens` and `data_path`: both are given; leave one out",
        )),
        (None, None) => Err(Error::input(
            "`data_path` is missing: give a folder of images (CLASS/*, or train/CLASS/* and val/CLASS/*) or shards, or builtin:shapes; or `tokens`=FILE",
        )),
        (Some(_), None) if o.val_tokens.is_some() => Err(Error::input(
            "`val_tokens` goes with `tokens`; `data_path` brings its own validation images",
        )),
        (Some(path), None) => Ok(Data::Images(Dataset::open(
            path,
            &o.folder,
            plan.image_size,
            o.data.mid_reso,
            o.data.hflip,
        )?)),
        (None, Some(path)) => {
            let mut train = TokenFile::open(path)?;
            let mut wrong: Vec<String> = other_scales("tokens", &train, pyramid)
                .into_iter()
                .collect();
            if o.data.hflip && !train.info().is_some_and(|i| i.hflip) {
                wrong.push(format!(
                    "`hflip`=1: {} holds no mirrored crops; make it again with nextscale tokenize `crops`=N `hflip`=1, or leave the flag out",
                    path.display()
                ));
            }
            wrong.extend(of_images_alone(o));
            if let Some(codes) = train.codes()? {
                let levels = codes.config.ch_mult.len();
                wrong.extend(other_patch(path, levels, Some(o.patch_size)));
            }
            let val = o.val_tokens.as_deref().map(TokenFile::open).transpose()?;
            if let Some(val) = &val {
                wrong.extend(other_scales("val_tokens", val, pyramid));
                wrong.extend(other_pair(&train, val));
            }
            refuse_all(&wrong)?;
            Ok(Data::Tokens(Box::new(TokenData { train, val })))
        }
    }
}

/// What is to be said of flags that only the images of a folder have.
fn of_images_alone(o: &TransformerOptions) -> Vec<String> {
    let folder = &o.folder;
    // Recipes of published models say what becomes of transparency, whatever they are trained from.
    let by_recipe = o.recipe.is_some_and(|r| Recipe::PUBLISHED.contains(&r));
    let background = folder.canvas.background.filter(|_| !by_recipe);
    let given = [
        ("aspect", folder.canvas.aspect.map(|a| a.to_string())),
        ("background", background.map(|b| b.to_string())),
        ("val_share", folder.val_share.map(|x| x.to_string())),
        (
            "val_path",
            folder.val_path.as_ref().map(|p| p.display().to_string()),
        ),
    ];
    let refuse = |(flag, value): (&str, Option<String>)| {
        let value = value?;
        Some(format!(
            "`{flag}`={value}: tokens are made of images before; give it to nextscale tokenize, or leave it out here"
        ))
    };
    given.into_iter().filter_map(refuse).collect()
}

/// What is to be said of a token file of other scales than the run's.
fn other_scales(flag: &str, file: &TokenFile, pyramid: &Pyramid) -> Option<String> {
    if file.pyramid() == pyramid {
        return None;
    }
    let made = format_patch_nums(&file.pyramid().sides().unwrap_or_default());
    Some(format!(
        "`{flag}`={}: was made with `pn`={made}; give `pn`={made} here, or make it again with other scales",
        file.path().display()
    ))
}

/// What is to be said of two files that are not of one tokenizer and one set of classes.
fn other_pair(train: &TokenFile, val: &TokenFile) -> Option<String> {
    let (val_path, train_path) = (val.path().display(), train.path().display());
    if let Some(text) = first_difference(train.classes(), val.classes()) {
        return Some(format!(
            "`val_tokens`={val_path}: has other classes than {train_path}: {text}; make both of one data folder"
        ));
    }
    match (val.info(), train.info()) {
        (Some(a), Some(b)) if a.tokenizer != b.tokenizer => Some(format!(
            "`val_tokens`={val_path}: has other tokens, of another tokenizer, than {train_path}; make both with the same flags of nextscale tokenize"
        )),
        _ => None,
    }
}
