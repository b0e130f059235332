//! Images: where they come from, how they are transformed, and how batches of them reach the trainer.
