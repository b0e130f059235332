//! Makes an image folder of Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): ten classes of clothes, 28x28 grays in 32x32 PNG files with two
//! black pixels around, OUT/train/CLASS/NNNNN.png and OUT/val/CLASS/NNNNN.png. A number is the image's place in its file.
//!
//! `cargo run --release -p nextscale --example fashion_mnist -- FOLDER_OF_IDX_FILES OUT_FOLDER`
//!
//! The four files (`train-images-idx3-ubyte.gz` and so on) are those of <https://github.com/zalandoresearch/fashion-mnist> and of Debian's
//! package dataset-fashion-mnist, `.gz` or unpacked. The folder appears under its name when it is whole.

use flate2::read::MultiGzDecoder;
use image::GrayImage;
use rayon::prelude::*;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Names of the classes, in the order of their labels.
const CLASSES: [&str; 10] = [
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle-boot",
];
/// Side of the images in the files, and black pixels around them.
const SIDE: usize = 28;
const AROUND: usize = 2;
/// Images in a file at most: 60,000 are in the largest.
const MOST: usize = 1_000_000;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [source, out] = args.as_slice() else {
        eprintln!("usage: fashion_mnist FOLDER_OF_IDX_FILES OUT_FOLDER");
        return ExitCode::from(2);
    };
    match prepare(Path::new(source), Path::new(out)) {
        Ok([train, val]) => {
            println!("{train} training and {val} validation images of 10 classes in {out}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("fashion_mnist: {e}");
            ExitCode::from(2)
        }
    }
}

fn prepare(source: &Path, out: &Path) -> Result<[usize; 2], String> {
    if out.exists() {
        return Err(format!(
            "{}: exists already; give another folder",
            out.display()
        ));
    }
    let part = with_ending(out, ".part");
    if part.exists() {
        fs::remove_dir_all(&part).map_err(of(&part))?;
    }
    let mut counts = [0; 2];
    for (count, (half, file)) in counts.iter_mut().zip([("train", "train"), ("val", "t10k")]) {
        let images = Idx::read(source, &format!("{file}-images-idx3-ubyte"), 3)?;
        let labels = Idx::read(source, &format!("{file}-labels-idx1-ubyte"), 1)?;
        *count = write(&images, &labels, &part.join(half))?;
    }
    fs::rename(&part, out).map_err(of(out))?;
    Ok(counts)
}

fn write(images: &Idx, labels: &Idx, out: &Path) -> Result<usize, String> {
    if images.sizes[1..] != [SIDE, SIDE] || images.sizes[0] != labels.sizes[0] {
        return Err(format!(
            "{}: holds images of {:?} for {} labels; {SIDE}x{SIDE} and as many are expected",
            images.path.display(),
            images.sizes,
            labels.sizes[0]
        ));
    }
    let bad = labels
        .values
        .iter()
        .find(|&&l| usize::from(l) >= CLASSES.len());
    if let Some(bad) = bad {
        return Err(format!(
            "{}: holds label {bad}; 0 to 9 are expected",
            labels.path.display()
        ));
    }
    for class in CLASSES {
        let folder = out.join(class);
        fs::create_dir_all(&folder).map_err(of(&folder))?;
    }
    let pixels = images.values.par_chunks_exact(SIDE * SIDE);
    pixels
        .zip(&labels.values)
        .enumerate()
        .try_for_each(|(i, (pixels, &label))| {
            let class = CLASSES[usize::from(label)];
            let path = out.join(class).join(format!("{i:05}.png"));
            framed(pixels)
                .save(&path)
                .map_err(|e| format!("{}: {e}", path.display()))
        })?;
    Ok(labels.values.len())
}

/// An image in its black frame.
fn framed(pixels: &[u8]) -> GrayImage {
    let side = (SIDE + 2 * AROUND) as u32;
    let mut framed = GrayImage::new(side, side);
    for (y, row) in pixels.chunks_exact(SIDE).enumerate() {
        for (x, &value) in row.iter().enumerate() {
            framed.put_pixel((x + AROUND) as u32, (y + AROUND) as u32, [value].into());
        }
    }
    framed
}

/// A file of bytes in as many dimensions as it says.
struct Idx {
    path: PathBuf,
    sizes: Vec<usize>,
    values: Vec<u8>,
}

impl Idx {
    /// Reads `folder/name` or `folder/name.gz`: two zeros, the type (8: bytes), the number of dimensions, their sizes as 32 bits,
    /// highest byte first, and the values.
    fn read(folder: &Path, name: &str, dimensions: usize) -> Result<Self, String> {
        let plain = folder.join(name);
        let packed = with_ending(&plain, ".gz");
        let path = if packed.exists() { packed } else { plain };
        let file = fs::File::open(&path).map_err(of(&path))?;
        let mut reader: Box<dyn Read> = match path.extension().is_some_and(|e| e == "gz") {
            true => Box::new(MultiGzDecoder::new(file)),
            false => Box::new(file),
        };
        let mut word = || -> Result<[u8; 4], String> {
            let mut word = [0; 4];
            reader.read_exact(&mut word).map_err(of(&path))?;
            Ok(word)
        };
        let kind = word()?;
        if kind[..3] != [0, 0, 8] || usize::from(kind[3]) != dimensions {
            return Err(format!(
                "{}: is no IDX file of bytes in {dimensions} dimensions",
                path.display()
            ));
        }
        let mut sizes = Vec::new();
        for _ in 0..dimensions {
            sizes.push(u32::from_be_bytes(word()?) as usize);
        }
        if sizes[0] > MOST || sizes[1..].iter().any(|&size| size > SIDE) {
            return Err(format!(
                "{}: says that it holds {sizes:?} values, which is more than Fashion-MNIST's",
                path.display()
            ));
        }
        let count: usize = sizes.iter().product();
        let mut values = Vec::new();
        let read = reader.take(count as u64 + 1).read_to_end(&mut values);
        read.map_err(of(&path))?;
        if values.len() != count {
            let more = if values.len() > count {
                "more than"
            } else {
                "not as many as"
            };
            return Err(format!(
                "{}: holds {more} the {count} values that it says",
                path.display()
            ));
        }
        Ok(Self {
            path,
            sizes,
            values,
        })
    }
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// An error of a file.
fn of(path: &Path) -> impl Fn(std::io::Error) -> String + '_ {
    move |e| format!("{}: {e}", path.display())
}
