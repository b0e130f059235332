//! `nextscale tokenize`: the tokens of a folder of images.

use super::images::may_write;
use super::machine::Machine;
use nextscale::checkpoint::safetensors::{TextMetadata, write_safetensors};
use nextscale::checkpoint::weights::{PATCH_NUMS_KEY, format_patch_nums};
use nextscale::checkpoint::{HostTensor, StateDict};
use nextscale::data::{Feed, LoaderConfig};
use nextscale::memory::{Pass, advise};
use nextscale::model::Pyramid;
use nextscale::model::open::open_tokenizer;
use nextscale::train::device::Arithmetic;
use nextscale::train::flags::parse_pn;
use nextscale::train::session::Dataset;
use nextscale::{Error, Result};
use nextscale_tensor::{Device, Tensor, ops};
use std::path::PathBuf;
use std::sync::Arc;

/// Flags of `tokenize`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// The tokenizer, or a training checkpoint that holds it
    #[arg(long, value_name = "FILE")]
    tokenizer: PathBuf,
    /// Folder with train/CLASS/* and val/CLASS/*, or builtin:shapes
    #[arg(long, value_name = "DIR")]
    data_path: String,
    /// Which images
    #[arg(long, value_enum, default_value_t = Split::Train)]
    split: Split,
    /// Side lengths of the token maps; without it those the tokenizer was trained with
    #[arg(long, value_name = "LIST")]
    pn: Option<String>,
    /// Images are resized to this many times their final side before the centre crop
    #[arg(long, value_name = "X", default_value_t = 1.125)]
    mid_reso: f64,
    /// The file to write (safetensors): tokens of N images, N x L int32 (all scales, coarse to fine), and N labels, int32
    #[arg(long, value_name = "FILE", default_value = "tokens.safetensors")]
    out: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    force: bool,
    /// Images at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    #[command(flatten)]
    machine: Machine,
}

/// One of the two halves of a data folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Split {
    /// train/
    Train,
    /// val/
    Val,
}

pub fn run(args: &Args) -> Result<()> {
    may_write(&args.out, args.force)?;
    if args.batch == 0 {
        return Err(Error::input("--batch=0: expected at least 1"));
    }
    let (device, math) = args.machine.start(Arithmetic::Tf32)?;
    let asked = match &args.pn {
        Some(pn) => Some(Pyramid::square(&parse_pn(pn)?)?),
        None => None,
    };
    let mut tok = open_tokenizer(&args.tokenizer, asked.as_ref(), false)?;
    tok.vqvae.to_device(device, math)?;
    let pyramid = tok.vqvae.config.pyramid.clone();
    let side = pyramid.finest().0 * tok.vqvae.config.downsample();
    let mut data = Dataset::open(&args.data_path, side, args.mid_reso, false)?;
    if args.split == Split::Train {
        data.val = Arc::clone(&data.train);
    }
    let (mut tokens, mut labels) = (Vec::new(), Vec::new());
    let mut loader = data.val_loader(args.batch, LoaderConfig::default())?;
    let mut feed = Feed::new(device)?;
    while let Some(batch) = loader.next_batch()? {
        let mut maps = || -> Result<Tensor> {
            let (x, _) = feed.batch(&batch, side)?;
            let maps = tok.vqvae.tokenize(&x, &pyramid)?;
            Ok(ops::concat_tokens(&maps.iter().collect::<Vec<_>>())?.to(Device::Cpu)?)
        };
        let all = maps().map_err(|e| {
            let pass = Pass::Tokenize {
                vqvae: &tok.vqvae.config,
                math,
                back: false,
            };
            advise(e, device, "batch", args.batch, pass)
        })?;
        tokens.extend(all.i32()?.iter().flat_map(|t| t.to_le_bytes()));
        labels.extend(batch.labels.iter().flat_map(|&l| (l as i32).to_le_bytes()));
    }
    let n = labels.len() / 4;
    let i32s = |shape: Vec<usize>, data: Vec<u8>| {
        HostTensor::new(nextscale::checkpoint::HostDType::I32, shape, data)
    };
    let mut dict = StateDict::new();
    dict.insert("tokens", i32s(vec![n, pyramid.total()], tokens)?);
    dict.insert("labels", i32s(vec![n], labels)?);
    let sides = pyramid.sides().unwrap_or_default();
    let metadata: TextMetadata = [
        (PATCH_NUMS_KEY.to_owned(), format_patch_nums(&sides)),
        (
            "nextscale.classes".to_owned(),
            data.val.class_names().join("\n"),
        ),
    ]
    .into();
    write_safetensors(&args.out, &dict, &metadata)?;
    println!(
        "{n} images of {} tokens in {}",
        pyramid.total(),
        args.out.display()
    );
    Ok(())
}
