//! Flags: a command line of either trainer, and the readers of texts alone.

use std::cell::RefCell;

use clap::{Args, Command, FromArgMatches};
use nextscale::options::values::{DeviceChoice, parse_bool, parse_pn};
use nextscale::options::{TokenizerArgs, TokenizerOptions, TransformerArgs};
use nextscale::train::schedule::Curve;

thread_local! {
    /// Made once: that takes longer than reading a line.
    static COMMANDS: RefCell<(Command, Command)> = RefCell::new((
        TransformerArgs::augment_args(Command::new("train")),
        TokenizerArgs::augment_args(Command::new("train-tokenizer")),
    ));
}

/// The words of a command line, one a line; and the whole text as the value of each flag that has a reader of its own.
pub fn flags(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    values(text);
    if !text.contains("--") {
        return;
    }
    let line = || std::iter::once("nextscale").chain(text.split('\n'));
    COMMANDS.with_borrow_mut(|(train, tokenizer)| {
        if let Ok(matches) = train.try_get_matches_from_mut(line())
            && let Ok(args) = TransformerArgs::from_arg_matches(&matches)
        {
            let _ = args.options.resolve(1);
        }
        if let Ok(matches) = tokenizer.try_get_matches_from_mut(line())
            && let Ok(args) = TokenizerArgs::from_arg_matches(&matches)
        {
            let _ = args.options.resolve(1);
        }
    });
}

fn values(text: &str) {
    let _ = parse_bool(text);
    if let Ok(sides) = parse_pn(text) {
        assert!(sides.len() > 1 && sides.is_sorted_by(|a, b| a < b));
    }
    if let Ok(device) = text.parse::<DeviceChoice>() {
        assert_eq!(
            device.to_string().parse::<DeviceChoice>().ok(),
            Some(device)
        );
    }
    if let Ok(curve) = text.parse::<Curve>() {
        assert_eq!(curve.to_string().parse::<Curve>().ok(), Some(curve));
    }
    for flag in ["ch_mult", "betas", "pn", "sche"] {
        let mut options = TokenizerOptions::default();
        match flag {
            "ch_mult" => options.ch_mult = text.to_owned(),
            "betas" => options.betas = text.to_owned(),
            "pn" => options.pn = text.to_owned(),
            _ => options.schedule.sche = text.to_owned(),
        }
        if let Err(error) = options.resolve(1) {
            assert_eq!(error.exit_code(), 2, "{flag}");
        }
    }
}
