//! Flags for small data: some hundred to some ten thousand pictures, on a CPU or one GPU.
//!
//! The reference's defaults are for a million pictures on eight GPUs and learn nothing from a thousand. Here models are small, steps
//! have few pictures and learning rates are high; gates of the branches begin open (`alng`), so that few steps are enough.

use super::{Recipe, set};
use crate::options::{Size, TokenizerOptions, TransformerOptions};
use nextscale_tensor::Precision;

/// What recipes for small data differ in.
struct Flags {
    side: usize,
    tokenizer: Tokenizer,
    transformer: Transformer,
    /// Whether a GPU is expected, which computes in bfloat16.
    for_gpu: bool,
}

struct Tokenizer {
    ch: usize,
    ch_mult: &'static str,
    /// Weight of the squared error; that of the absolute one is a tenth of it.
    l2: f64,
    num_res_blocks: usize,
    vocab: usize,
    bs: usize,
    steps: u64,
    lr: f64,
}

struct Transformer {
    depth: usize,
    bs: usize,
    ep: usize,
    tblr: f64,
}

fn flags(recipe: Recipe) -> Option<Flags> {
    let for_cpu = |side, ch_mult| Flags {
        side,
        tokenizer: Tokenizer {
            ch: 32,
            ch_mult,
            l2: 20.0,
            num_res_blocks: 1,
            vocab: 512,
            bs: 8,
            steps: 8000,
            lr: 1e-3,
        },
        transformer: Transformer {
            depth: 4,
            bs: 16,
            ep: 60,
            tblr: 24e-3,
        },
        for_gpu: false,
    };
    Some(match recipe {
        Recipe::Small32 => for_cpu(32, "1_2_4"),
        Recipe::Small64 => for_cpu(64, "1_1_2_4"),
        Recipe::Small128 => Flags {
            side: 128,
            tokenizer: Tokenizer {
                ch: 64,
                ch_mult: "1_1_2_2",
                l2: 60.0,
                num_res_blocks: 1,
                vocab: 1024,
                bs: 16,
                steps: 10_000,
                lr: 6e-4,
            },
            transformer: Transformer {
                depth: 8,
                bs: 64,
                ep: 100,
                tblr: 2.4e-3,
            },
            for_gpu: true,
        },
        Recipe::Medium256 => Flags {
            side: 256,
            tokenizer: Tokenizer {
                ch: 96,
                ch_mult: "1_1_2_2_4",
                l2: 60.0,
                num_res_blocks: 2,
                vocab: 4096,
                bs: 32,
                steps: 20_000,
                lr: 3e-4,
            },
            transformer: Transformer {
                depth: 12,
                bs: 128,
                ep: 100,
                tblr: 8e-4,
            },
            for_gpu: true,
        },
        _ => return None,
    })
}

/// Side of a recipe's pictures; `None` where it is none for small data.
pub(super) fn side(recipe: Recipe) -> Option<usize> {
    flags(recipe).map(|flags| flags.side)
}

/// Sets the flags of the tokenizer, but for those that are given.
pub(super) fn tokenizer(
    recipe: Recipe,
    options: &mut TokenizerOptions,
    is_given: impl Fn(&str) -> bool,
) {
    let Some(flags) = flags(recipe) else { return };
    let own = flags.tokenizer;
    if let Some(size) = Size::of(flags.side).filter(|_| !is_given("size")) {
        set!(is_given;
            "pn" => options.pn, size.pn.to_owned();
            "ch_mult" => options.ch_mult, own.ch_mult.to_owned();
        );
    }
    // Pictures first: with few steps the quantizer's terms would hold the encoder back. Where steps are very few, codes of the coarse
    // scales must still be learnable by a small transformer, which larger weights cost.
    set!(is_given;
        "ch" => options.ch, own.ch;
        "num_res_blocks" => options.num_res_blocks, own.num_res_blocks;
        "vocab" => options.vocab, own.vocab;
        "l1" => options.l1, own.l2 / 10.0;
        "l2" => options.l2, own.l2;
        "lr" => options.lr, own.lr;
        "wd" => options.wd, 0.0;
        "bs" => options.schedule.bs, own.bs;
        "sche" => options.schedule.sche, "cos".to_owned();
        "wpe" => options.schedule.wpe, 0.02;
    );
    if !is_given("ep") {
        set!(is_given; "steps" => options.schedule.steps, Some(own.steps););
    }
    if flags.for_gpu {
        set!(is_given; "precision" => options.precision, Some(Precision::Bf16););
    }
}

/// Sets the flags of the transformer, but for those that are given.
pub(super) fn transformer(
    recipe: Recipe,
    options: &mut TransformerOptions,
    is_given: impl Fn(&str) -> bool,
) {
    let Some(flags) = flags(recipe) else { return };
    let own = flags.transformer;
    if let Some(size) = Size::of(flags.side).filter(|_| !is_given("size")) {
        set!(is_given;
            "pn" => options.pn, size.pn.to_owned();
            "patch_size" => options.patch_size, size.patch_size;
        );
    }
    set!(is_given;
        "depth" => options.depth, own.depth;
        "alng" => options.alng, 1e-2;
        "hd" => options.hd, 0.1;
        "tblr" => options.tblr, own.tblr;
        "bs" => options.schedule.bs, own.bs;
        "ep" => options.schedule.ep, own.ep;
        "sche" => options.schedule.sche, "cos".to_owned();
    );
    if flags.for_gpu {
        set!(is_given; "fp16" => options.fp16, 2;);
    }
}
