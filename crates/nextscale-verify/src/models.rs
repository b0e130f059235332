//! The models of a bundle: weights from its files, options from its JSON, sizes from the tensors.

use super::folder::Folder;
use super::machine::Machine;
use super::report::Report;
use nextscale::checkpoint::open::vqvae_config;
use nextscale::checkpoint::{Loaded, load_weights};
use nextscale::format::StateDict;
use nextscale::format::outline::Outline;
use nextscale::model::Pyramid;
use nextscale::model::state::{hit_averages, load_var, load_vqvae, params_state, vqvae_state};
use nextscale::model::var::state_dict::add_reference_buffers;
use nextscale::model::var::{Var, VarConfig};
use nextscale::model::vqvae::state_dict::{HITS, VaeShape};
use nextscale::model::vqvae::{Vqvae, VqvaeConfig};
use nextscale::{Error, Result};
use nextscale_tensor::Math;
use serde_json::Value as Json;

/// What names of weight files end in, before their extension.
const WEIGHTS: &str = "weights";

/// Stems of the folder's weight files, each once.
pub(super) fn weight_stems(folder: &Folder) -> Vec<String> {
    let mut out: Vec<String> = [".safetensors", ".pth"]
        .iter()
        .flat_map(|e| folder.stems(e))
        .filter(|s| s.ends_with(WEIGHTS))
        .map(str::to_owned)
        .collect();
    out.sort();
    out.dedup();
    out
}

/// The weights of one file, `.safetensors` where both formats are there, and what messages call it.
pub(super) fn weights(folder: &Folder, stem: &str) -> Result<(StateDict, String)> {
    let name = [".safetensors", ".pth"]
        .iter()
        .map(|e| format!("{stem}{e}"))
        .find(|n| folder.has(n))
        .ok_or_else(|| {
            Error::input(format!(
                "{}: holds neither {stem}.safetensors nor {stem}.pth",
                folder.path().display()
            ))
        })?;
    read(folder, &name)
}

fn read(folder: &Folder, name: &str) -> Result<(StateDict, String)> {
    let source = folder.file(name).display().to_string();
    match folder.with_file(name, |p| load_weights(p))? {
        Loaded::Weights(w) => Ok((w.tensors, source)),
        Loaded::Trainer(_) => Err(Error::input(format!(
            "{source}: is a training checkpoint, expected one model's weights"
        ))),
    }
}

/// Compares every weight file with its twin of the other format, bit for bit.
pub(super) fn check_formats(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    for stem in weight_stems(folder) {
        let (a, b) = (format!("{stem}.safetensors"), format!("{stem}.pth"));
        if !folder.has(&a) || !folder.has(&b) {
            continue;
        }
        let ((safe, _), (pth, _)) = (read(folder, &a)?, read(folder, &b)?);
        same_tensors(format!("{b} = {a}"), &pth, &safe, report);
    }
    Ok(())
}

/// Whether two state dicts hold the same tensors, in whatever order, bit for bit.
pub(super) fn same_tensors(
    quantity: String,
    got: &StateDict,
    want: &StateDict,
    report: &mut Report<'_>,
) {
    let odd = want
        .names()
        .find(|n| got.get(n) != want.get(n))
        .or_else(|| got.names().find(|n| !want.contains(n)));
    let note = match odd {
        Some(name) => format!("tensor {name} differs"),
        None => format!("{} tensors", want.len()),
    };
    report.fact(quantity, odd.is_none(), note);
}

/// The tokenizer of a `vae` bundle.
pub(super) struct Tokenizer {
    machine: Machine,
    /// What messages call the weights' file.
    source: String,
    /// The weights.
    pub(super) dict: StateDict,
    /// The bundle's `config.json`, or null.
    pub(super) config: Json,
    base: VqvaeConfig,
}

impl Tokenizer {
    /// Reads options and weights of a `vae` bundle.
    pub(super) fn open(folder: &Folder) -> Result<Self> {
        let stem = weight_stems(folder).into_iter().next().ok_or_else(|| {
            Error::input(format!(
                "{}: holds no weights (*_weights.safetensors or .pth)",
                folder.path().display()
            ))
        })?;
        let (dict, source) = weights(folder, &stem)?;
        let config = if folder.has("config.json") {
            folder.json("config.json")?
        } else {
            Json::Null
        };
        let base = tokenizer_config(&dict, &source, &config["vae"])?;
        Ok(Self {
            machine: folder.machine,
            source,
            dict,
            config,
            base,
        })
    }

