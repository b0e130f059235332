//! `nextscale info`: what a checkpoint is.

use nextscale::Result;
use nextscale::checkpoint::inspect::describe;
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
            println!();
        }
        println!("{}", describe(file)?);
    }
    Ok(())
}
