//! The network of the perceptual loss, from its files.

use crate::checkpoint::classifier::TrainedClassifier;
use crate::model::perceptual::{COMPARING, FeatureDistance, Perceptual};
use crate::options::TokenizerOptions;
use crate::score::network::open_lpips;
use crate::{Error, Result};
use nextscale_tensor::Device;

/// The network that the options name, if any, where it computes, with what there is to say of it.
///
/// # Errors
/// One line for a file that is another network, or images that are too small for it.
pub(super) fn open(
    o: &TokenizerOptions,
    (side, device): (usize, Device),
) -> Result<Option<(Perceptual, Vec<String>)>> {
    let Some(file) = &o.perceptual else {
        return Ok(None);
    };
    let mut told = Vec::new();
    let network = if TrainedClassifier::is_in(file) {
        if let Some(heads) = &o.lpips {
            let why = format!(
                "these are heads of VGG-16's maps, and `perceptual`={} is a classifier, which needs none; leave them out",
                file.display()
            );
            return Err(Error::field("lpips", heads.display(), why));
        }
        let own = TrainedClassifier::open(file)?;
        Perceptual::Features(Box::new(FeatureDistance::new(own.classifier)?))
    } else {
        let Some(heads) = &o.lpips else {
            return Err(Error::field(
                "perceptual",
                file.display(),
                "expected a file of `nextscale train-features`, or VGG-16 (vgg16-397923af.pth) and with it the heads of LPIPS (`lpips`=vgg.pth)",
            ));
        };
        let (lpips, info) = open_lpips(file, heads)?;
        told.extend(info.remark());
        Perceptual::Lpips(Box::new(lpips))
    };
    if side < network.smallest() {
        return Err(Error::field(
            "perceptual",
            file.display(),
            format!(
                "{} compares images of {} pixels or more, and these have {side}",
                network.words(),
                network.smallest()
            ),
        ));
    }
    told.insert(
        0,
        format!("images are also compared by {}", network.words()),
    );
    Ok(Some((network.to_device(device, COMPARING.math())?, told)))
}
