//! Reading and writing weights and training state.
//!
//! Two file formats: [`safetensors`], which nextscale writes, and PyTorch's `.pth`, which the reference reads and writes (the
//! crate [`torch_pth`]). [`weights`] loads either, [`convert`]
//! goes between them, [`inspect`] describes them. [`trainer_state`] is all of a training run. Names are the
//! reference's throughout. Every file is written whole or not at all ([`atomic`]).

pub mod atomic;
pub mod buffers;
pub mod class_names;
pub mod convert;
pub mod host;
pub mod inspect;
pub mod load_into;
pub mod outline;
pub mod param_groups;
mod places;
mod pth;
pub mod run_file;
pub mod safetensors;
pub mod shapes;
pub mod sniff;
pub mod state_dict;
pub mod trainer_state;
pub mod weights;

pub use atomic::{clean_stale, write_atomic};
pub use host::{HostDType, HostTensor};
pub use load_into::{load_into, match_tensors};
pub use shapes::{PhiKind, VaeShape, VarShape};
pub use state_dict::StateDict;
pub use trainer_state::{AdamSettings, ScalerState, TrainerConfig, TrainerState};
pub use weights::{Kind, Loaded, Part, Weights, load_part, load_weights};

#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wrapping_tests;
