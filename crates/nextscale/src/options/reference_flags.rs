//! Flags of the reference's trainer that have nothing to do here: taken, so that its command lines run as they are, and told of.

use super::values::parse_bool;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

/// A flag that is taken and not used.
struct Unused {
    name: &'static str,
    /// Other spellings.
    aliases: &'static [&'static str],
    /// Why nothing is done.
    why: &'static str,
    /// Whether the help lists it.
    listed: bool,
}

const fn listed(name: &'static str, why: &'static str) -> Unused {
    Unused {
        name,
        aliases: &[],
        why,
        listed: true,
    }
}

/// One that the reference fills in by itself, whatever was given.
const fn filled_in(name: &'static str) -> Unused {
    Unused {
        name,
        aliases: &[],
        why: "it is worked out from other flags, as in the reference, or written to the logs",
        listed: false,
    }
}

/// All that the reference's flags have beside those of [`TransformerOptions`](super::TransformerOptions).
const UNUSED: &[Unused] = &[
    listed(
        "tlr",
        "the learning rate is worked out from --tblr, --bs and --ac, as in the reference",
    ),
    listed("data_name", "--data_path says which images they are"),
    listed(
        "dbg_nan",
        "losses, gradients and weights that are no numbers are looked for in every run",
    ),
    listed(
        "same_seed_for_all_ranks",
        "draws follow from --seed and a sample's place in the whole batch, whichever process has it",
    ),
    listed(
        "local_debug",
        "the reference trains nothing with it; nextscale quickstart tries everything on built-in images",
    ),
    Unused {
        name: "local_rank",
        aliases: &["local-rank"],
        why: "the launcher's environment says which process this is",
        listed: false,
    },
    filled_in("batch_size"),
    filled_in("glb_batch_size"),
    filled_in("patch_nums"),
    filled_in("resos"),
    filled_in("data_load_reso"),
    filled_in("cmd"),
    filled_in("branch"),
    filled_in("commit_id"),
    filled_in("commit_msg"),
    filled_in("acc_mean"),
    filled_in("acc_tail"),
    filled_in("L_mean"),
    filled_in("L_tail"),
    filled_in("vacc_mean"),
    filled_in("vacc_tail"),
    filled_in("vL_mean"),
    filled_in("vL_tail"),
    filled_in("grad_norm"),
    filled_in("cur_lr"),
    filled_in("cur_wd"),
    filled_in("cur_it"),
    filled_in("cur_ep"),
    filled_in("remain_time"),
    filled_in("finish_time"),
    filled_in("tb_log_dir_path"),
    filled_in("log_txt_path"),
    filled_in("last_ckpt_path"),
];

/// Flags that are options and still change nothing: their names, and whether they ask for what is done anyway.
const SWITCHES: [(&str, bool, &str); 4] = [
    ("vfast", false, "nothing is compiled while a run goes on"),
    ("tfast", false, "nothing is compiled while a run goes on"),
    ("afuse", true, "the optimizer is one pass over the weights"),
    ("fuse", true, "operators are fused"),
];

/// Adds the flags to a command.
pub(super) fn add(command: Command) -> Command {
    UNUSED.iter().fold(command, |command, flag| {
        command.arg(
            Arg::new(flag.name)
                .long(flag.name)
                .aliases(flag.aliases)
                .value_name("X")
                .allow_negative_numbers(true)
                .help(format!("Accepted; {}", flag.why))
                .help_heading("Accepted for compatibility")
                .hide(!flag.listed),
        )
    })
}

/// A line for each flag on the command line that asks for something and does nothing.
pub(super) fn told(matches: &ArgMatches) -> Vec<String> {
    let given = |name: &str| {
        let source = matches.value_source(name);
        let mut raw = matches
            .get_raw(name)
            .filter(|_| source == Some(ValueSource::CommandLine))?;
        Some(raw.next_back()?.to_string_lossy().into_owned())
    };
    let unused = UNUSED.iter().filter_map(|flag| {
        let value = given(flag.name)?;
        // Switched off it asks for nothing.
        let off = parse_bool(&value) == Ok(false);
        (!off).then(|| format!("--{}={value}: does nothing: {}", flag.name, flag.why))
    });
    let switches = SWITCHES.iter().filter_map(|(name, usual, why)| {
        let value = given(name)?;
        let asked = parse_bool(&value).unwrap_or(true);
        (asked != *usual).then(|| format!("--{name}={value}: does nothing: {why}"))
    });
    unused.chain(switches).collect()
}
