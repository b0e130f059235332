//! Logits and gradients of the recorded forward passes as a file, to be compared with another program's.

use super::folder::Folder;
use super::grads::unscaled;
use super::machine::{Machine, host};
use super::models::{transformer, weight_stems, weights};
use super::var::{Batch, Options, Pass};
use super::{Bundle, Kind};
use nextscale::format::safetensors::{TextMetadata, write_safetensors};
use nextscale::format::{HostTensor, StateDict};
use nextscale::{Error, Result};
use serde_json::Value as Json;
use std::path::Path;

/// Writes, for every variant with a recorded batch in the bundles of kind `var`, `VARIANT/loss`, `VARIANT/logits` \[B, L, V\] and
/// `VARIANT/grad.PARAMETER` in the checkpoints' layout, float32. Returns how many tensors that are.
///
/// # Errors
/// When no bundle has such a batch, a bundle is damaged, or the file can't be written.
pub fn dump_gradients(bundles: &[Bundle], machine: Machine, path: &Path) -> Result<usize> {
    let mut out = StateDict::new();
    for bundle in bundles.iter().filter(|b| b.kind == Kind::Var) {
        let folder = Folder::open(&bundle.path)?.on(machine);
        let config = if folder.has("config.json") {
            folder.json("config.json")?
        } else {
            Json::Null
        };
        for stem in weight_stems(&folder) {
            let name = stem
                .strip_suffix("weights")
                .unwrap_or(&stem)
                .trim_end_matches('_');
            let batch = format!("{name}_forward.safetensors");
            if folder.has(&batch) {
                let options = &config["variants"][name];
                variant(&folder, (&stem, name, &batch), options, &mut out)?;
            }
        }
    }
    if out.is_empty() {
        return Err(Error::input(
            "--dump_grads: no folder with transformers and their recorded batches (such as fixtures/var) is among those named",
        ));
    }
    let metadata: TextMetadata = [(
        "nextscale.computed_on".to_owned(),
        format!("{} in {}", machine.device, machine.math.operands.name()),
    )]
    .into();
    write_safetensors(path, &out, &metadata)?;
    Ok(out.len())
}

fn variant(
    folder: &Folder,
    (stem, name, batch): (&str, &str, &str),
    options: &Json,
    out: &mut StateDict,
) -> Result<()> {
    let (dict, source) = weights(folder, stem)?;
    let var = transformer(folder.machine, &dict, &source, options, true)?;
    let batch = Batch::read(&folder.tensors(batch)?, &var)?;
    let pass = Pass::run(&var, &batch, &Options::default())?;
    let label = |what: &str| format!("{name}/{what}");
    out.insert(label("loss"), HostTensor::from_f32(&[1], &[pass.loss])?);
    if let Some(logits) = pass.seen.get("logits") {
        let logits = host(logits)?;
        out.insert(
            label("logits"),
            HostTensor::from_f32(logits.dims(), logits.f32()?)?,
        );
    }
    for info in var.params.infos() {
        let values = unscaled(&pass.grads, info, pass.scale)?;
        let tensor = HostTensor::from_f32(info.shape.dims(), &values)?;
        out.insert(label(&format!("grad.{}", info.name)), tensor);
    }
    Ok(())
}
