//! Where in a file the weights of the two models lie, and under what names.
//!
//! People save weights in many wrappings: a dict under `state_dict`, `model` or `ema`, both models in one `trainer`, one module
//! that holds the transformer as `var`, and with the prefixes of DDP, FSDP or `torch.compile`. All of these are one thing here: names with dots.
//! A model lies wherever the names that tell it do, once what wrappers put in is taken out.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use super::weights::{ModelKind, NO_AVERAGE, WeightsKind};
use crate::Result;
use crate::format::pth::PthFile;
use crate::format::state_dict::StateDict;
use crate::model::var::state_dict::VarShape;
use crate::model::vqvae::state_dict::VaeShape;
use torch_pth::{Dict, TensorRef, Value};

/// What PyTorch's wrappers of modules put into names: data parallelism, `torch.compile`, FSDP, recomputed activations.
const WRAPPERS: [&str; 4] = [
    "module",
    "_orig_mod",
    "_fsdp_wrapped_module",
    "_checkpoint_wrapped_module",
];

/// The count that averaging wrappers keep beside the weights.
const AVERAGED: &str = "n_averaged";

/// Parts of names under which an optimizer keeps tensors named as weights.
const OF_OPTIMIZER: [&str; 3] = ["exp_avg", "exp_avg_sq", "pending"];

/// Models in a file at most; a file with more is no checkpoint.
const MOST_MODELS: usize = 64;

/// A name without what wrappers put in.
fn unwrapped(name: &str) -> Cow<'_, str> {
    if !name.split('.').any(|s| WRAPPERS.contains(&s)) {
        return Cow::Borrowed(name);
    }
    let kept: Vec<&str> = name.split('.').filter(|s| !WRAPPERS.contains(s)).collect();
    Cow::Owned(kept.join("."))
}

/// One model among a file's tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Which model.
    pub(super) part: ModelKind,
    /// What its names begin with, with a dot at the end; empty where they stand alone.
    pub(super) root: String,
    /// Each tensor's name in the file, and in the model.
    pub(super) names: Vec<(String, String)>,
}

impl Place {
    /// Where it is, for messages.
    pub(super) fn shown(&self) -> &str {
        match self.root.trim_end_matches('.') {
            "" => "the top",
            root => root,
        }
    }

    /// Whether these are averaged weights: `ema`, `model_ema` and the like, but neither `schema` nor `no_ema`.
    fn is_averaged(&self) -> bool {
        let words = words(&self.root);
        let denied = |i: usize| {
            let no = ["no", "non", "not", "without", "wo"];
            i > 0 && no.contains(&words[i - 1].as_str())
        };
        (0..words.len()).any(|i| words[i] == "ema" && !denied(i))
    }

    /// Whether the file's names are the model's, behind the root.
    fn is_plain(&self) -> bool {
        let plain = |(from, to): &(String, String)| from.strip_prefix(&self.root) == Some(to);
        self.names.iter().all(plain)
    }
}

/// The words of a name, in small letters: `modelEMA` has two, as `model_ema` has.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut small = false;
    for c in name.chars() {
        if !c.is_alphabetic() || small && c.is_uppercase() {
            words.push(String::new());
        }
        if c.is_alphabetic()
            && let Some(word) = words.last_mut()
        {
            word.extend(c.to_lowercase());
        }
        small = c.is_lowercase();
    }
    words.retain(|word| !word.is_empty());
    words
}

