//! Images' sizes in words: `--size` stands for the flags that make images of so many pixels.

#[cfg(feature = "cli")]
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
#[cfg(feature = "cli")]
use clap::{Arg, ArgMatches, Command};

/// What makes images of a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Side of the images in pixels.
    pub side: usize,
    /// Side lengths of the token maps, as `--pn` takes them.
    pub pn: &'static str,
    /// Widths of the tokenizer's levels, as `--ch_mult` takes them: every level but the last halves the image.
    pub ch_mult: &'static str,
    /// Pixels along a side of a token.
    pub patch_size: usize,
}

/// Small images have small tokens: 16 pixels of 64 are a quarter of what is seen.
const SIZES: [Size; 7] = [
    Size {
        side: 32,
        pn: "1_2_3_4_6_8",
        ch_mult: "1_2_2",
        patch_size: 4,
    },
    Size {
        side: 64,
        pn: "1_2_3_4_6_8",
        ch_mult: "1_1_2_2",
        patch_size: 8,
    },
    Size {
        side: 96,
        pn: "1_2_3_4_6_9_12",
        ch_mult: "1_1_2_2",
        patch_size: 8,
    },
    Size {
        side: 128,
        pn: "1_2_3_4_5_6_8_10_13_16",
        ch_mult: "1_1_2_2",
        patch_size: 8,
    },
    Size {
        side: 256,
        pn: "256",
        ch_mult: "1_1_2_2_4",
        patch_size: 16,
    },
    Size {
        side: 512,
        pn: "512",
        ch_mult: "1_1_2_2_4",
        patch_size: 16,
    },
    Size {
        side: 1024,
        pn: "1024",
        ch_mult: "1_1_2_2_4",
        patch_size: 16,
    },
];

impl Size {
    /// The size with so many pixels a side, where there is one.
    pub fn of(side: usize) -> Option<Self> {
        SIZES.into_iter().find(|size| size.side == side)
    }

    /// The size that a command line asks for.
    #[cfg(feature = "cli")]
    pub(super) fn given(matches: &ArgMatches) -> Option<Self> {
        matches.get_one::<Size>("size").copied()
    }
}

/// Adds `--size` to a command; it stands for the flags `instead_of`.
#[cfg(feature = "cli")]
pub(super) fn add(command: Command, instead_of: [&'static str; 2]) -> Command {
    let values = SIZES.map(|size| PossibleValue::new(size.side.to_string()));
    let parser = PossibleValuesParser::new(values).try_map(|text| {
        let size = text.parse().ok().and_then(Size::of);
        size.ok_or("there is no such size")
    });
    let [a, b] = instead_of;
    command.arg(
        Arg::new("size")
            .long("size")
            .value_name("PIXELS")
            .value_parser(parser)
            .conflicts_with_all(instead_of)
            .help(format!(
                "Side of the images, in place of --{a} and --{b}: 32, 64, 96, 128, 256, 512 or 1024"
            ))
            .help_heading("Model")
            .hide_possible_values(true),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::tokenizer::parse_ch_mult;
    use crate::options::values::parse_pn;

    #[test]
    fn sizes_are_what_they_say() {
        for size in SIZES {
            let pn = parse_pn(size.pn).unwrap();
            let levels = parse_ch_mult(size.ch_mult).unwrap().len();
            assert_eq!(size.patch_size, 1 << (levels - 1), "{}", size.side);
            assert_eq!(pn.last().unwrap() * size.patch_size, size.side);
            assert_eq!(Size::of(size.side), Some(size));
        }
        assert_eq!(Size::of(100), None);
    }
}
