//! What a transformer's run is given: data and tokenizer, from flags and files, checked against each other.

use super::Dataset;
use super::source::{Data, TokenData};
use crate::checkpoint::StateDict;
use crate::checkpoint::weights::format_patch_nums;
use crate::data::tokens::TokenFile;
use crate::model::Pyramid;
use crate::model::open::open_tokenizer;
use crate::model::state::{fingerprint, vqvae_state};
use crate::model::vqvae::codes::Tokenizer;
use crate::train::options::TrainOptions;
use crate::train::plan::Plan;
use crate::{Error, Result};
use std::path::Path;

/// Data and tokenizer of a run.
pub(super) struct Given {
    pub(super) data: Data,
    pub(super) tokenizer: Tokenizer,
    /// The tokenizer for the run's checkpoints; empty where only its codebook is at hand.
    pub(super) vae_state: StateDict,
}

/// Opens what the flags name.
///
/// # Errors
/// One line naming the flag or the file.
pub(super) fn open(o: &TrainOptions, plan: &Plan, pyramid: &Pyramid) -> Result<Given> {
    let data = open_data(o, plan, pyramid)?;
    let Some(path) = &o.tokenizer else {
        return without_tokenizer(o, data);
    };
    let tok = open_tokenizer(path, Some(pyramid), false)?;
    if let Data::Tokens(t) = &data
        && let Some(info) = t.train.info()
    {
        let found = fingerprint(&tok.vqvae.params)?;
        if found != info.tokenizer {
            return Err(Error::input(format!(
                "--tokenizer={}: {} was made with another tokenizer (weights {}, not {found}); give that one, or leave the flag out",
                path.display(),
                t.train.path().display(),
                info.tokenizer
            )));
        }
    }
    let given = Given {
        data,
        vae_state: vqvae_state(&tok.vqvae, &tok.hits)?,
        tokenizer: tok.vqvae.into(),
    };
    check_patch(o, &given.tokenizer, path)?;
    Ok(given)
}

/// A token file brings the codebook.
fn without_tokenizer(o: &TrainOptions, data: Data) -> Result<Given> {
    let Data::Tokens(mut t) = data else {
        return Err(Error::input(
            "--tokenizer is missing: give the tokenizer's file (train one with: nextscale train-tokenizer)",
        ));
    };
    let path = t.train.path().to_path_buf();
    let Some(codes) = t.train.codes()? else {
        return Err(Error::input(format!(
            "{}: holds no codebook; give its tokenizer with --tokenizer=FILE",
            path.display()
        )));
    };
    let tokenizer = codes.into();
    check_patch(o, &tokenizer, &path)?;
    Ok(Given {
        data: Data::Tokens(t),
        tokenizer,
        vae_state: StateDict::new(),
    })
}

fn check_patch(o: &TrainOptions, tokenizer: &Tokenizer, path: &Path) -> Result<()> {
    let patch_size = tokenizer.config().downsample();
    if patch_size == o.patch_size {
        return Ok(());
    }
    Err(Error::input(format!(
        "--patch_size={}: a token of {} stands for {patch_size}x{patch_size} pixels; use --patch_size={patch_size}",
        o.patch_size,
        path.display()
    )))
}

fn open_data(o: &TrainOptions, plan: &Plan, pyramid: &Pyramid) -> Result<Data> {
    match (&o.data_path, &o.tokens) {
        (Some(_), Some(_)) => Err(Error::input(
            "--tokens and --data_path: both are given; leave one out",
        )),
        (None, None) => Err(Error::input(
            "--data_path is missing: give a folder with train/CLASS/* and val/CLASS/*, or builtin:shapes; or --tokens=FILE",
        )),
        (Some(_), None) if o.val_tokens.is_some() => Err(Error::input(
            "--val_tokens goes with --tokens; --data_path brings its own validation images",
        )),
        (Some(path), None) => Ok(Data::Images(Dataset::open(
            path,
            plan.image_size,
            o.mid_reso,
            o.hflip,
        )?)),
        (None, Some(path)) => {
            let train = open_tokens("tokens", path, pyramid)?;
            if o.hflip && !train.info().is_some_and(|i| i.hflip) {
                return Err(Error::input(format!(
                    "--hflip=1: {} holds no mirrored crops; make it again with nextscale tokenize --crops=N --hflip=1, or leave the flag out",
                    path.display()
                )));
            }
            let val = match &o.val_tokens {
                Some(path) => Some(open_tokens("val_tokens", path, pyramid)?),
                None => None,
            };
            if let Some(val) = &val {
                check_pair(&train, val)?;
            }
            Ok(Data::Tokens(Box::new(TokenData { train, val })))
        }
    }
}

/// A token file of the run's scales.
fn open_tokens(flag: &str, path: &Path, pyramid: &Pyramid) -> Result<TokenFile> {
    let file = TokenFile::open(path)?;
    if file.pyramid() == pyramid {
        return Ok(file);
    }
    let made = format_patch_nums(&file.pyramid().sides().unwrap_or_default());
    Err(Error::input(format!(
        "--{flag}={}: was made with --pn={made}; give --pn={made} here, or make it again with other scales",
        path.display()
    )))
}

/// Two files of one tokenizer and one set of classes.
fn check_pair(train: &TokenFile, val: &TokenFile) -> Result<()> {
    let differ = |what: &str| {
        Err(Error::input(format!(
            "--val_tokens={}: has other {what} than {}; make both with the same flags of nextscale tokenize",
            val.path().display(),
            train.path().display()
        )))
    };
    if val.classes() != train.classes() {
        return differ("classes");
    }
    match (val.info(), train.info()) {
        (Some(a), Some(b)) if a.tokenizer != b.tokenizer => differ("tokens, of another tokenizer,"),
        _ => Ok(()),
    }
}
