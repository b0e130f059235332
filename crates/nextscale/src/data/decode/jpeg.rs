//! JPEG: baseline and progressive, gray, YCbCr, RGB, CMYK and YCCK.

use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::check_size;
use crate::data::RgbImage8;

/// Decodes into `image`; the text of an error says what is wrong with the file.
pub(super) fn decode(bytes: &[u8], image: &mut RgbImage8) -> Result<(), String> {
    let options = DecoderOptions::default()
        .jpeg_set_out_colorspace(ColorSpace::RGB)
        .set_max_width(usize::from(u16::MAX))
        .set_max_height(usize::from(u16::MAX))
        .set_strict_mode(false);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    // Headers are read leniently, as cameras and editors write all sorts of things there.
    decoder.decode_headers().map_err(|e| e.to_string())?;
    let info = decoder.info().ok_or("it has no header")?;
    check_size(u64::from(info.width), u64::from(info.height))?;
    if let Some(ColorSpace::MultiBand(n)) = decoder.input_colorspace() {
        return Err(format!("it has {n} colour components"));
    }
    if !has_end_marker(bytes) {
        return Err("the file is truncated (no JPEG end marker)".to_owned());
    }
    // Pixel data is read strictly: otherwise damaged files would come out as gray areas without a word.
    decoder.set_options(options.set_strict_mode(true));
    let pixels = image.reset(usize::from(info.width), usize::from(info.height));
    decoder.decode_into(pixels).map_err(|e| e.to_string())
}

/// Whether an end-of-image marker stands after the beginning of the first scan.
///
/// Application segments in front of it may hold whole thumbnails with markers of their own, so these are
/// stepped over.
fn has_end_marker(bytes: &[u8]) -> bool {
    let scan = first_scan(bytes).unwrap_or(2);
    let tail = bytes.get(scan..).unwrap_or(&[]);
    // Almost every file ends with the marker: look from the end.
    tail.windows(2).rev().any(|pair| pair == [0xff, 0xd9])
}

/// The position of the first start-of-scan marker.
fn first_scan(bytes: &[u8]) -> Option<usize> {
    let mut at = 2;
    loop {
        let (&ff, &code) = (bytes.get(at)?, bytes.get(at + 1)?);
        if ff != 0xff || code == 0xff || code == 0x00 {
            at += 1; // fill bytes and rubbish between segments
            continue;
        }
        match code {
            0xda => return Some(at),
            0x01 | 0xd0..=0xd8 => at += 2, // markers without a segment
            _ => {
                let length = u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]);
                at += 2 + usize::from(length.max(2));
            }
        }
    }
}