/// All models among tensors of these names. The error completes a sentence that begins with the file's name.
pub(super) fn places<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Vec<Place>, String> {
    let all: Vec<(&str, Cow<'_, str>)> = names.into_iter().map(|n| (n, unwrapped(n))).collect();
    let there: HashSet<&str> = all.iter().map(|(_, n)| &**n).collect();
    let mut found: Vec<Place> = Vec::new();
    for (_, name) in &all {
        for (part, telling) in [
            (ModelKind::Var, VarShape::TELLING),
            (ModelKind::Vae, VaeShape::TELLING),
        ] {
            let Some(root) = telling.first().and_then(|t| name.strip_suffix(t)) else {
                continue;
            };
            let whole = root.is_empty() || root.ends_with('.');
            let of_optimizer = root.split('.').any(|s| OF_OPTIMIZER.contains(&s));
            let fits = telling
                .iter()
                .all(|t| there.contains(format!("{root}{t}").as_str()));
            if whole && fits && !of_optimizer && !found.iter().any(|p| p.root == root) {
                if found.len() == MOST_MODELS {
                    return Err(format!("holds more than {MOST_MODELS} models"));
                }
                found.push(Place {
                    part,
                    root: root.to_owned(),
                    names: Vec::new(),
                });
            }
        }
    }
    for (from, name) in &all {
        let place = found
            .iter_mut()
            .filter(|p| name.starts_with(&p.root))
            .max_by_key(|p| p.root.len());
        if let Some(place) = place
            && let Some(to) = name.strip_prefix(&place.root)
            && to != AVERAGED
        {
            place.names.push(((*from).to_owned(), to.to_owned()));
        }
    }
    for place in &found {
        let mut seen = HashSet::new();
        if let Some((from, _)) = place.names.iter().find(|(_, to)| !seen.insert(to)) {
            return Err(format!(
                "holds two tensors for one: {from:?}, and one whose name differs by {} only",
                WRAPPERS.map(|w| format!("{w}.")).join(", ")
            ));
        }
    }
    Ok(found)
}

/// The place of one model, `None` where there is none; averaged weights come before others where `kind` does not say. The error
/// completes a sentence that begins with the file's name.
pub(super) fn place_of(
    places: &[Place],
    part: ModelKind,
    kind: Option<WeightsKind>,
) -> Result<Option<&Place>, String> {
    let meant = |p: &&Place| kind.is_none_or(|k| p.is_averaged() == (k == WeightsKind::Averaged));
    let all = || places.iter().filter(|p| p.part == part);
    let of_part: Vec<&Place> = all().filter(meant).collect();
    if of_part.is_empty() && all().next().is_some() {
        return Err(match kind {
            Some(WeightsKind::Trained) => {
                "holds averaged weights alone; leave out `weights`=raw".into()
            }
            _ => NO_AVERAGE.into(),
        });
    }
    let averaged: Vec<&Place> = of_part
        .iter()
        .copied()
        .filter(|p| p.is_averaged())
        .collect();
    match (of_part.as_slice(), averaged.as_slice()) {
        ([], _) => Ok(None),
        ([one], _) | (_, [one]) => Ok(Some(one)),
        (several, _) => Err(format!(
            "holds several models of the kind {part}, under {}; save the one to use in a file of its own",
            several
                .iter()
                .map(|p| format!("{:?}", p.shown()))
                .collect::<Vec<_>>()
                .join(" and ")
        )),
    }
}

/// Opens a `.pth` file, with what wrappers put into names taken out of every dict of tensors.
pub(super) fn open_pth(path: &Path) -> Result<(PthFile, Value)> {
    let (file, mut value) = PthFile::open(path)?;
    unwrap_keys(&mut value);
    Ok((file, value))
}

fn unwrap_keys(value: &mut Value) {
    let Value::Dict(dict) = value else {
        return;
    };
    for (_, inner) in &mut dict.items {
        unwrap_keys(inner);
    }
    let wrapped = |(k, v): &(Value, Value)| match (k, v) {
        (Value::Str(k), Value::Tensor(_)) => matches!(unwrapped(k), Cow::Owned(_)),
        _ => false,
    };
    if !dict.items.iter().any(wrapped) {
        return;
    }
    let mut seen = HashSet::new();
    let unique = dict.items.iter().all(|(k, _)| match k {
        Value::Str(k) => seen.insert(unwrapped(k)),
        _ => true,
    });
    // Two tensors for one name: left as they are, for an error that shows them.
    if !unique {
        return;
    }
    for (key, value) in &mut dict.items {
        if let (Value::Str(k), Value::Tensor(_)) = (&*key, value)
            && let Cow::Owned(short) = unwrapped(k)
        {
            *key = Value::str(short);
        }
    }
    dict.items
        .retain(|(k, _)| !matches!(k, Value::Str(k) if &**k == AVERAGED));
    // What PyTorch keeps beside the names speaks of the wrapped modules.
    dict.attrs.clear();
}

/// The tensors of a `.pth` file's object, however its dicts lie in each other.
pub(super) struct Tree<'v> {
    tensors: Vec<(String, &'v TensorRef)>,
    dicts: Vec<(String, &'v Dict)>,
}

impl<'v> Tree<'v> {
    pub(super) fn new(value: &'v Value) -> Self {
        let mut tree = Self {
            tensors: Vec::new(),
            dicts: Vec::new(),
        };
        tree.walk("", value);
        tree
    }

    fn walk(&mut self, root: &str, value: &'v Value) {
        match value {
            Value::Tensor(t) => self
                .tensors
                .push((root.trim_end_matches('.').to_owned(), &**t)),
            Value::Dict(d) => {
                self.dicts.push((root.to_owned(), d));
                for (k, v) in &d.items {
                    match k {
                        Value::Str(k) => self.walk(&format!("{root}{k}."), v),
                        Value::Int(k) => self.walk(&format!("{root}{k}."), v),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }

    /// All tensors, by their way through the dicts.
    pub(super) fn tensors(&self) -> impl Iterator<Item = (&str, &'v TensorRef)> {
        self.tensors.iter().map(|(n, t)| (n.as_str(), *t))
    }

    /// How many tensors there are.
    pub(super) fn count(&self) -> usize {
        self.tensors.len()
    }

    /// All models in it.
    pub(super) fn places(&self) -> Result<Vec<Place>, String> {
        places(self.tensors.iter().map(|(n, _)| n.as_str()))
    }

    /// The tensors of a place, under the model's names.
    pub(super) fn views(&self, place: &Place) -> Vec<(String, &'v TensorRef)> {
        let by_name: std::collections::HashMap<&str, &'v TensorRef> =
            self.tensors.iter().map(|(n, t)| (n.as_str(), *t)).collect();
        place
            .names
            .iter()
            .filter_map(|(from, to)| Some((to.clone(), *by_name.get(from.as_str())?)))
            .collect()
    }

    /// Reads the tensors of a place.
    pub(super) fn read(&self, file: &mut PthFile, place: &Place) -> Result<StateDict> {
        // A dict of nothing else keeps what PyTorch states beside it.
        let whole = self.dicts.iter().find(|(root, d)| {
            *root == place.root
                && d.tensor_entries()
                    .is_ok_and(|e| e.len() == place.names.len())
        });
        if let Some((_, dict)) = whole
            && place.is_plain()
        {
            return file.state_dict(dict, place.shown());
        }
        let mut out = StateDict::new();
        for (name, view) in self.views(place) {
            out.insert(name, file.tensor(view)?);
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VAR: &[&str] = VarShape::TELLING;
    const VAE: &[&str] = VaeShape::TELLING;

    fn under(root: &str, names: &[&str]) -> Vec<String> {
        names.iter().map(|n| format!("{root}{n}")).collect()
    }

    fn found(names: &[Vec<String>]) -> Vec<(ModelKind, String, usize)> {
        places(names.iter().flatten().map(String::as_str))
            .unwrap()
            .into_iter()
            .map(|p| (p.part, p.root.clone(), p.names.len()))
            .collect()
    }

    #[test]
    fn wrappers_are_taken_off_wherever_they_stand() {
        for (name, short) in [
            ("pos_1LC", "pos_1LC"),
            ("module.pos_1LC", "pos_1LC"),
            ("_orig_mod.pos_1LC", "pos_1LC"),
            ("module._orig_mod.pos_1LC", "pos_1LC"),
            (
                "blocks.0._orig_mod.attn.proj.weight",
                "blocks.0.attn.proj.weight",
            ),
            (
                "_fsdp_wrapped_module.blocks.0._checkpoint_wrapped_module.ada_gss",
                "blocks.0.ada_gss",
            ),
            ("modules.x", "modules.x"),
        ] {
            assert_eq!(unwrapped(name), short);
        }
    }

    #[test]
    fn models_are_found_under_any_root() {
        let one = |root: &str| vec![(ModelKind::Var, root.to_owned(), 3)];
        for (root, shown) in [
            ("", ""),
            ("module.", ""),
            ("state_dict.module._orig_mod.", "state_dict."),
            ("trainer.var_wo_ddp.", "trainer.var_wo_ddp."),
        ] {
            assert_eq!(found(&[under(root, VAR)]), one(shown), "{root}");
        }
        // Both models in one file, beside an optimizer's copies.
        assert_eq!(
            found(&[
                under("vae_local.", VAE),
                under("var_wo_ddp.", VAR),
                under("var_opt.exp_avg.", VAR)
            ]),
            [
                (ModelKind::Vae, "vae_local.".to_owned(), 2),
                (ModelKind::Var, "var_wo_ddp.".to_owned(), 3)
            ]
        );
        // What lies elsewhere is not the outer model's.
        assert_eq!(
            found(&[under("", VAR), under("vae.", VAE), under("", &["odd"])]),
            [
                (ModelKind::Var, String::new(), 4),
                (ModelKind::Vae, "vae.".to_owned(), 2)
            ]
        );
        assert_eq!(found(&[under("", &["pos_1LC"])]), []);
    }

    #[test]
    fn averaged_weights_come_first_and_doubt_is_refused() {
        let all = |roots: &[&str]| -> Vec<Place> {
            let names: Vec<String> = roots.iter().flat_map(|r| under(r, VAR)).collect();
            places(names.iter().map(String::as_str)).unwrap()
        };
        let both = all(&["model.", "model_ema."]);
        assert_eq!(
            place_of(&both, ModelKind::Var, None).unwrap().unwrap().root,
            "model_ema."
        );
        assert_eq!(place_of(&both, ModelKind::Vae, None), Ok(None));
        let of = |kind| {
            place_of(&both, ModelKind::Var, Some(kind))
                .unwrap()
                .unwrap()
        };
        assert_eq!(of(WeightsKind::Averaged).root, "model_ema.");
        assert_eq!(of(WeightsKind::Trained).root, "model.");
        let plain = all(&["model."]);
        let text = place_of(&plain, ModelKind::Var, Some(WeightsKind::Averaged)).unwrap_err();
        assert_eq!(text, NO_AVERAGE);
        for averaged in [
            "EMA.",
            "params_ema.",
            "ema_0.9999.",
            "state.ema.model.",
            "modelEMA.",
            "emaModel.",
        ] {
            let both = all(&["model.", averaged]);
            let root = &place_of(&both, ModelKind::Var, None).unwrap().unwrap().root;
            assert_eq!(root, averaged);
        }
        for other in [
            "schema.",
            "model_no_ema.",
            "non-ema.",
            "nonema.",
            "var_wo_ema.",
        ] {
            assert!(place_of(&all(&["model.", other]), ModelKind::Var, None).is_err());
        }
        let two = all(&["first.", "second."]);
        let text = place_of(&two, ModelKind::Var, None).unwrap_err();
        assert!(text.contains("\"first\" and \"second\""), "{text}");
        let twice = [under("", VAR), under("module.", VAR)].concat();
        let text = places(twice.iter().map(String::as_str)).unwrap_err();
        assert!(text.contains("module.pos_1LC"), "{text}");
    }
}
