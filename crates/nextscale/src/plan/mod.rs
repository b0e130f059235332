//! What a training of the transformer takes on GPUs that need not be there: memory by part, the time of a step, days.
//!
//! Memory and work come from a dry run of the very training step ([`memory`](crate::memory)): what operators ask for and what they
//! have to do. Times follow from that work and a GPU's ceilings by the share of them that each operator reaches
//! ([`efficiency`]), which was measured, and from the sums over processes by the bandwidth between them ([`cluster`]). Nothing is
//! run, so a plan is a prediction; `docs/scaling.md` says how good it is.

pub mod cluster;
pub mod efficiency;
pub mod gpus;

mod choice;
mod memory;
mod model;
mod step;
mod words;

pub use choice::{Plan, Setting, Wishes, plan};
pub use cluster::Cluster;
pub use gpus::Kind;
pub use memory::MemoryParts;
pub use model::{Model, Tokens};
pub use step::StepTime;
pub use words::{kinds, table};

#[cfg(test)]
mod tests;
