//! The `nextscale` command.
fn main() {}
