//! The flags of the published models.

use super::{Recipe, set};
use crate::data::Background;
use crate::options::TransformerOptions;

/// The flags in which published models differ.
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

/// The flags of a published model; `None` where it is none.
fn flags(recipe: Recipe) -> Option<Flags> {
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
    Some(match recipe {
        Recipe::D16 => d16,
        Recipe::D20 => Flags {
            depth: 20,
            ep: 250,
            ..d16
        },
        Recipe::D24 => d24,
        Recipe::D30 => Flags {
            depth: 30,
            bs: 1024,
            alng: 1e-5,
            twde: 0.08,
            ..d24
        },
        Recipe::D36S => Flags {
            depth: 36,
            saln: true,
            pn: "512",
            alng: 5e-6,
            twde: 0.08,
            ..d24
        },
        _ => return None,
    })
}

/// Sets a published model's flags, but for those that are given. All train in float16, on images whose transparency is dropped, as the
/// reference does.
pub(super) fn apply(
    recipe: Recipe,
    options: &mut TransformerOptions,
    is_given: impl Fn(&str) -> bool,
) {
    let Some(flags) = flags(recipe) else { return };
    set!(is_given;
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
        "background" => options.folder.canvas.background, Some(Background::Drop);
    );
}
