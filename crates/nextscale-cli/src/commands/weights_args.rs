//! The flag of every command that reads weights of which a file may hold an average.

use nextscale::checkpoint::WeightsKind;

/// Which weights to take.
#[derive(clap::Args)]
pub struct WeightsArgs {
    /// Averaged weights (of a run with --ema) or those that were trained; without it averaged ones where the file holds them
    #[arg(long = "weights", value_enum)]
    pub kind: Option<WeightsKind>,
}
