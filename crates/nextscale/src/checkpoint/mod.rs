//! Reading and writing weights and training state.
pub mod atomic;
pub mod host;
pub mod pickle;
pub mod pth;
pub mod safetensors;
pub mod state_dict;

#[cfg(test)]
mod fixtures;
