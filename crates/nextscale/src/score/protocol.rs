//! The protocols by which papers compute their numbers: what each does to pictures before the network, and which numbers it knows.

use super::inception_score::{pieces, runs};
use super::numpy_random::permutation;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A way to compute numbers, with whose results alone they can be compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    #[default]
    /// The evaluator of guided diffusion (Dhariwal and Nichol 2021), by which most papers on ImageNet report, VAR's too
    Adm,
    /// The package torch-fidelity
    TorchFidelity,
    /// The package pytorch-fid
    PytorchFid,
    /// The package clean-fid (Parmar et al. 2022)
    CleanFid,
}

/// How pictures get the network's size and range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preparation {
    /// As TensorFlow 1 resizes by default: bilinear, output i at i·H/299, without half-pixel centres; then (v − 128)/128.
    AsymmetricBilinear,
    /// Bilinear between half-pixel centres, without antialiasing; then 2v − 1 of v in \[0, 1\].
    Bilinear,
    /// Pillow's bicubic of floats, with antialiasing, limited to 0 to 255; then (v − 128)/128.
    FloatBicubic,
}

/// Numbers that a protocol knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Fréchet distance of the features' normal distributions
    Fid,
    /// The same of spatial features
    Sfid,
    /// Inception score
    Is,
    /// Precision and recall by three nearest neighbours
    Pr,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Fid, Self::Sfid, Self::Is, Self::Pr];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fid => "fid",
            Self::Sfid => "sfid",
            Self::Is => "is",
            Self::Pr => "pr",
        }
    }

    /// Whether it holds samples against a reference.
    pub fn needs_reference(self) -> bool {
        self != Self::Is
    }
}

/// Splits of torch-fidelity's Inception score, and the seed of the order in which it deals images to them.
const TORCH_FIDELITY_SPLITS: usize = 10;
const TORCH_FIDELITY_SEED: u32 = 2020;
/// Images in a split of guided diffusion's Inception score.
const ADM_SPLIT: usize = 5000;

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Adm,
        Self::TorchFidelity,
        Self::PytorchFid,
        Self::CleanFid,
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adm => "adm",
            Self::TorchFidelity => "torch-fidelity",
            Self::PytorchFid => "pytorch-fid",
            Self::CleanFid => "clean-fid",
        }
    }

    /// What it does to pictures before the network.
    pub fn preparation(self) -> Preparation {
        match self {
            Self::Adm | Self::TorchFidelity => Preparation::AsymmetricBilinear,
            Self::PytorchFid => Preparation::Bilinear,
            Self::CleanFid => Preparation::FloatBicubic,
        }
    }

    /// The numbers that it knows.
    pub fn metrics(self) -> &'static [Metric] {
        match self {
            Self::Adm => &[Metric::Fid, Metric::Sfid, Metric::Is, Metric::Pr],
            Self::TorchFidelity => &[Metric::Fid, Metric::Is, Metric::Pr],
            Self::PytorchFid | Self::CleanFid => &[Metric::Fid],
        }
    }

    /// The split of the Inception score that each of `n` images belongs to; `None` where the protocol knows no such score.
    pub fn splits(self, n: usize) -> Option<Vec<u32>> {
        match self {
            Self::Adm => Some(runs(n, ADM_SPLIT)),
            Self::TorchFidelity => {
                let order = permutation(TORCH_FIDELITY_SEED, n);
                Some(pieces(n, TORCH_FIDELITY_SPLITS, Some(&order)))
            }
            Self::PytorchFid | Self::CleanFid => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
