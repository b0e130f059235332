//! What files of weights and training state mean: [`open`] makes models of them, [`weights`] loads either format, [`convert`] goes
//! between them, [`inspect`] describes them, [`trainer_state`] is all of a transformer's run. Names are the reference's throughout.

pub mod class_names;
pub mod classifier;
pub mod convert;
pub mod inspect;
pub mod open;
mod places;
pub mod trainer_state;
pub mod weights;

pub use trainer_state::{AdamSettings, ScalerState, TrainerConfig, TrainerState};
pub use weights::{Loaded, ModelKind, Weights, WeightsKind, load_part, load_weights};

#[cfg(test)]
mod tests;
#[cfg(test)]
mod wrapping_tests;
