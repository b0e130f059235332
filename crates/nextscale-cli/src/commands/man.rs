//! `nextscale man`: manual pages made from the flags.

use clap::Command;
use clap_mangen::Man;
use nextscale::console::printed;
use nextscale::{Error, Result, say};
use std::fs;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};

/// Flags of `man`.
#[derive(clap::Args)]
#[command(
    rename_all = "snake_case",
    after_long_help = "To read a page: nextscale man train | man -l -\nTo have them where man looks: nextscale man --out=~/.local/share/man/man1"
)]
pub struct Args {
    /// The command whose page is printed; without it that of the program
    #[arg(value_name = "COMMAND", conflicts_with = "out")]
    command: Option<String>,
    /// Write the pages of the program and of every command into this folder instead
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let mut program = crate::program().disable_help_subcommand(true);
    // Gives the subcommands their full names.
    program.build();
    if let Some(folder) = &args.out {
        return write_all(&program, folder);
    }
    let command = match &args.command {
        None => &program,
        Some(name) => program.find_subcommand(name).ok_or_else(|| {
            let names: Vec<&str> = program.get_subcommands().map(Command::get_name).collect();
            Error::input(format!(
                "man {name}: there is no such command; the commands are {}",
                names.join(", ")
            ))
        })?,
    };
    printed(stdout().lock().write_all(&page(command)?))
}

fn write_all(program: &Command, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let mut count = 0;
    for command in std::iter::once(program).chain(program.get_subcommands()) {
        let name = command.get_display_name().unwrap_or(command.get_name());
        let file = folder.join(format!("{name}.1"));
        fs::write(&file, page(command)?).map_err(Error::io(&file))?;
        count += 1;
    }
    say!("{count} pages in {}", folder.display())
}

fn page(command: &Command) -> Result<Vec<u8>> {
    let mut page = Vec::new();
    Man::new(command.clone())
        .manual("nextscale")
        .source(concat!("nextscale ", env!("CARGO_PKG_VERSION")))
        .render(&mut page)
        .map_err(|e| Error::failed(format!("the page can't be made: {e}")))?;
    Ok(page)
}
