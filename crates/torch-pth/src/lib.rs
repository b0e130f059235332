//! PyTorch's `.pth` files (`torch.save`), read and written without Python: the zip format of version 1.6 and later, and, to read alone,
//! the format before it and the tensors of TorchScript programs.
//!
//! - **No pickle is run.** A pickle may name any Python function. Reading here knows a short list of names, as
//!   `torch.load(weights_only=True)` does, and builds plain [`Value`]s: numbers, text, lists, dicts, tensors.
//! - **Hostile files are bounded.** Sizes are checked against the file before memory is asked for, and everything that a pickle
//!   builds is counted against one number (128 MiB) that does not grow with the file. Damage is an error, never a panic.
//! - **What is written**, `torch.load(weights_only=True)` reads. The same content gives the same bytes.
//!
//! A file of weights is one call:
//!
//! ```
//! use torch_pth::{DType, TensorView, read_state_dict, write_state_dict};
//!
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("weights.pth");
//! let bytes: Vec<u8> = [1.0f32, 2.0, 3.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! let bias = TensorView::new(DType::F32, &[3], &bytes).expect("three numbers of four bytes");
//! write_state_dict(&path, [("fc.bias", bias)])?;
//!
//! for (name, tensor) in read_state_dict(&path)? {
//!     println!("{name}: {} {:?}, {} bytes", tensor.dtype(), tensor.shape(), tensor.data().len());
//!     # assert_eq!((name.as_str(), tensor.dtype(), tensor.shape(), tensor.data()), ("fc.bias", DType::F32, &[3][..], &bytes[..]));
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Training checkpoints hold more than weights: [`PthFile`] opens any object, whose tensors are read one by one when they are
//! asked for, and [`PthWriter`] writes any. The [`pickle`] alone is a module of its own.

// Printing is for whoever uses the library.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod archive;
mod error;
mod legacy;
mod members;
pub mod pickle;
mod read;
mod script;
mod state_dict;
mod tensor;
mod versions;
mod write;

#[cfg(test)]
mod kinds_tests;
#[cfg(test)]
mod tests;

/// The example of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

pub use archive::Archive;
pub use error::{Error, Result};
pub use legacy::{is_legacy, is_legacy_tar};
pub use pickle::{Dict, Storage, TensorRef, Value};
pub use read::PthFile;
pub use state_dict::{read_state_dict, write_state_dict};
pub use tensor::{DType, Tensor, TensorView};
pub use write::{PthWriter, folder_name};
