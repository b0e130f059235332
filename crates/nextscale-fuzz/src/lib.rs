//! The bodies of the fuzz targets. Each takes any bytes and must neither panic, hang nor take memory without bound; errors are fine.
//! `fuzz/` hands them to libFuzzer, `tests/corpus.rs` runs them over the corpus with any compiler.

mod events;
mod flags;
mod shards;

use std::io::{Cursor, Write};
use std::path::Path;

use nextscale::checkpoint::inspect::describe;
use nextscale::checkpoint::{ModelKind, WeightsKind, load_part, load_weights};
use nextscale::data::tokens::TokenFile;
use nextscale::data::{RgbImage8, alpha_of, decode_within};
use nextscale::pictures::read_png_text;
use nextscale::score::network::open_inception;
use torch_pth::{PthFile, TensorRef, Value, pickle as pickles};
use zip::CompressionMethod;
use zip::write::{SimpleFileOptions, ZipWriter};

pub use events::events;
pub use flags::flags;
pub use shards::{index, parquet, tar};

/// A target's name and body.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: [Target; 13] = [
    ("pickle", pickle),
    ("zip", zip),
    ("pth", pth),
    ("safetensors", safetensors),
    ("tokens", tokens),
    ("image", image),
    ("events", events),
    ("flags", flags),
    ("tar", tar),
    ("parquet", parquet),
    ("index", index),
    ("png_text", png_text),
    ("network", network),
];

/// A pickle alone. What is read can be written, and comes back as the same bytes.
pub fn pickle(data: &[u8]) {
    let Ok(value) = pickles::from_bytes(data) else {
        return;
    };
    let Ok(bytes) = pickles::to_bytes(&value) else {
        return;
    };
    // What a file shares is written out, so that the copy may be too large to be read.
    if let Ok(again) = pickles::from_bytes(&bytes) {
        assert_eq!(pickles::to_bytes(&again).as_ref(), Ok(&bytes));
    }
}

/// A file that may hold the network of a score: weights of either format, a TorchScript program, a graph of TensorFlow.
pub fn network(data: &[u8]) {
    with_file(data, |path| {
        let _ = open_inception(path);
    });
}

/// A PNG file that may say how it was drawn.
pub fn png_text(data: &[u8]) {
    with_file(data, |path| {
        let _ = read_png_text(path, "nextscale");
    });
}

/// The bytes of a `.pth` file.
pub fn zip(data: &[u8]) {
    read_pth(data);
}

/// An archive without the checksums that a fuzzer does not get past: one byte for the byte order and whether it is a TorchScript program, two for the length of the pickle, the pickle, and the
/// data of two storages.
pub fn pth(data: &[u8]) {
    let [order, low, high, rest @ ..] = data else {
        return;
    };
    let length = usize::from(u16::from_le_bytes([*low, *high]));
    let (pickle, storages) = rest.split_at(length.min(rest.len()));
    let (first, second) = storages.split_at(storages.len() / 2);
    let script = order & 2 != 0;
    let order: &[u8] = if order & 1 == 0 { b"little" } else { b"big" };
    let mut members = vec![
        ("a/data.pkl", pickle),
        ("a/byteorder", order),
        ("a/data/0", first),
        ("a/data/1", second),
    ];
    if script {
        members.push(("a/constants.pkl", b""));
    }
    let archive = archive(&members);
    read_pth(&archive);
    with_file(&archive, read_weights);
}

/// A safetensors file as weights or a training checkpoint; see `tensors_file` for the form of the bytes.
pub fn safetensors(data: &[u8]) {
    with_file(&tensors_file(data), read_weights);
}

/// A token file, in the form of `tensors_file`.
pub fn tokens(data: &[u8]) {
    with_file(&tensors_file(data), |path| {
        let Ok(mut file) = TokenFile::open(path) else {
            return;
        };
        let mut row = Vec::new();
        for image in 0..file.len().min(3) {
            file.label(image);
            for crop in 0..file.crops().min(3) {
                row.clear();
                if file.read(image, crop, 64, &mut row).is_ok() {
                    assert_eq!(row.len(), file.pyramid().total());
                    assert!(row.iter().all(|token| (0..64).contains(token)));
                }
            }
        }
        let _ = file.codes();
        assert!(file.read(file.len(), 0, 64, &mut row).is_err());
    });
}

/// A picture of any format, with room for 4 MiB, and the alpha channel of those that have one.
pub fn image(data: &[u8]) {
    let mut image = RgbImage8::default();
    match decode_within(4 << 20, data, &"picture", &mut image) {
        Ok(()) => {
            let (width, height) = (image.width(), image.height());
            assert!(width > 0 && height > 0);
            assert_eq!(image.data().len(), 3 * width * height);
            with_file(data, |path| {
                let _ = alpha_of(path);
            });
        }
        Err(error) => {
            assert_eq!(error.exit_code(), 2);
            // What is said of a panic that was caught. None is known, and one is worth knowing.
            assert!(
                !error.to_string().contains("the decoder gave up"),
                "{error}"
            );
        }
    }
}

/// Reads an archive from memory, with all its tensors.
fn read_pth(bytes: &[u8]) {
    let script = PthFile::is_script(Cursor::new(bytes));
    let opened = match script {
        true => PthFile::new_script(Cursor::new(bytes), "archive"),
        false => PthFile::new(Cursor::new(bytes), "archive"),
    };
    let Ok((mut file, value)) = opened else {
        return;
    };
    let mut tensors = Vec::new();
    collect(&value, &mut tensors);
    for tensor in tensors {
        if let Ok(read) = file.tensor(tensor) {
            assert_eq!(read.data().len(), tensor.numel() * read.dtype().size());
        }
    }
}

fn collect<'a>(value: &'a Value, out: &mut Vec<&'a TensorRef>) {
    match value {
        Value::Tensor(tensor) => out.push(tensor),
        Value::List(list) | Value::Tuple(list) | Value::Set(list) => {
            list.iter().for_each(|value| collect(value, out));
        }
        Value::Dict(dict) => dict.items.iter().for_each(|(_, value)| collect(value, out)),
        _ => {}
    }
}

/// Everything that reads weights.
fn read_weights(path: &Path) {
    if let Ok(description) = describe(path) {
        assert!(!description.to_string().is_empty());
    }
    let _ = load_weights(path);
    for part in [ModelKind::Var, ModelKind::Vae] {
        for kind in [WeightsKind::Averaged, WeightsKind::Trained] {
            let _ = load_part(path, part, Some(kind));
        }
    }
}

/// The bytes of a safetensors file. Up to the first byte 0xff, which no text holds, they are the header, whose length is put before
/// it; the rest is data. Where 0xff is the very first byte, the rest is the file as it stands.
fn tensors_file(data: &[u8]) -> Vec<u8> {
    match data.iter().position(|byte| *byte == 0xff) {
        Some(0) => data[1..].to_vec(),
        at => {
            let (header, rest) = data.split_at(at.unwrap_or(data.len()));
            let length = header.len() as u64;
            [
                &length.to_le_bytes(),
                header,
                rest.get(1..).unwrap_or_default(),
            ]
            .concat()
        }
    }
}

fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in members {
        zip.start_file(*name, options).expect("a name of its own");
        zip.write_all(bytes).expect("memory takes all");
    }
    zip.finish().expect("memory takes all").into_inner()
}

/// Hands `use_it` a file that holds `bytes`.
fn with_file(bytes: &[u8], use_it: impl FnOnce(&Path)) {
    let mut file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    file.write_all(bytes).expect("room for a small file");
    use_it(file.path());
}
