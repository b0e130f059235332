//! What a run leaves behind: step lines, epoch log, TensorBoard events and the live display.
