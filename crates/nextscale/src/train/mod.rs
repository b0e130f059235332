//! Training: options, schedules, optimizer state and the loops.