    /// A tokenizer out of a training checkpoint, which states none of its options: the published ones are taken.
    pub(super) fn of_dict(
        machine: Machine,
        dict: StateDict,
        source: String,
        options: &Json,
    ) -> Result<Self> {
        let base = tokenizer_config(&dict, &source, options)?;
        Ok(Self {
            machine,
            source,
            dict,
            config: Json::Null,
            base,
        })
    }

    /// The options under `vae` in `config.json`.
    pub(super) fn options(&self) -> &Json {
        &self.config["vae"]
    }

    /// The scales of a case as `config.json` states them.
    pub(super) fn scales_of(&self, case: &str) -> Result<Option<Pyramid>> {
        match &self.config[case]["v_patch_nums"] {
            Json::Null => Ok(None),
            list => Ok(Some(pyramid(
                list,
                &format!("config.json, {case}.v_patch_nums"),
            )?)),
        }
    }

    /// The same, computing in float32: recorded runs of transformers got their tokens so, and other tokens are another task.
    pub(super) fn in_float32(mut self) -> Self {
        self.machine.tokenizer = Math::FULL;
        self
    }

    /// Codebook size.
    pub(super) fn vocab(&self) -> usize {
        self.base.vocab
    }

    /// Whether codes are searched by cosine.
    pub(super) fn znorm(&self) -> bool {
        self.base.using_znorm
    }

    /// The model with these scales.
    pub(super) fn build(&self, pyramid: &Pyramid, trainable: bool) -> Result<Vqvae> {
        let config = VqvaeConfig {
            pyramid: pyramid.clone(),
            ..self.base.clone()
        };
        let mut model = Vqvae::new(config, trainable)?;
        load_vqvae(&mut model, &self.dict, &self.source)?;
        model.to_device(self.machine.device, self.machine.tokenizer)?;
        Ok(model)
    }

    /// Compares the model's own state dict with the file.
    pub(super) fn check_state(&self, model: &Vqvae, report: &mut Report<'_>) -> Result<()> {
        let rows = self
            .dict
            .get(HITS)
            .map_or(0, |t| t.shape.first().copied().unwrap_or(0));
        let hits = hit_averages(&self.dict, rows, self.base.vocab);
        let mut got = vqvae_state(model, &hits)?;
        if !self.dict.contains(HITS) {
            got = got
                .iter()
                .filter(|(n, _)| *n != HITS)
                .map(|(n, t)| (n.to_owned(), t.clone()))
                .collect();
        }
        same_tensors("weights in and out".into(), &got, &self.dict, report);
        Ok(())
    }
}

fn tokenizer_config(dict: &StateDict, source: &str, options: &Json) -> Result<VqvaeConfig> {
    let shape = VaeShape::infer(&Outline::from(dict))
        .map_err(|e| Error::input(format!("{source}: {e}")))?;
    let published = vqvae_config(&shape, Pyramid::square(&[1])?);
    let number = |key: &str, default: f32| options[key].as_f64().map_or(default, |v| v as f32);
    Ok(VqvaeConfig {
        dropout: number("dropout", published.dropout),
        beta: number("beta", published.beta),
        using_znorm: options["using_znorm"]
            .as_bool()
            .unwrap_or(published.using_znorm),
        // Without φ in the file there is nothing to blend, whatever is stated.
        quant_resi: if published.quant_resi == 0.0 {
            0.0
        } else {
            number("quant_resi", published.quant_resi)
        },
        ..published
    })
}

/// Scales from a list of sides or of (height, width) pairs. `what` names the list.
pub(super) fn pyramid(list: &Json, what: &str) -> Result<Pyramid> {
    let side = |v: &Json| {
        v.as_u64()
            .and_then(|n| usize::try_from(n).ok())
            .filter(|n| *n <= 1 << 12)
    };
    let scale = |v: &Json| match v.as_array().map(Vec::as_slice) {
        Some([h, w]) => Some((side(h)?, side(w)?)),
        Some(_) => None,
        None => side(v).map(|s| (s, s)),
    };
    let scales: Option<Vec<_>> = list.as_array().and_then(|l| l.iter().map(scale).collect());
    match scales {
        Some(s) => Pyramid::new(s),
        None => Err(Error::input(format!(
            "{what}: expected a list of patch numbers, found {list}"
        ))),
    }
}

