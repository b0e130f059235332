//! Reading and writing weights and training state.
pub mod atomic;
pub mod buffers;
pub mod host;
pub mod param_groups;
pub mod pickle;
pub mod pth;
pub mod safetensors;
pub mod state_dict;
pub mod trainer_state;

#[cfg(test)]
mod fixtures;
