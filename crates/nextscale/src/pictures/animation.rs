//! Pictures that move: GIF files.

use super::Picture;
use crate::format::write_atomic;
use crate::{Error, Result};
use gif::{Encoder, Frame, Repeat};
use std::io;
use std::path::Path;

/// How colours of a frame are brought to 256: from 1, the best, to 30, the fastest.
const SPEED: i32 = 1;
/// How much longer than others the last frame stands.
const HOLD: u16 = 4;

/// Writes frames of one size as a GIF file that repeats for ever, whole or not at all. Each stands for `hundredths` of a second, the last
/// one four times as long. A frame has up to 256 colours of its own.
///
/// # Errors
/// When there is no frame, frames differ in size, a side is longer than 65,535 pixels, or the file can't be written.
pub fn save_gif(path: &Path, frames: &[Picture], hundredths: u16) -> Result<()> {
    let Some(first) = frames.first() else {
        return Err(Error::failed(format!("{}: no frames", path.display())));
    };
    if frames
        .iter()
        .any(|f| (f.width, f.height) != (first.width, first.height))
    {
        return Err(Error::failed(format!(
            "{}: frames of several sizes",
            path.display()
        )));
    }
    let extent = |pixels: usize| {
        u16::try_from(pixels).map_err(|_| {
            Error::input(format!(
                "{}: {pixels} pixels along a side; GIF has at most {}",
                path.display(),
                u16::MAX
            ))
        })
    };
    let (width, height) = (extent(first.width)?, extent(first.height)?);
    write_atomic(path, |w| {
        let mut encoder = Encoder::new(w, width, height, &[]).map_err(io::Error::other)?;
        encoder
            .set_repeat(Repeat::Infinite)
            .map_err(io::Error::other)?;
        for (i, picture) in frames.iter().enumerate() {
            let mut frame = Frame::from_rgb_speed(width, height, &picture.rgb, SPEED);
            frame.delay = match i + 1 == frames.len() {
                true => hundredths.saturating_mul(HOLD),
                false => hundredths,
            };
            encoder.write_frame(&frame).map_err(io::Error::other)?;
        }
        // The end is written here, where a failure shows, and not as the encoder is dropped.
        encoder.into_inner().map_err(io::Error::other)?;
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_with_their_times() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gif");
        let frames: Vec<Picture> = (0..3u8)
            .map(|i| Picture {
                width: 5,
                height: 2,
                rgb: (0..30u8).map(|p| p * 7 + i).collect(),
            })
            .collect();
        save_gif(&path, &frames, 20).unwrap();
        let mut options = gif::DecodeOptions::new();
        options.set_color_output(gif::ColorOutput::RGBA);
        let mut decoder = options
            .read_info(std::fs::File::open(&path).unwrap())
            .unwrap();
        assert_eq!(decoder.repeat(), Repeat::Infinite);
        let mut delays = Vec::new();
        for picture in &frames {
            let frame = decoder.read_next_frame().unwrap().unwrap();
            delays.push(frame.delay);
            // Few colours stay what they are.
            let rgb: Vec<u8> = frame
                .buffer
                .chunks(4)
                .flat_map(|p| p[..3].to_vec())
                .collect();
            assert_eq!(rgb, picture.rgb);
        }
        assert_eq!(delays, [20, 20, 80]);
        assert!(decoder.read_next_frame().unwrap().is_none());
        assert!(std::fs::read(&path).unwrap().ends_with(b";"));
    }

    #[test]
    fn frames_that_do_not_fit_are_refused_and_leave_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.gif");
        let of = |width| Picture::filled(width, 1, [0; 3]);
        assert!(save_gif(&path, &[], 1).is_err());
        assert!(save_gif(&path, &[of(1), of(2)], 1).is_err());
        let text = save_gif(&path, &[of(65_536)], 1).unwrap_err().to_string();
        assert!(text.contains("65536 pixels"), "{text}");
        assert!(!path.exists());
    }
}