/// Scales from numbers of tokens, each the square of a side.
pub(super) fn pyramid_of_lengths(lengths: &[usize], what: &str) -> Result<Pyramid> {
    let sides: Option<Vec<usize>> = lengths
        .iter()
        .map(|&l| {
            let side = l.isqrt();
            (side * side == l).then_some(side)
        })
        .collect();
    match sides {
        Some(s) => Pyramid::square(&s),
        None => Err(Error::input(format!(
            "{what}: token maps of {lengths:?} are not all square, and no patch numbers are stated"
        ))),
    }
}

/// A transformer from weights, on a machine. `options` is its entry in `config.json`, or null.
pub(super) fn transformer(
    machine: Machine,
    dict: &StateDict,
    source: &str,
    options: &Json,
    trainable: bool,
) -> Result<Var> {
    let bad = |why: String| Error::input(format!("{source}: {why}"));
    let dims = |name: &str, axis: usize| {
        dict.get(name)
            .and_then(|t| t.shape.get(axis).copied())
            .ok_or_else(|| bad(format!("lacks the tensor {name}, or it has too few axes")))
    };
    let option = |key: &str| options[key].as_u64().and_then(|n| usize::try_from(n).ok());
    let width = dims("word_embed.weight", 0)?;
    let count =
        |name: &dyn Fn(usize) -> String| (0..).take_while(|&i| dict.contains(&name(i))).count();
    let depth = count(&|i| format!("blocks.{i}.attn.proj.weight"));
    let heads = match dict.get("blocks.0.attn.scale_mul_1H11") {
        Some(t) => t.shape.iter().product(),
        None => option("num_heads").unwrap_or(width / 64),
    };
    if heads == 0 || width % heads != 0 {
        return Err(bad(format!(
            "{heads} heads do not divide a width of {width}"
        )));
    }
    if let Some(eps) = options["norm_eps"].as_f64().filter(|&e| e != 1e-6) {
        return Err(bad(format!(
            "norm_eps is {eps}; only 1e-6, the reference's value, is supported"
        )));
    }
    let pyramid = match &options["patch_nums"] {
        Json::Null => {
            let levels = dict
                .get("lvl_1L")
                .ok_or_else(|| bad("states no patch numbers: neither config.json nor the buffer lvl_1L is there".into()))?
                .to_i64_vec()?;
            let lengths: Vec<usize> = levels.chunk_by(|a, b| a == b).map(<[i64]>::len).collect();
            pyramid_of_lengths(&lengths, source)?
        }
        list => pyramid(list, source)?,
    };
    let config = VarConfig {
        depth,
        heads,
        head_dim: width / heads,
        classes: dims("class_emb.weight", 0)?.saturating_sub(1),
        vocab: dims("head.weight", 0)?,
        cvae: dims("word_embed.weight", 1)?,
        pyramid,
        shared_aln: dict.contains("shared_ada_lin.1.weight"),
        attn_l2_norm: dict.contains("blocks.0.attn.scale_mul_1H11"),
        mlp_ratio: dims("blocks.0.ffn.fc1.weight", 0)? as f64 / width as f64,
        drop_path: 0.0,
        class_drop: 0.0,
    };
    let mut model = Var::new(config, trainable)?;
    load_var(&mut model, dict, source)?;
    model.to_device(machine.device, machine.math)?;
    Ok(model)
}

/// Compares a transformer's own state dict, buffers included, with the file's.
pub(super) fn check_var_state(
    label: &str,
    model: &Var,
    dict: &StateDict,
    report: &mut Report<'_>,
) -> Result<()> {
    let mut got = params_state(&model.params)?;
    if let Some(sides) = model.config.pyramid.sides() {
        add_reference_buffers(&mut got, &sides)?;
    }
    // Files of ours carry no buffers.
    let got: StateDict = got
        .iter()
        .filter(|(n, _)| dict.contains(n) || model.params.info(n).is_some())
        .map(|(n, t)| (n.to_owned(), t.clone()))
        .collect();
    same_tensors(format!("{label}weights in and out"), &got, dict, report);
    Ok(())
}
