//! Where the field gets its networks, and what a file that is none of them seems to be.

use std::path::Path;

use crate::Error;

/// A file that was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// What it is called.
    pub name: &'static str,
    /// Where it is.
    pub url: &'static str,
    /// Its SHA-256 in hexadecimal digits, where it is known.
    pub sha256: Option<&'static str>,
}

impl Release {
    /// Its name, where it is and its sum.
    pub fn words(&self) -> String {
        let Self { name, url, sha256 } = self;
        match sha256 {
            Some(sum) => format!("{name} (SHA-256 {sum}) from {url}"),
            None => format!("{name} from {url}"),
        }
    }
}

/// The network of all Inception files, in words.
pub(super) const INCEPTION: &str = "the Inception of 2015-12-05 that scores use";

/// Of `pytorch-fid`; `torch-fidelity` has the same under a name with `weights-` for `pt_`.
pub(super) const PTH: Release = Release {
    name: "pt_inception-2015-12-05-6726825d.pth",
    url: "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    sha256: Some("6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"),
};
/// Of NVIDIA's metrics and `clean-fid`.
pub(super) const SCRIPT: Release = Release {
    name: "inception-2015-12-05.pt",
    url: "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    sha256: Some("f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"),
};
/// Of ADM's evaluations. No published sum of it was found.
pub(super) const GRAPH: Release = Release {
    name: "classify_image_graph_def.pb",
    url: "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/ref_batches/classify_image_graph_def.pb",
    sha256: None,
};
/// torchvision's VGG-16, on which LPIPS stands.
pub const VGG16: Release = Release {
    name: "vgg16-397923af.pth",
    url: "https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256: Some("397923af8e79cdbb6a7127f12361acd7a2f83e06b05044ddf496e83de57a5bf0"),
};
/// The heads of LPIPS for VGG-16, version 0.1.
pub const LPIPS_HEADS: Release = Release {
    name: "vgg.pth",
    url: "the PyPI package lpips 0.1.4 (lpips/weights/v0.1/vgg.pth)",
    sha256: Some("a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868"),
};

/// There is no file where one of this release was to be.
pub(super) fn missing(path: &Path, release: &Release) -> Error {
    Error::input(format!(
        "{}: there is no such file; get {}",
        path.display(),
        release.words()
    ))
}

/// There is no file where a network of features was to be.
pub(super) fn missing_features(path: &Path) -> Error {
    match path.extension().and_then(|end| end.to_str()) {
        Some("pb") => missing(path, &GRAPH),
        Some("pt") => missing(path, &SCRIPT),
        Some("pth") => missing(path, &PTH),
        _ => Error::input(format!(
            "{}: there is no such file; {}",
            path.display(),
            where_features_come_from()
        )),
    }
}

/// How somebody comes by a network of features; the end of a sentence.
pub fn where_features_come_from() -> String {
    format!(
        "make features of your own classes with `nextscale train-features`, or get {}",
        PTH.words()
    )
}

/// Tensors by which networks are told, and what they are.
const KNOWN: [(&[&str], &str); 8] = [
    (
        &["features.0.weight", "features.28.weight"],
        "VGG-16, on which LPIPS stands",
    ),
    (&["lin0.model.1.weight"], "the heads of LPIPS"),
    (&["layer1.0.conv1.weight", "conv1.weight"], "a ResNet"),
    (&["visual.conv1.weight"], "a CLIP"),
    (&["word_embed.weight"], "a VAR transformer"),
    (&["quantize.embedding.weight"], "a VAR tokenizer"),
    (&["features.0.weight"], "an AlexNet, a VGG or their like"),
    (&["patch_embed.proj.weight"], "a vision transformer"),
];

/// What tensors of these names seem to be, and what was wanted, in words and as a file; completes a sentence that begins with the
/// file's name.
pub(super) fn what<'a>(
    names: impl Iterator<Item = &'a str>,
    wanted: &str,
    release: &Release,
) -> String {
    let names: Vec<&str> = names.collect();
    // Behind the names of modules around it.
    let ends = |name: &&str| {
        names.iter().any(|n| {
            n.strip_suffix(name)
                .is_some_and(|w| w.is_empty() || w.ends_with('.'))
        })
    };
    let known = KNOWN.iter().find(|(telling, _)| telling.iter().all(ends));
    let found = match (known, names.first()) {
        (Some((_, what)), _) => format!("seems to be {what}"),
        (None, None) => "holds no tensors".to_owned(),
        (None, Some(first)) => {
            let first: String = first.chars().take(80).collect();
            format!(
                "holds {} tensors, of which the first is {first:?}",
                names.len()
            )
        }
    };
    format!("{found}, and not {wanted}; get {}", release.words())
}
