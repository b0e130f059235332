//! Texts in PNG files (the chunk iTXt): what a picture says of how it was made.

use crate::input::open_input;
use crate::{Error, Result};
use std::io::BufReader;
use std::path::Path;

/// Bytes of a text that is read at most.
const MOST_BYTES: usize = 1 << 24;

/// A keyword and its text.
pub type PngText = (String, String);

/// Adds texts to a picture that is to be written.
pub(super) fn add<W: std::io::Write>(
    encoder: &mut png::Encoder<'_, W>,
    texts: &[PngText],
) -> Result<(), png::EncodingError> {
    texts
        .iter()
        .try_for_each(|(keyword, text)| encoder.add_itxt_chunk(keyword.clone(), text.clone()))
}

/// The text that stands under a keyword in a PNG file before its pixels; `None` where there is none.
///
/// # Errors
/// One line naming the file when it can't be read, is no PNG file, or is damaged.
pub fn read_png_text(path: &Path, keyword: &str) -> Result<Option<String>> {
    let bad = |e: png::DecodingError| {
        Error::input(format!(
            "{}: it can't be read as a PNG file: {e}",
            path.display()
        ))
    };
    let (file, _) = open_input(path)?;
    let reader = png::Decoder::new(BufReader::new(file))
        .read_info()
        .map_err(bad)?;
    let info = reader.info();
    if let Some(chunk) = info.utf8_text.iter().find(|t| t.keyword == keyword) {
        // A compressed one could become as large as it likes.
        let mut chunk = chunk.clone();
        chunk.decompress_text_with_limit(MOST_BYTES).map_err(bad)?;
        return chunk.get_text().map(Some).map_err(bad);
    }
    let latin = info.uncompressed_latin1_text.iter();
    Ok(latin
        .filter(|t| t.keyword == keyword)
        .map(|t| t.text.clone())
        .next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pictures::Picture;

    #[test]
    fn texts_come_back_and_pixels_stay() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let picture = Picture {
            width: 3,
            height: 2,
            rgb: (0..18).collect(),
        };
        let text = "{\"name\":\"é\\n漢\"}".to_owned();
        let texts = [
            ("k".to_owned(), text.clone()),
            ("Description".to_owned(), "d".into()),
        ];
        picture.save_with(&path, &texts).unwrap();
        assert_eq!(read_png_text(&path, "k").unwrap(), Some(text));
        assert_eq!(
            read_png_text(&path, "Description").unwrap().as_deref(),
            Some("d")
        );
        assert_eq!(read_png_text(&path, "other").unwrap(), None);
        assert_eq!(
            image::open(&path).unwrap().into_rgb8().into_raw(),
            picture.rgb
        );
    }

    #[test]
    fn a_picture_without_texts_is_the_usual_file_and_texts_are_all_that_they_add() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        let rgb: Vec<u8> = (0..40 * 30 * 3).map(|i| (i * i / 7 % 256) as u8).collect();
        let mut want = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut want);
        image::ImageEncoder::write_image(encoder, &rgb, 40, 30, image::ExtendedColorType::Rgb8)
            .unwrap();
        let (width, height) = (40, 30);
        let picture = Picture { width, height, rgb };
        picture.save(&path).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), want);
        picture
            .save_with(&path, &[("k".into(), "text".into())])
            .unwrap();
        // Length, name, sum, and what is before the text.
        let added = 12 + "k".len() + 5 + "text".len();
        let got = std::fs::read(&path).unwrap();
        let header = 8 + 25;
        assert_eq!(got[..header], want[..header]);
        assert_eq!(got[header + added..], want[header..]);
    }

    #[test]
    fn a_compressed_text_is_read_up_to_its_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        for (length, fits) in [(100, true), (MOST_BYTES + 1, false)] {
            let mut chunk = png::text_metadata::ITXtChunk::new("k", "x".repeat(length));
            chunk.compressed = true;
            let encoder = png::Encoder::new(std::fs::File::create(&path).unwrap(), 1, 1);
            let mut writer = encoder.write_header().unwrap();
            writer.write_text_chunk(&chunk).unwrap();
            writer.write_image_data(&[0]).unwrap();
            writer.finish().unwrap();
            assert!(std::fs::metadata(&path).unwrap().len() < 1 << 20);
            let read = read_png_text(&path, "k");
            assert_eq!(read.is_ok_and(|t| t.unwrap().len() == length), fits);
        }
    }

    #[test]
    fn other_files_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.png");
        for bytes in [&b""[..], b"GIF89a", b"\x89PNG\r\n\x1a\n\0\0"] {
            std::fs::write(&path, bytes).unwrap();
            let text = read_png_text(&path, "k").unwrap_err().to_string();
            assert!(text.contains("a.png") && text.contains("PNG"), "{text}");
        }
        assert!(read_png_text(&dir.path().join("none"), "k").is_err());
    }
}
