//! Training: schedules, optimizer state, and one step of each trainer.
pub mod average;
pub mod classifier_trainer;
pub mod codebook_usage;
pub mod gradients;
pub mod loss_scale;
pub mod optimizer;
pub mod progressive;
pub mod report;
pub mod schedule;
pub mod tokenizer_losses;
pub mod tokenizer_trainer;
pub mod var_trainer;
