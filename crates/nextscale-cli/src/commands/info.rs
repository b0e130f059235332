//! `nextscale info`: what a checkpoint is.

use nextscale::checkpoint::inspect::describe;
use nextscale::{Result, say};
use std::path::PathBuf;

/// Flags of `info`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    /// Checkpoints: .safetensors or .pth
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    for (i, file) in args.files.iter().enumerate() {
        if i > 0 {
            say!("")?;
        }
        let description = describe(file)?.to_string();
        for line in description.lines().chain([""]) {
            say!("{line}")?;
        }
    }
    Ok(())
}
