//! Pictures as masks.

use nextscale::data::{LoadBuffers, Resizer, RgbImage8, Transform, alpha_of, decode_file};
use nextscale::{Result, tell};
use std::path::Path;

/// The mask in `path` at `side` × `side`: 1 where the image is drawn anew. `outside` turns it round.
pub fn read(path: &Path, side: usize, outside: bool) -> Result<Vec<f32>> {
    let mut buffers = LoadBuffers::default();
    decode_file(path, &mut buffers)?;
    let image = selection(path, std::mem::take(&mut buffers.image))?;
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
        read(&path, 4, outside)
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
