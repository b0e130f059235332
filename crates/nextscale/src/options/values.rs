//! Values of options and how they are read.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize, Serializer};

use super::Size;
use crate::{Error, Result};
use nextscale_tensor::Precision;

/// Reads a truth value written as `1`, `0`, `true`, `false`, `t` or `f`, in any case.
///
/// # Errors
/// The list of what is accepted.
pub fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "t" => Ok(true),
        "0" | "false" | "f" => Ok(false),
        _ => Err("expected 1, 0, true or false".to_owned()),
    }
}

/// A path for a record of the run: names that are no text are shown as nearly as text can.
pub(crate) fn path_as_text<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

/// The same of a path that may be missing.
pub(crate) fn option_as_text<S: Serializer>(
    path: &Option<PathBuf>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match path {
        Some(path) => serializer.serialize_some(&path.to_string_lossy()),
        None => serializer.serialize_none(),
    }
}

/// A precision that may be left open, by its name.
pub(crate) mod precision_by_name {
    use nextscale_tensor::Precision;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(crate) fn serialize<S: Serializer>(p: &Option<Precision>, s: S) -> Result<S::Ok, S::Error> {
        p.map(Precision::name).serialize(s)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        d: D,
    ) -> Result<Option<Precision>, D::Error> {
        let name = Option::<String>::deserialize(d)?;
        let read = name.map(|name| name.parse().map_err(D::Error::custom));
        read.transpose()
    }
}

/// How a command line reads a precision, with the values that there are in its help.
#[cfg(feature = "cli")]
pub fn precision_parser()
-> impl clap::builder::TypedValueParser<Value = nextscale_tensor::Precision> {
    use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
    use nextscale_tensor::Precision;
    let values = Precision::ALL.map(|p| PossibleValue::new(p.name()).help(p.in_words()));
    PossibleValuesParser::new(values).try_map(|name| name.parse::<Precision>())
}

/// The named lists of `--pn`.
const PN_PRESETS: [(&str, &str); 3] = [
    ("256", "1_2_3_4_5_6_8_10_13_16"),
    ("512", "1_2_3_4_6_9_13_18_24_32"),
    ("1024", "1_2_3_4_5_7_9_12_16_21_27_36_48_64"),
];

/// The list behind a preset of `--pn`, or the text itself.
pub fn expand_pn(text: &str) -> &str {
    PN_PRESETS
        .iter()
        .find(|(name, _)| *name == text)
        .map_or(text, |(_, list)| list)
}

/// Reads `--pn`: a preset (256, 512, 1024) or the side lengths of the token maps joined by `_` or `-`, two at least.
///
/// # Errors
/// [`Error::Input`] for anything but numbers from 1 to 4096 that strictly increase, and for a lone one that is no preset: a
/// single map is no pyramid, and who writes `64` means pixels.
pub fn parse_pn(text: &str) -> Result<Vec<usize>> {
    const MAX_SIDE: usize = 4096;
    let refuse = |why: &str| {
        Error::field(
            "pn",
            text,
            format!("{why}; give 256, 512, 1024 or increasing side lengths such as 1_2_3_4"),
        )
    };
    if text.is_empty() {
        return Err(refuse("it is empty"));
    }
    let mut pn: Vec<usize> = Vec::new();
    for word in expand_pn(text).split(['_', '-']) {
        // `parse` alone would take a plus sign.
        let side = match word.parse::<usize>() {
            Ok(side) if word.bytes().all(|byte| byte.is_ascii_digit()) => side,
            _ => return Err(refuse(&format!("'{word}' is not a side length"))),
        };
        if side == 0 {
            return Err(refuse("a token map can't have side 0"));
        }
        if side > MAX_SIDE {
            return Err(refuse(&format!(
                "{side} is over the largest side of {MAX_SIDE}"
            )));
        }
        if pn.last().is_some_and(|&last| side <= last) {
            return Err(refuse(&format!("{side} does not increase")));
        }
        pn.push(side);
    }
    match pn[..] {
        [lone] => Err(Error::input(format!(
            "`pn`={text}: a lone number must be 256, 512 or 1024 (pixels); {}give the side lengths of all token maps: {}",
            Size::of(lone).map_or(String::new(), |_| format!(
                "train and train-tokenizer take `size`={lone}; or "
            )),
            instead_of(lone)
        ))),
        _ => Ok(pn),
    }
}

