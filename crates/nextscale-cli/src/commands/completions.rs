//! `nextscale completions`: what a shell offers while a command is typed.

use clap_complete::{Shell, generate};
use nextscale::Result;
use nextscale::console::printed;
use std::io::{Write, stdout};

/// Flags of `completions`.
#[derive(clap::Args)]
#[command(
    rename_all = "snake_case",
    after_long_help = "Where shells look for them:\n  \
        bash        ~/.local/share/bash-completion/completions/nextscale\n  \
        zsh         _nextscale in a folder of $fpath\n  \
        fish        ~/.config/fish/completions/nextscale.fish\n  \
        elvish      a file that rc.elv reads\n  \
        powershell  a file that $PROFILE reads"
)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> Result<()> {
    // Made before it is printed, as a reader that goes away must not matter.
    let mut script = Vec::new();
    generate(args.shell, &mut crate::program(), "nextscale", &mut script);
    printed(stdout().lock().write_all(&script))
}
