//! What commands share about images: reading single ones, and names of output files.

use nextscale::data::{LoadBuffers, Resizer, Transform, decode_file};
use nextscale::{Error, Result};
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
