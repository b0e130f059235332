//! Training: options, schedules, optimizer state, and one step of each trainer.
pub mod codebook_usage;
pub mod device;
pub mod flags;
pub mod loss_scale;
pub mod optimizer;
pub mod options;
#[cfg(test)]
mod options_tests;
pub mod plan;
pub mod progressive;
pub mod recipes;
mod reference_flags;
pub mod report;
pub mod schedule;
pub mod tokenizer_options;
#[cfg(test)]
mod tokenizer_options_tests;
pub mod tokenizer_trainer;
pub mod var_trainer;
