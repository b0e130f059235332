//! Checks of single numbers, each refusing with one line that names the flag.

use std::fmt::Display;

use crate::{Error, Result};

/// Refuses a value with what is needed unless `good`.
pub(crate) fn that(good: bool, flag: &str, value: impl Display, needed: &str) -> Result<()> {
    if good {
        Ok(())
    } else {
        Err(Error::field(flag, value, needed))
    }
}

/// At least 1.
pub(crate) fn counts(flags: &[(&str, usize)]) -> Result<()> {
    flags
        .iter()
        .try_for_each(|&(flag, value)| that(value >= 1, flag, value, "it must be at least 1"))
}

/// Finite and not negative.
pub(crate) fn amounts(flags: &[(&str, f64)]) -> Result<()> {
    flags.iter().try_for_each(|&(flag, value)| {
        that(
            value.is_finite() && value >= 0.0,
            flag,
            value,
            "it must be 0 or more",
        )
    })
}

/// The margin around the crop.
pub(crate) fn margin(mid_reso: f64) -> Result<()> {
    that(
        mid_reso.is_finite() && (1.0..=16.0).contains(&mid_reso),
        "mid_reso",
        mid_reso,
        "it must be from 1 (no margin around the crop) to 16",
    )
}

/// Finite.
pub(crate) fn numbers(flags: &[(&str, f64)]) -> Result<()> {
    flags.iter().try_for_each(|&(flag, value)| {
        that(value.is_finite(), flag, value, "it must be a finite number")
    })
}