/// What to give in place of a lone number of pixels, or of tokens where it can't be pixels.
fn instead_of(lone: usize) -> String {
    let doubling = |last: usize| {
        let below = std::iter::successors(Some(1), |side| Some(2 * side));
        let sides = below.take_while(|side| *side < last).chain([last]);
        sides.map(|s| s.to_string()).collect::<Vec<_>>().join("_")
    };
    // How many numbers of --ch_mult make a token of so many pixels.
    let ways: Vec<String> = [(16, "five"), (8, "four"), (4, "three")]
        .into_iter()
        .filter(|(pixels, _)| lone.is_multiple_of(*pixels) && lone / pixels > 1)
        .take(2)
        .map(|(pixels, levels)| {
            format!(
                "`pn`={} `patch_size`={pixels} (in train-tokenizer {levels} numbers in `ch_mult`)",
                doubling(lone / pixels)
            )
        })
        .collect();
    if ways.is_empty() {
        let last = lone.max(2);
        return format!(
            "for maps up to {last}x{last} tokens `pn`={}",
            doubling(last)
        );
    }
    format!("for images of {lone}x{lone} pixels {}", ways.join(", or "))
}

/// A number as C's and Python's `%g` writes it: six significant digits, no trailing zeros, an exponent
/// below 1e-4 and from 1e6 on.
pub fn format_g(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return if value.is_nan() {
            "nan".to_owned()
        } else {
            format!("{value}")
        };
    }
    let scientific = format!("{value:.5e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if (-4..6).contains(&exponent) {
        let decimals = (5 - exponent).unsigned_abs() as usize;
        trim_zeros(&format!("{value:.decimals$}")).to_owned()
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim_zeros(mantissa), exponent.abs())
    }
}

fn trim_zeros(digits: &str) -> &str {
    if digits.contains('.') {
        digits.trim_end_matches('0').trim_end_matches('.')
    } else {
        digits
    }
}

/// What happens to an image file that can't be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "cli", value(rename_all = "snake_case"))]
pub enum BadImages {
    /// It is named in a message and another image takes its place.
    Skip,
    /// The run stops and names it.
    Fail,
}

/// The device asked for with `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// `auto`: a CUDA GPU where there is one, else the CPU.
    Auto,
    /// `cpu`.
    Cpu,
    /// `cuda` or `cuda:N`: the N-th GPU; without a number the one of the process's place in the group.
    Cuda(Option<usize>),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || {
            Error::input(format!(
                "'{text}' is not a device; use auto, cpu, cuda or cuda:N"
            ))
        };
        Ok(match text {
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            "cuda" => Self::Cuda(None),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(unknown)?;
                if !number.bytes().all(|byte| byte.is_ascii_digit()) {
                    return Err(unknown());
                }
                Self::Cuda(Some(number.parse().map_err(|_| unknown())?))
            }
        })
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(None) => f.write_str("cuda"),
            Self::Cuda(Some(index)) => write!(f, "cuda:{index}"),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(device: DeviceChoice) -> Self {
        device.to_string()
    }
}

/// Precision of a training run's products: what `--fp16` stands for, 0 float32, or TF32 where it may be, 1 float16, 2 bfloat16.
///
/// # Errors
/// One line for another number.
pub fn training_precision(fp16: u8, tf32: bool) -> Result<Precision> {
    match fp16 {
        0 if tf32 => Ok(Precision::Tf32),
        0 => Ok(Precision::Fp32),
        1 => Ok(Precision::Fp16),
        2 => Ok(Precision::Bf16),
        n => Err(Error::input(format!(
            "`fp16`={n}: use 0 (float32), 1 (float16) or 2 (bfloat16)"
        ))),
    }
}

