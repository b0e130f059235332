//! The `nextscale` command: one file a subcommand under `commands/`.

// Printing with the macros of the standard library panics where the line can't be written.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod commands;
mod home;
mod spellings;

use clap::{CommandFactory, FromArgMatches, Parser};
use nextscale::console::printed;
use nextscale::tell;
use std::process::ExitCode;

/// Train and sample visual autoregressive models (next-scale prediction)
#[derive(Parser)]
#[command(
    name = "nextscale",
    version,
    args_override_self = true,
    arg_required_else_help = true,
    after_help = "Flags may be written with dashes or underscores: --data-path is --data_path."
)]
struct Cli {
    #[command(subcommand)]
    command: commands::Command,
}

/// The program with all of its subcommands and flags.
fn program() -> clap::Command {
    home::expanded(spellings::added(Cli::command()))
}

fn main() -> ExitCode {
    let parsed = program()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(e) => return report_usage(&e),
    };
    nextscale::on_remark(|remark| tell!("nextscale: {remark}"));
    match nextscale::memory::caught(|| commands::run(cli.command)) {
        Ok(code) => code,
        Err(e) => {
            tell!("nextscale: {}", one_line(&e));
            ExitCode::from(e.exit_code())
        }
    }
}

/// The error with its causes, on one line.
fn one_line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(c) = cause {
        let more = c.to_string();
        // Transparent wrappers print their cause themselves.
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = c.source();
    }
    text.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

/// The subcommand that was asked for, if there is one, with a space behind it.
fn subcommand() -> String {
    let first = std::env::args().nth(1).unwrap_or_default();
    match Cli::command().find_subcommand(&first) {
        Some(command) => format!("{} ", command.get_name()),
        None => String::new(),
    }
}

/// Help and version as clap prints them; a mistake as one line and exit code 2.
fn report_usage(e: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::{
        DisplayHelp, DisplayHelpOnMissingArgumentOrSubcommand, DisplayVersion,
    };
    if matches!(
        e.kind(),
        DisplayHelp | DisplayVersion | DisplayHelpOnMissingArgumentOrSubcommand
    ) {
        return match printed(e.print()) {
            Ok(()) => ExitCode::from(if e.use_stderr() { 2 } else { 0 }),
            Err(e) => {
                tell!("nextscale: {e}");
                ExitCode::from(e.exit_code())
            }
        };
    }
    let text = e.to_string();
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| {
            !l.is_empty() && !l.starts_with("Usage:") && !l.starts_with("For more information")
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let (between, line) = match line.strip_prefix("tip: ") {
            Some(tip) => ("; ", tip),
            None => (" ", line),
        };
        text.push_str(if text.is_empty() { "" } else { between });
        text.push_str(line);
    }
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let in_words = [
        ("invalid float literal", "give a number"),
        ("invalid digit found in string", "give a whole number"),
    ];
    let known = in_words.iter().find_map(|(std, own)| {
        let before = text.strip_suffix(std)?;
        Some(format!("{before}{own}"))
    });
    let text = known.as_deref().unwrap_or(text);
    tell!("nextscale: {text} (see nextscale {}--help)", subcommand());
    ExitCode::from(2)
}
