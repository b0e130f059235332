//! Pictures as masks.

use nextscale::data::{
    Aspect, LoadBuffers, MAX_PIXELS, Resizer, RgbImage8, Transform, alpha_of, decode_file,
};
use nextscale::{Error, Result, tell};
use std::path::Path;

/// The mask in `path` at `side` × `side`: 1 where the image is drawn anew. `outside` turns it round.
/// One that is no square becomes one as the image does: what `aspect` sets around it is not selected.
pub fn read(path: &Path, side: usize, outside: bool, aspect: Aspect) -> Result<Vec<f32>> {
    let mut buffers = LoadBuffers::default();
    decode_file(path, &mut buffers)?;
    let mut image = selection(path, std::mem::take(&mut buffers.image))?;
    if aspect == Aspect::Pad {
        image = in_black_square(path, &image)?;
    }
    let transform = Transform::new(side, 1.0, false)?;
    let mut pixels = vec![0; transform.bytes()];
    transform.center(&image, &mut Resizer::default(), &mut pixels)?;
    let values = pixels
        .chunks_exact(3)
        .map(|p| {
            let sum: u16 = p.iter().map(|&v| u16::from(v)).sum();
            let share = f32::from(sum) / 765.0;
            if outside { 1.0 - share } else { share }
        })
        .collect();
    Ok(values)
}

/// The picture that says what is selected, brought to black and white.
fn selection(path: &Path, image: RgbImage8) -> Result<RgbImage8> {
    let data = image.data();
    let one_color = data.chunks_exact(3).all(|p| p == &data[..3]);
    if one_color && let Some(alpha) = alpha_of(path)? {
        let alpha_data = alpha.data();
        if alpha_data.iter().any(|v| *v != alpha_data[0]) {
            tell!(
                "--mask={}: it has one colour all over, so its alpha channel is the mask: what is opaque is selected",
                path.display()
            );
            return Ok(alpha);
        }
    }
    if data.iter().all(|v| *v <= 1) {
        let (width, height) = (image.width(), image.height());
        let full = data.iter().map(|v| v * 255).collect();
        return RgbImage8::new(width, height, full);
    }
    Ok(image)
}

/// The picture in the middle of a black square.
fn in_black_square(path: &Path, image: &RgbImage8) -> Result<RgbImage8> {
    let (width, height) = (image.width(), image.height());
    let side = width.max(height);
    let pixels = side.checked_mul(side);
    if pixels.is_none_or(|n| n as u64 > MAX_PIXELS) {
        return Err(Error::input(format!(
            "--mask={}: a square around its {width}x{height} pixels is too large; cut it",
            path.display()
        )));
    }
    image.in_square([0; 3])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// Saves a picture of 4 × 4 whose right half differs, and reads it as a mask.
    fn mask_of(name: &str, left: [u8; 4], right: [u8; 4], outside: bool) -> Result<Vec<f32>> {
        let dir = tempfile::tempdir().unwrap();
        let path: PathBuf = dir.path().join(name);
        let file = std::fs::File::create(&path).unwrap();
        let mut encoder = png::Encoder::new(file, 4, 4);
        encoder.set_color(png::ColorType::Rgba);
        let row: Vec<u8> = [left, left, right, right].concat();
        let mut writer = encoder.write_header().unwrap();
        writer.write_image_data(&row.repeat(4)).unwrap();
        writer.finish().unwrap();
        read(&path, 4, outside, Aspect::Crop)
    }

    #[test]
    fn what_is_set_around_a_mask_is_not_selected() {
        let white = RgbImage8::new(4, 2, vec![255; 24]).unwrap();
        let square = in_black_square(Path::new("m.png"), &white).unwrap();
        assert_eq!((square.width(), square.height()), (4, 4));
        let rows: Vec<u8> = (0..4).map(|y| square.row(y)[5]).collect();
        assert_eq!(rows, [0, 255, 255, 0]);
    }

    #[test]
    fn alpha_zeros_and_ones_and_empty_masks() {
        let half: Vec<f32> = [0.0, 0.0, 1.0, 1.0].repeat(4);
        let other: Vec<f32> = half.iter().map(|v| 1.0 - v).collect();
        let opaque = |v: u8| [v, v, v, 255];
        assert_eq!(
            mask_of("m.png", opaque(0), opaque(255), false).unwrap(),
            half
        );
        assert_eq!(mask_of("m.png", opaque(0), opaque(1), false).unwrap(), half);
        assert_eq!(mask_of("m.png", opaque(1), opaque(0), true).unwrap(), half);
        assert_eq!(mask_of("m.png", [0; 4], opaque(0), false).unwrap(), half);
        let white = [255, 255, 255, 0];
        assert_eq!(mask_of("m.png", white, opaque(255), true).unwrap(), other);
        // Where colours tell, alpha does not count.
        assert_eq!(mask_of("m.png", [0; 4], white, false).unwrap(), half);
        assert_eq!(
            mask_of("m.png", opaque(255), opaque(255), false).unwrap(),
            [1.0; 16]
        );
    }
}
