//! What commands share about images: reading single ones, and names of output files.

use nextscale::data::{BadImage, LoadBuffers, Resizer, Transform, decode_file};
use nextscale::pictures::PictureFormat;
use nextscale::{Error, Result, tell};
use nextscale_tensor::{Tensor, ops};
use std::path::Path;

/// An image file, resized and centre-cropped to `side`: \[1, side, side, 3\] in \[−1, 1\], with its pixels.
pub fn load(path: &Path, side: usize, mid_reso: f64) -> Result<(Tensor, Vec<u8>)> {
    let mut buffers = LoadBuffers::default();
    decode_file(path, &mut buffers)?;
    let transform = Transform::new(side, mid_reso, false)?;
    let mut pixels = vec![0; transform.bytes()];
    transform.center(&buffers.image, &mut Resizer::default(), &mut pixels)?;
    Ok((ops::from_pixels([1, side, side, 3], &pixels)?, pixels))
}

/// Bad images that are named; the others are counted.
const NAMED: usize = 5;

/// Says which images were left out.
pub fn tell_bad(bad: &[BadImage]) {
    for image in bad.iter().take(NAMED) {
        tell!("left out: {}", image.reason);
    }
    if !bad.is_empty() {
        let all = if bad.len() == 1 { "image" } else { "images" };
        tell!("{} {all} left out that can't be read", bad.len());
    }
}

/// Says what there is to say of a data folder.
pub fn tell_all(lines: &[String]) {
    for line in lines {
        tell!("{line}");
    }
}

/// The files of a model, for messages: its own, and its tokenizer's where that is another.
pub fn pair(model: &Path, tokenizer: Option<&Path>) -> String {
    match tokenizer {
        Some(tokenizer) => format!("{} or {}", model.display(), tokenizer.display()),
        None => model.display().to_string(),
    }
}

/// Refuses names that are no picture's.
pub fn check_picture(path: &Path) -> Result<()> {
    match PictureFormat::of(path) {
        Some(_) => Ok(()),
        None => Err(Error::input(format!(
            "--out={}: pictures are written as .png, .jpg or .webp; give such a name",
            path.display()
        ))),
    }
}

/// Refuses to overwrite a file unless asked to.
pub fn may_write(path: &Path, force: bool) -> Result<()> {
    // What can't be looked at is not taken for missing.
    if !force && path.try_exists().map_err(Error::io(path))? {
        return Err(Error::input(format!(
            "{}: exists already; choose another name or add --force",
            path.display()
        )));
    }
    Ok(())
}

/// Checks that `flag` is in `range`.
pub fn in_range(flag: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<()> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(Error::input(format!(
            "--{flag}={value}: expected a number from {} to {}",
            range.start(),
            range.end()
        )))
    }
}