/// The tokenizer's precision where none is asked for: bfloat16 beside a transformer in half precision, else the transformer's.
pub fn beside_training(transformer: Precision) -> Precision {
    match transformer {
        Precision::Fp16 => Precision::Bf16,
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn presets_and_lists_of_pn() {
        assert_eq!(parse_pn("256").unwrap(), [1, 2, 3, 4, 5, 6, 8, 10, 13, 16]);
        assert_eq!(parse_pn("512").unwrap().last(), Some(&32));
        assert_eq!(
            parse_pn("1024").unwrap(),
            [1, 2, 3, 4, 5, 7, 9, 12, 16, 21, 27, 36, 48, 64]
        );
        assert_eq!(parse_pn("1-2_4").unwrap(), [1, 2, 4]);
    }

    #[test]
    fn each_malformed_pn_has_its_line() {
        for (text, why) in [
            ("", "it is empty"),
            ("1_2_2", "2 does not increase"),
            ("4_2", "2 does not increase"),
            ("0_1", "a token map can't have side 0"),
            ("1_x", "'x' is not a side length"),
            ("1__2", "'' is not a side length"),
            ("+1_2", "'+1' is not a side length"),
            ("1_99999", "99999 is over the largest side of 4096"),
            ("1_99999999999999999999999", "is not a side length"),
        ] {
            let message = parse_pn(text).unwrap_err().to_string();
            assert!(message.starts_with(&format!("`pn`={text}: ")), "{message}");
            assert!(
                message.contains(why) && !message.contains('\n'),
                "{message}"
            );
        }
    }

    #[test]
    fn a_lone_number_is_a_preset_or_refused_with_what_to_give() {
        for (text, advice) in [
            (
                "64",
                "for images of 64x64 pixels `pn`=1_2_4 `patch_size`=16 (in train-tokenizer five numbers in `ch_mult`), or `pn`=1_2_4_8 `patch_size`=8 (in train-tokenizer four numbers in `ch_mult`)",
            ),
            ("128", "`pn`=1_2_4_8 `patch_size`=16"),
            ("96", "`pn`=1_2_4_6 `patch_size`=16"),
            (
                "12",
                "for images of 12x12 pixels `pn`=1_2_3 `patch_size`=4 (in",
            ),
            ("7", "for maps up to 7x7 tokens `pn`=1_2_4_7"),
            ("1", "for maps up to 2x2 tokens `pn`=1_2"),
        ] {
            let message = parse_pn(text).unwrap_err().to_string();
            let start = format!("`pn`={text}: a lone number must be 256, 512 or 1024 (pixels); ");
            let sized = format!("take `size`={text}; or give the side lengths of all token maps: ");
            assert_eq!(
                message.contains(&sized),
                Size::of(text.parse().unwrap()).is_some()
            );
            assert!(
                message.starts_with(&start) && message.contains(advice),
                "{message}"
            );
            // What is advised is taken.
            let list = advice
                .split("`pn`=")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            assert!(parse_pn(list).is_ok(), "{list}");
        }
        assert_eq!(parse_pn("256").unwrap().len(), 10);
    }

    #[test]
    fn truth_values() {
        for text in ["1", "true", "True", "TRUE", "t"] {
            assert_eq!(parse_bool(text), Ok(true));
        }
        for text in ["0", "false", "False", "f"] {
            assert_eq!(parse_bool(text), Ok(false));
        }
        assert!(parse_bool("yes").is_err() && parse_bool("").is_err() && parse_bool("2").is_err());
    }

    #[test]
    fn numbers_as_percent_g() {
        for (value, text) in [
            (0.0, "0"),
            (1e-4, "0.0001"),
            (8e-5, "8e-05"),
            (0.05, "0.05"),
            (0.123456789, "0.123457"),
            (0.1 + 0.2, "0.3"),
            (1.0, "1"),
            (100000.0, "100000"),
            (999999.5, "1e+06"),
            (1234567.0, "1.23457e+06"),
            (1e100, "1e+100"),
            (-2.5e-7, "-2.5e-07"),
            (0.000099999995, "0.0001"),
            (f64::INFINITY, "inf"),
        ] {
            assert_eq!(format_g(value), text);
        }
    }

    #[test]
    fn devices() {
        for text in ["auto", "cpu", "cuda", "cuda:3"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        for text in ["", "gpu", "cuda:", "cuda:x", "cuda:+1", "cuda:-1", "mps"] {
            assert!(text.parse::<DeviceChoice>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_tokenizer_follows_the_run() {
        use Precision::{Bf16, Fp16, Fp32, Tf32};
        let both = |fp16, tf32| {
            let own = training_precision(fp16, tf32).unwrap();
            (own, beside_training(own))
        };
        assert_eq!(both(1, false), (Fp16, Bf16));
        assert_eq!(both(2, true), (Bf16, Bf16));
        assert_eq!(both(0, true), (Tf32, Tf32));
        assert_eq!(both(0, false), (Fp32, Fp32));
        assert!(training_precision(3, true).is_err());
    }

    proptest! {
        #[test]
        fn pn_parses_or_is_refused_in_one_line(text in "[0-9_+x -]{0,12}") {
            match parse_pn(&text) {
                Ok(pn) => {
                    prop_assert!(pn.len() > 1 && pn[0] > 0);
                    prop_assert!(pn.windows(2).all(|pair| pair[0] < pair[1]));
                }
                Err(error) => prop_assert!(!error.to_string().contains('\n')),
            }
        }

        #[test]
        fn increasing_lists_read_back(sides in prop::collection::btree_set(1usize..=4096, 2..20), dash: bool) {
            let words: Vec<String> = sides.iter().map(usize::to_string).collect();
            let text = words.join(if dash { "-" } else { "_" });
            prop_assert_eq!(parse_pn(&text).unwrap(), sides.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn percent_g_keeps_six_digits(value in prop::num::f64::NORMAL) {
            let back: f64 = format_g(value).parse().unwrap();
            prop_assert!((back - value).abs() <= 5.000001e-6 * value.abs());
            prop_assert_eq!(format_g(back), format_g(value));
        }
    }
}
