//! The options of both trainers, and what follows from them.
//!
//! An option stands in one place: its meaning, its type, its default and how a command line reads it. Those that both trainers have
//! are in groups ([`DataOptions`], [`ScheduleOptions`], [`OutputOptions`], [`MachineOptions`]); a field is the flag of the same
//! name. [`TransformerOptions::resolve`] and [`TokenizerOptions::resolve`] check them and work out what depends on others.

/// Declares a struct of options: groups of fields under the heading that a command's help gives them, then other structs whose
/// fields are taken in. In brackets stands what a command line needs to read a field beside its type.
macro_rules! options {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $(in $heading:literal {
                $(
                    $(#[$field_meta:meta])*
                    $([$($arg:tt)*])?
                    $field:ident: $ty:ty $(= $default:expr)? $(, or $hand:expr)?;
                )*
            })*
            $(with {
                $(
                    $(#[$flat_meta:meta])*
                    $flat:ident: $flat_ty:ty $(= $flat_default:expr)?;
                )*
            })?
        }
    ) => {
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[cfg_attr(feature = "cli", derive(clap::Args))]
        #[serde(default)]
        #[cfg_attr(feature = "cli", command(rename_all = "snake_case"))]
        $(#[$meta])*
        pub struct $name {
            $($(
                $(#[$field_meta])*
                #[cfg_attr(feature = "cli", arg(
                    long, help_heading = $heading, $(default_value_t = $default,)? $($($arg)*)?
                ))]
                pub $field: $ty,
            )*)*
            $($(
                $(#[$flat_meta])*
                #[serde(flatten)]
                #[cfg_attr(feature = "cli", command(flatten))]
                pub $flat: $flat_ty,
            )*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($($field: $crate::options::or_none!($($default)? $($hand)?),)*)*
                    $($($flat: $crate::options::or_default!($($flat_default)?),)*)?
                }
            }
        }
    };
}

/// A default, or nothing where there is none.
macro_rules! or_none {
    () => {
        None
    };
    ($default:expr) => {
        $default
    };
}

/// A default, or the type's own.
macro_rules! or_default {
    () => {
        Default::default()
    };
    ($default:expr) => {
        $default
    };
}

pub(crate) use {or_default, or_none};

pub(crate) mod check;
#[cfg(feature = "cli")]
mod given;
mod groups;
mod plan;
pub mod precision;
mod recipes;
#[cfg(feature = "cli")]
mod reference_flags;
mod sizes;
mod tokenizer;
#[cfg(feature = "cli")]
mod tokenizer_args;
#[cfg(all(test, feature = "cli"))]
mod tokenizer_tests;
mod transformer;
#[cfg(feature = "cli")]
mod transformer_args;
#[cfg(all(test, feature = "cli"))]
mod transformer_tests;
pub mod values;

#[cfg(feature = "cli")]
pub use given::Given;
pub use groups::{
    CanvasOptions, DataOptions, FolderOptions, MachineOptions, OutputOptions, ScheduleOptions,
    ScoreOptions,
};
pub use plan::{Horizon, process_batch};
pub use recipes::Recipe;
pub use sizes::Size;
pub use tokenizer::{TokenizerOptions, TokenizerPlan};
#[cfg(feature = "cli")]
pub use tokenizer_args::TokenizerArgs;
pub use transformer::{TransformerOptions, TransformerPlan};
#[cfg(feature = "cli")]
pub use transformer_args::TransformerArgs;
