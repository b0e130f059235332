//! What goes with a folder of pictures and a machine: which recipe, how long a step takes here, how many steps fit into a time.

mod choice;
mod facts;
mod timing;
mod words;

pub use crate::text::shell_word;
#[cfg(feature = "cli")]
pub(crate) use choice::{choose_tokenizer, choose_transformer};
pub use choice::{epochs, recipe};
pub use facts::Facts;
pub(crate) use timing::time_classifier;
pub use timing::{StepTime, time_tokenizer, time_transformer};
pub(crate) use words::at_start;
pub use words::{describe, expected, for_whom};
