//! JPEG files to 8-bit RGB pixels, bit for bit as libjpeg-turbo decodes them and Pillow shows them.
//!
//! libjpeg-turbo's C code (as mozjpeg carries it; built by the C compiler alone) reads the file and makes the
//! samples of each colour component: baseline, extended and progressive, Huffman and arithmetic coding, one scan or
//! many. Its last stages (chroma up to full size, colours to RGB) are slow without their assembly; for the usual
//! samplings they are done here instead, vectorised and with the same integers.
//!
//! Damaged data is an error. libjpeg itself goes on with gray or with rubbish, and merely counts warnings.
//!
//! The module `libjpeg` is a room with `unsafe`: everything that calls C.

mod color;
mod libjpeg;
mod rows;
mod upsample;

pub use libjpeg::MAX_SCANS;
use libjpeg::{Model, Session};
use rows::Rows;
use upsample::Expansion;

/// How the stored components are to be understood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Colors {
    /// As the file's markers and component numbers tell, by libjpeg's rules: JFIF before Adobe's marker, then the
    /// components' numbers.
    #[default]
    Marked,
    /// Three components are Y, Cb and Cr, four are Y, Cb, Cr and K; markers are not regarded. (For containers that
    /// say it themselves.)
    YCbCr,
    /// Three components are red, green and blue, four are cyan, magenta, yellow and black; markers are not regarded.
    Stored,
}

/// What a file's header says of its picture.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Frame {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// Colour components.
    pub components: usize,
    /// Bytes that are kept of the whole picture while it is decoded: the coefficients of files in several scans.
    pub kept: u64,
}

/// Decodes the file `bytes`. `room` is told the size and gives the place for 3·width·height bytes (red,
/// green, blue; rows from the top without padding), or refuses before memory is taken. Gray is repeated; four components are taken as
/// Adobe's programs write them (inverted) and turned to RGB as Pillow does.
///
/// # Errors
/// A text, without the file's name, that says what is wrong: not a JPEG file, of a kind that is not read, damaged,
/// cut short (also where only the end marker is missing; where other bytes stand in its place, all pixels are there
/// and it is read, as by Pillow), of more than [`MAX_SCANS`] scans, or refused by `room`.
/// What stands in the place then is unspecified.
pub fn decode<'o>(
    bytes: &[u8],
    colors: Colors,
    room: impl FnOnce(Frame) -> Result<&'o mut [u8], String>,
) -> Result<(), String> {
    decode_by(bytes, colors, true, room)
}

/// [`decode`]; without `own` libjpeg does the last stages itself, with the same result.
fn decode_by<'o>(
    bytes: &[u8],
    colors: Colors,
    own: bool,
    room: impl FnOnce(Frame) -> Result<&'o mut [u8], String>,
) -> Result<(), String> {
    let mut session = Session::open(bytes)?;
    session.set_colors(colors);
    let frame = session.frame();
    let (width, height) = (frame.width, frame.height);
    let model = match session.components() {
        1 | 3 | 4 => session.model(),
        n => return Err(format!("it has {n} colour components")),
    };
    let pixels = room(frame)?;
    if pixels.len() != 3 * width * height || pixels.is_empty() {
        return Err(format!(
            "{} bytes are no place for {width}x{height} pixels",
            pixels.len()
        ));
    }
    let plan = Expansion::plan(&session).filter(|_| own);
    match (model, plan) {
        (Model::YCbCr, Some(plan)) => {
            session.start(None)?;
            let rows = Rows::new(&session, plan);
            rows.decode(&mut session, width, pixels)?;
        }
        _ => lines(&mut session, model, width, pixels)?,
    }
    Ok(session.finish()?)
}

/// Decodes the file `bytes` to its components, whatever they mean, all of one size. `room` is told the size and gives
/// the place for components·width·height bytes (pixel by pixel, rows from the top without padding), or refuses.
///
/// # Errors
/// As [`decode`].
pub fn decode_components<'o>(
    bytes: &[u8],
    room: impl FnOnce(Frame) -> Result<&'o mut [u8], String>,
) -> Result<(), String> {
    let mut session = Session::open(bytes)?;
    let frame = session.frame();
    let (width, height, components) = (frame.width, frame.height, frame.components);
    if (1..components).any(|i| session.sampling(i) != session.sampling(0)) {
        return Err("its components have different sizes".to_owned());
    }
    let samples = room(frame)?;
    if samples.len() != components * width * height || samples.is_empty() {
        return Err(format!(
            "{} bytes are no place for {components} times {width}x{height} samples",
            samples.len()
        ));
    }
    session.forget_colors();
    if session.start(Some(Model::Unknown))? != components {
        return Err("its components can't be told apart".to_owned());
    }
    for line in samples.chunks_exact_mut(components * width) {
        session.read_line(line)?;
    }
    Ok(session.finish()?)
}

/// Row by row with libjpeg's own last stages.
fn lines(
    session: &mut Session<'_>,
    model: Model,
    width: usize,
    pixels: &mut [u8],
) -> Result<(), String> {
    let channels = session.start(Some(model))?;
    let mut line = vec![0; channels * width];
    for row in pixels.chunks_exact_mut(3 * width) {
        match channels {
            3 => session.read_line(row)?,
            1 => {
                session.read_line(&mut line)?;
                color::gray_row(&line, row);
            }
            _ => {
                session.read_line(&mut line)?;
                color::inverted_cmyk_row(&line, row);
            }
        }
    }
    Ok(())
}

/// The example of the README is right.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(test)]
mod tests;
