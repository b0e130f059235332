//! Sets of flags, chosen with `--recipe`: those of the published models, and those for small data.

mod published;
mod small;

use super::{TokenizerOptions, TransformerOptions};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// Sets options, each but where `is_given` knows its flag as given by the user.
macro_rules! set {
    ($is_given:expr; $($name:literal => $place:expr, $value:expr;)*) => {
        $(if !$is_given($name) {
            $place = $value;
        })*
    };
}
use set;

/// A set of flags, chosen with `--recipe`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Recipe {
    /// 310 M parameters at 256 px
    #[serde(rename = "d16")]
    #[cfg_attr(feature = "cli", value(name = "d16"))]
    D16,
    /// 600 M parameters at 256 px
    #[serde(rename = "d20")]
    #[cfg_attr(feature = "cli", value(name = "d20"))]
    D20,
    /// 1.0 G parameters at 256 px
    #[serde(rename = "d24")]
    #[cfg_attr(feature = "cli", value(name = "d24"))]
    D24,
    /// 2.0 G parameters at 256 px
    #[serde(rename = "d30")]
    #[cfg_attr(feature = "cli", value(name = "d30"))]
    D30,
    /// 2.3 G parameters with shared adaptive norms at 512 px
    #[serde(rename = "d36-s")]
    #[cfg_attr(feature = "cli", value(name = "d36-s"))]
    D36S,
    /// Small data at 32 px, on a CPU
    #[serde(rename = "small-32")]
    #[cfg_attr(feature = "cli", value(name = "small-32"))]
    Small32,
    /// Small data at 64 px, on a CPU
    #[serde(rename = "small-64")]
    #[cfg_attr(feature = "cli", value(name = "small-64"))]
    Small64,
    /// Small data at 128 px, on a GPU
    #[serde(rename = "small-128")]
    #[cfg_attr(feature = "cli", value(name = "small-128"))]
    Small128,
    /// Some thousand pictures or more at 256 px, on a GPU
    #[serde(rename = "medium-256")]
    #[cfg_attr(feature = "cli", value(name = "medium-256"))]
    Medium256,
    /// The one for small data that goes with the folder and the machine
    #[serde(rename = "auto")]
    #[cfg_attr(feature = "cli", value(name = "auto"))]
    Auto,
}

impl Recipe {
    /// Those of published models, from the smallest on.
    pub const PUBLISHED: [Self; 5] = [Self::D16, Self::D20, Self::D24, Self::D30, Self::D36S];

    /// Those for small data, from the smallest pictures on.
    pub const SMALL: [Self; 4] = [
        Self::Small32,
        Self::Small64,
        Self::Small128,
        Self::Medium256,
    ];

    /// The one for small data whose images have so many pixels a side.
    ///
    /// # Errors
    /// Where there is none.
    pub fn for_size(side: usize) -> Result<Self> {
        let found = Self::SMALL.into_iter().find(|r| r.side() == Some(side));
        found.ok_or_else(|| {
            let why = "give 32, 64, 128 or 256; train-tokenizer and train have more";
            Error::field("size", side, why)
        })
    }

    /// Of those for small data the one for smaller pictures.
    pub(crate) fn smaller(self) -> Option<Self> {
        let place = Self::SMALL.into_iter().position(|recipe| recipe == self)?;
        Self::SMALL.get(place.checked_sub(1)?).copied()
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::D16 => "d16",
            Self::D20 => "d20",
            Self::D24 => "d24",
            Self::D30 => "d30",
            Self::D36S => "d36-s",
            Self::Small32 => "small-32",
            Self::Small64 => "small-64",
            Self::Small128 => "small-128",
            Self::Medium256 => "medium-256",
            Self::Auto => "auto",
        }
    }

    /// The side in pixels of the pictures that a recipe for small data is for.
    pub fn side(self) -> Option<usize> {
        small::side(self)
    }

    /// Sets the recipe's flags in `options`, except those that `is_given` knows as given by the user. `auto` sets none: what it comes
    /// to depends on the data ([`advice`](crate::advice)).
    pub fn apply(self, options: &mut TransformerOptions, is_given: impl Fn(&str) -> bool) {
        published::apply(self, options, &is_given);
        small::transformer(self, options, &is_given);
        options.recipe = Some(self);
    }

    /// The same for a tokenizer's options, which have recipes for small data only.
    pub fn apply_to_tokenizer(
        self,
        options: &mut TokenizerOptions,
        is_given: impl Fn(&str) -> bool,
    ) {
        small::tokenizer(self, options, &is_given);
        options.recipe = Some(self);
    }

    /// Refuses what is left to be chosen, and for a tokenizer what is not for one.
    pub(super) fn check(self, of_tokenizer: bool) -> Result<()> {
        let why = match self {
            Self::Auto => "it is chosen by the command; give one of the others here",
            _ if of_tokenizer && Self::PUBLISHED.contains(&self) => {
                "it is a transformer's; for a tokenizer give small-32, small-64, small-128, medium-256 or auto, or leave it out"
            }
            _ => return Ok(()),
        };
        Err(Error::field("recipe", self.name(), why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Size;

    #[test]
    fn small_recipes_of_both_trainers_go_together() {
        assert_eq!(Recipe::for_size(128).unwrap(), Recipe::Small128);
        assert!(Recipe::for_size(96).is_err());
        assert_eq!(Recipe::Small64.smaller(), Some(Recipe::Small32));
        assert_eq!(
            (Recipe::Small32.smaller(), Recipe::D16.smaller()),
            (None, None)
        );
        for recipe in Recipe::SMALL {
            let (mut tokenizer, mut transformer) =
                (TokenizerOptions::default(), TransformerOptions::default());
            recipe.apply_to_tokenizer(&mut tokenizer, |_| false);
            recipe.apply(&mut transformer, |_| false);
            let (a, b) = (
                tokenizer.resolve(1).unwrap(),
                transformer.resolve(1).unwrap(),
            );
            assert_eq!(Some(a.image_size), recipe.side());
            assert_eq!((a.image_size, &a.patch_nums), (b.image_size, &b.patch_nums));
            assert!(b.lr >= 3e-4 && b.lr <= 1.5e-3 + 1e-12, "{}", b.lr);
            assert_eq!(
                recipe.name(),
                serde_json::to_value(recipe).unwrap().as_str().unwrap()
            );
        }
    }

    #[test]
    fn what_is_given_stays() {
        let mut o = TokenizerOptions::default();
        o.schedule.ep = 3;
        Recipe::Small64.apply_to_tokenizer(&mut o, |flag| ["ep", "ch"].contains(&flag));
        assert_eq!((o.schedule.ep, o.schedule.steps, o.ch), (3, None, 160));
        let mut o = TransformerOptions::default();
        Recipe::Small64.apply(&mut o, |flag| flag == "size");
        assert_eq!((o.pn.as_str(), o.depth), ("256", 4));
        assert!(Size::of(64).is_some());
    }

    #[test]
    fn a_tokenizer_has_no_published_recipe() {
        let refuse = |recipe: Recipe| recipe.check(true).unwrap_err().to_string();
        assert!(refuse(Recipe::D16).starts_with("`recipe`=d16: it is a transformer's"));
        assert!(refuse(Recipe::Auto).contains("chosen by the command"));
        assert!(Recipe::D16.check(false).is_ok() && Recipe::Small64.check(true).is_ok());
    }
}
