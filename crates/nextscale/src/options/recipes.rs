//! The published flag sets.

use serde::{Deserialize, Serialize};

use super::TransformerOptions;
use crate::data::Background;

/// A published set of flags, chosen with `--recipe`.
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
}

/// The flags in which recipes differ.
struct Flags {
    depth: usize,
    saln: bool,
    pn: &'static str,
    bs: usize,
    ep: usize,
    tblr: f64,
    alng: f64,
    wpe: f64,
    twde: f64,
}

impl Recipe {
    /// All of them, from the smallest model on.
    pub const ALL: [Self; 5] = [Self::D16, Self::D20, Self::D24, Self::D30, Self::D36S];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::D16 => "d16",
            Self::D20 => "d20",
            Self::D24 => "d24",
            Self::D30 => "d30",
            Self::D36S => "d36-s",
        }
    }

    fn flags(self) -> Flags {
        let d16 = Flags {
            depth: 16,
            saln: false,
            pn: "256",
            bs: 768,
            ep: 200,
            tblr: 1e-4,
            alng: 1e-3,
            wpe: 0.1,
            twde: 0.0,
        };
        let d24 = Flags {
            depth: 24,
            ep: 350,
            tblr: 8e-5,
            alng: 1e-4,
            wpe: 0.01,
            ..d16
        };
        match self {
            Self::D16 => d16,
            Self::D20 => Flags {
                depth: 20,
                ep: 250,
                ..d16
            },
            Self::D24 => d24,
            Self::D30 => Flags {
                depth: 30,
                bs: 1024,
                alng: 1e-5,
                twde: 0.08,
                ..d24
            },
            Self::D36S => Flags {
                depth: 36,
                saln: true,
                pn: "512",
                alng: 5e-6,
                twde: 0.08,
                ..d24
            },
        }
    }

    /// Sets the recipe's flags in `options`, except those that `is_given` knows as given by the user. All
    /// recipes train in float16, on images whose transparency is dropped, as the reference does.
    pub fn apply(self, options: &mut TransformerOptions, is_given: impl Fn(&str) -> bool) {
        let flags = self.flags();
        macro_rules! set {
            ($($name:literal => $place:expr, $value:expr;)*) => {
                $(if !is_given($name) {
                    $place = $value;
                })*
            };
        }
        set!(
            "depth" => options.depth, flags.depth;
            "saln" => options.saln, flags.saln;
            "pn" => options.pn, flags.pn.to_owned();
            "bs" => options.schedule.bs, flags.bs;
            "ep" => options.schedule.ep, flags.ep;
            "tblr" => options.tblr, flags.tblr;
            "fp16" => options.fp16, 1;
            "alng" => options.alng, flags.alng;
            "wpe" => options.schedule.wpe, flags.wpe;
            "twde" => options.twde, flags.twde;
            "background" => options.folder.background, Some(Background::Drop);
        );
        options.recipe = Some(self);
    }
}
