//! LPIPS from its two files: torchvision's VGG-16, and the heads of the package `lpips`.

use std::path::Path;

use super::weights_of;
use super::words::{self, LPIPS_HEADS, Release, VGG16};
use crate::Result;
use crate::format::sniff::sniff;
use crate::format::{StateDict, sha256_of};
use crate::model::lpips::Lpips;
use serde::Serialize;

/// Which files the distance came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LpipsInfo {
    /// SHA-256 of the network's file in hexadecimal digits.
    pub vgg_sha256: String,
    /// The same of the heads' file.
    pub heads_sha256: String,
}

impl LpipsInfo {
    /// Whether both are the published files.
    pub fn is_published(&self) -> bool {
        VGG16.sha256 == Some(&*self.vgg_sha256) && LPIPS_HEADS.sha256 == Some(&*self.heads_sha256)
    }

    /// What to say of distances that come of them, where that is anything.
    pub fn remark(&self) -> Option<String> {
        (!self.is_published()).then(|| {
            let part = |sum: &str| sum.get(..8).unwrap_or_default().to_owned();
            format!(
                "weights differ from the published ones of LPIPS: distances are not comparable with papers (SHA-256 {}… and {}…)",
                part(&self.vgg_sha256),
                part(&self.heads_sha256)
            )
        })
    }
}

/// Opens LPIPS (version 0.1, VGG-16) on the CPU, from `.pth` or safetensors files.
///
/// # Errors
/// One line that names the file and says what it seems to be, where it does not hold what it should; where there is no file, where one
/// gets it.
pub fn open_lpips(vgg: impl AsRef<Path>, heads: impl AsRef<Path>) -> Result<(Lpips, LpipsInfo)> {
    let (vgg, heads) = (vgg.as_ref(), heads.as_ref());
    let network = tensors(
        vgg,
        &["features.0.weight", "features.28.weight"],
        "torchvision's VGG-16",
        &VGG16,
    )?;
    let of_heads = tensors(
        heads,
        &["lin0.model.1.weight", "lin4.model.1.weight"],
        "the heads of LPIPS",
        &LPIPS_HEADS,
    )?;
    let mut lpips = Lpips::new()?;
    lpips.load(
        (&network, &vgg.display().to_string()),
        (&of_heads, &heads.display().to_string()),
    )?;
    let info = LpipsInfo {
        vgg_sha256: sha256_of(vgg)?,
        heads_sha256: sha256_of(heads)?,
    };
    Ok((lpips, info))
}

fn tensors(path: &Path, telling: &[&str], wanted: &str, release: &Release) -> Result<StateDict> {
    if matches!(path.try_exists(), Ok(false)) {
        return Err(words::missing(path, release));
    }
    let fits = |names: &[&str]| telling.iter().all(|name| names.contains(name));
    // The classifier's are four times as many.
    let needed = |name: &str| name.starts_with("features.") || name.starts_with("lin");
    weights_of(path, sniff(path)?, fits, needed, (wanted, release))
}
