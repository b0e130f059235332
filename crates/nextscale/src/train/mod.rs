//! Training: options, schedules, optimizer state and the loops.
pub mod decay;
pub mod loss_scale;
pub mod progressive;
pub mod schedule;
