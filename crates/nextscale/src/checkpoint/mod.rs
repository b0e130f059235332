//! Reading and writing weights and training state.
pub mod atomic;
pub mod host;
pub mod safetensors;
pub mod state_dict;
