//! Fax compression (CCITT, T.4 and T.6): rows of black and white. The code tables are a library's.

use fax::maps::{Mode, black, mode, white};
use fax::{BitReader, ByteReader};
use std::convert::Infallible;

/// Which of the three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// Run lengths, every row from a new byte on (compression 2).
    Rows,
    /// Group 3 (compression 3); rows may refer to the row above.
    Group3 { two_dimensional: bool },
    /// Group 4 (compression 4).
    Group4,
}

/// Undoes the compression into rows of bits, 1 for black; `None` where the data ends early or is damaged.
pub(super) fn decode(data: &[u8], scheme: Scheme, width: usize, out: &mut [u8]) -> Option<()> {
    // Codes are looked for in more bits than the last of them may have.
    let padded = data.iter().copied().chain([0; 4]);
    let mut reader = ByteReader::new(padded.map(Ok::<u8, Infallible>)).ok()?;
    let mut above = Vec::new();
    let mut changes = Vec::new();
    for row in out.chunks_exact_mut(width.div_ceil(8)) {
        changes.clear();
        let refers = match scheme {
            Scheme::Rows => false,
            Scheme::Group4 => true,
            Scheme::Group3 { two_dimensional } => {
                let ended = skip_end_of_line(&mut reader);
                if two_dimensional && ended {
                    let plain = reader.peek(1)? == 1;
                    reader.consume(1).ok()?;
                    !plain
                } else {
                    false
                }
            }
        };
        if refers {
            referring_row(&mut reader, &above, width, &mut changes)?;
        } else {
            plain_row(&mut reader, width, &mut changes)?;
        }
        if scheme == Scheme::Rows {
            let rest = reader.bits_to_byte_boundary();
            reader.consume(rest).ok()?;
        }
        row.fill(0);
        for pair in changes.chunks(2) {
            let to = pair.get(1).copied().unwrap_or(width);
            for x in pair[0].min(width)..to.min(width) {
                row[x / 8] |= 0x80 >> (x % 8);
            }
        }
        std::mem::swap(&mut above, &mut changes);
    }
    Some(())
}

/// Steps over an end-of-line code with the zeros before it, if it comes next.
fn skip_end_of_line(reader: &mut impl BitReader) -> bool {
    while reader.peek(12) == Some(0) {
        if reader.consume(1).is_err() {
            return false;
        }
    }
    reader.peek(12) == Some(1) && reader.consume(12).is_ok()
}

/// The length of a run of one colour.
fn run(reader: &mut impl BitReader, is_black: bool) -> Option<usize> {
    let mut sum = 0;
    loop {
        let part = if is_black {
            black::decode(reader)
        } else {
            white::decode(reader)
        }?;
        sum += usize::from(part);
        if part < 64 {
            return Some(sum);
        }
    }
}

/// The places where the colour changes in a row of runs, white first.
fn plain_row(reader: &mut impl BitReader, width: usize, changes: &mut Vec<usize>) -> Option<()> {
    let (mut at, mut is_black) = (0, false);
    while at < width {
        at += run(reader, is_black)?;
        if at > width {
            return None;
        }
        changes.push(at);
        is_black = !is_black;
    }
    Some(())
}

/// The same in a row that is told by what differs from the row above.
fn referring_row(
    reader: &mut impl BitReader,
    above: &[usize],
    width: usize,
    changes: &mut Vec<usize>,
) -> Option<()> {
    let (mut at, mut is_black, mut begun) = (0, false, false);
    while at < width {
        // The next change above, to the right, from this colour to the other.
        let next = (usize::from(is_black)..above.len())
            .step_by(2)
            .find(|&i| above[i] > at || (!begun && above[i] == 0));
        let place = |i: Option<usize>| i.and_then(|i| above.get(i)).copied().unwrap_or(width);
        match mode::decode(reader)? {
            Mode::Pass => at = place(next.map(|i| i + 1)),
            Mode::Vertical(by) => {
                let to = place(next).checked_add_signed(isize::from(by))?;
                if to < at || to > width {
                    return None;
                }
                changes.push(to);
                at = to;
                is_black = !is_black;
            }
            Mode::Horizontal => {
                for color in [is_black, !is_black] {
                    at += run(reader, color)?;
                    changes.push(at);
                }
                if at > width {
                    return None;
                }
            }
            Mode::Extension | Mode::EOF => return None,
        }
        begun = true;
    }
    Some(())
}
