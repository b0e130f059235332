//! `--precision`, and the reference's flags that say the same: `--fp16`, and `--tf32` where products are in float32.

use crate::{Error, Result};
use nextscale_tensor::Precision;

/// The reference's flags for a precision: its `fp16`, and its `tf32` where that tells TF32 from float32.
pub fn in_reference_flags(precision: Precision) -> (u8, Option<bool>) {
    match precision {
        Precision::Fp32 => (0, Some(false)),
        Precision::Tf32 => (0, Some(true)),
        Precision::Fp16 => (1, None),
        Precision::Bf16 => (2, None),
    }
}

/// The same, beside values of `fp16` and `tf32` that were given as well.
///
/// # Errors
/// One line where they say something else.
pub fn agreed(
    precision: Precision,
    fp16: Option<u8>,
    tf32: Option<bool>,
) -> Result<(u8, Option<bool>)> {
    let (same_fp16, same_tf32) = in_reference_flags(precision);
    let refuse = |flag: &str, given: u8, same: u8| {
        Error::input(format!(
            "`precision`={precision} and `{flag}`={given} contradict each other: `precision`={precision} is `{flag}`={same}; give one of the two"
        ))
    };
    if let Some(given) = fp16.filter(|given| *given != same_fp16) {
        return Err(refuse("fp16", given, same_fp16));
    }
    match (tf32, same_tf32) {
        (Some(given), Some(same)) if given != same => {
            Err(refuse("tf32", given.into(), same.into()))
        }
        _ => Ok((same_fp16, same_tf32)),
    }
}

#[cfg(feature = "cli")]
pub(super) use flag::{add, given};

#[cfg(feature = "cli")]
mod flag {
    use super::agreed;
    use crate::options::given::given_value;
    use crate::options::values::precision_parser;
    use clap::{Arg, ArgMatches, Command};
    use nextscale_tensor::Precision;

    /// Adds `--precision` to a command that has the reference's flags.
    pub(in crate::options) fn add(command: Command) -> Command {
        command.arg(
            Arg::new("precision")
                .long("precision")
                .value_name("PRECISION")
                .value_parser(precision_parser())
                .help("Precision of products on a GPU, fp16 with a loss scale; the same as --fp16 and --tf32, in words")
                .help_heading("Machine"),
        )
    }

    /// What `--precision` says in the reference's flags, if it is given.
    pub(in crate::options) fn given(
        matches: &ArgMatches,
    ) -> Result<Option<(u8, Option<bool>)>, clap::Error> {
        let Some(precision) = matches.get_one::<Precision>("precision") else {
            return Ok(None);
        };
        let said = agreed(
            *precision,
            given_value(matches, "fp16"),
            given_value(matches, "tf32"),
        );
        let refuse =
            |e: crate::Error| clap::Error::raw(clap::error::ErrorKind::ArgumentConflict, e);
        said.map(Some).map_err(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::values::training_precision;

    #[test]
    fn both_ways_to_say_a_precision_mean_the_same() {
        for precision in Precision::ALL {
            let (fp16, tf32) = in_reference_flags(precision);
            for other in [false, true] {
                let tf32 = tf32.unwrap_or(other);
                assert_eq!(training_precision(fp16, tf32).unwrap(), precision);
                // Said twice is said once.
                agreed(precision, Some(fp16), Some(tf32)).unwrap();
            }
            for given in (0..3).filter(|given| *given != fp16) {
                let line = agreed(precision, Some(given), None)
                    .unwrap_err()
                    .to_string();
                let begin = format!("`precision`={precision} and `fp16`={given} contradict");
                assert!(line.starts_with(&begin) && !line.contains('\n'), "{line}");
            }
            let other = tf32.map(|on| agreed(precision, None, Some(!on)).is_err());
            assert!(other.unwrap_or(true), "{precision}");
        }
    }
}
