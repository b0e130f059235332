//! The networks whose features are compared, from their files.

use super::network::open_inception;
use super::{Method, Protocol};
use crate::Result;
use crate::checkpoint::classifier::TrainedClassifier;
use crate::format::sha256_of;
use crate::model::inception::Inception;
use nextscale_tensor::{Device, Math};
use serde::Serialize;
use std::path::Path;

/// A network.
pub enum Network {
    /// Inception, as the protocols use it.
    Inception(Box<Inception>),
    /// A classifier of `train-features`.
    Own(Box<TrainedClassifier>),
}

/// A network, and what a report says of it.
pub struct OpenNetwork {
    /// The network.
    pub network: Network,
    /// What it is.
    pub facts: NetworkFacts,
}

/// What a report says of a network.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NetworkFacts {
    /// The file.
    pub file: String,
    /// What it is, in words.
    pub kind: String,
    /// The file's SHA-256.
    pub sha256: String,
    /// Whether it is the file that was published, where that can be known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub published: Option<bool>,
    /// What to know of numbers that it gives.
    #[serde(skip)]
    pub remark: Option<String>,
}

impl OpenNetwork {
    /// Opens a network, told by the file's content.
    ///
    /// # Errors
    /// One line naming the file when it is missing, damaged or of something else.
    pub fn open(path: &Path) -> Result<Self> {
        let file = path.display().to_string();
        if TrainedClassifier::is_in(path) {
            let own = TrainedClassifier::open(path)?;
            let kind = format!(
                "a classifier of {} classes at {} px (train-features)",
                own.class_names.len(),
                own.classifier.config.side
            );
            return Ok(Self {
                network: Network::Own(Box::new(own)),
                facts: NetworkFacts {
                    file,
                    kind,
                    sha256: sha256_of(path)?,
                    published: None,
                    remark: None,
                },
            });
        }
        let (net, info) = open_inception(path)?;
        Ok(Self {
            network: Network::Inception(Box::new(net)),
            facts: NetworkFacts {
                file,
                kind: info.kind.words().to_owned(),
                published: info.is_published(),
                remark: info.remark(),
                sha256: info.sha256,
            },
        })
    }
}

impl Network {
    /// Moves it to where it computes.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device, math: Math) -> Result<()> {
        match self {
            Self::Inception(net) => net.to_device(device, math),
            Self::Own(own) => own.classifier.to_device(device, math),
        }
    }

    /// What it can be used for: by each of the protocols, or, a classifier, for features of its own.
    pub fn methods(&self, protocols: &[Protocol]) -> Vec<Method<'_>> {
        match self {
            Self::Inception(net) => {
                let of = |protocol: &Protocol| Method::Inception(net, *protocol);
                protocols.iter().map(of).collect()
            }
            Self::Own(own) => vec![Method::Own(own)],
        }
    }

    /// Whether its features are those of some folder's own classes: what they give is no FID.
    pub fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }

    /// Arithmetic of its products.
    pub fn math(&self) -> Math {
        match self {
            Self::Inception(net) => net.math,
            Self::Own(own) => own.classifier.math,
        }
    }

    /// The names of its classes, where these are pictures' own.
    pub fn class_names(&self) -> Option<&[String]> {
        match self {
            Self::Inception(_) => None,
            Self::Own(own) => Some(&own.class_names),
        }
    }
}
