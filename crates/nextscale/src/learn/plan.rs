//! What a folder is learnt with, decided once and kept in `learn.json`, so that an interrupted call goes on with the same.

use crate::canvas::Canvas;
use crate::format::write_atomic;
use crate::options::{FolderOptions, Recipe, TokenizerOptions, TransformerOptions};
use crate::text::unquoted;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// Name of the file inside the output folder.
pub const PLAN_FILE: &str = "learn.json";

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Asked {
    /// The folder, or `builtin:shapes`.
    pub data_path: String,
    /// What its images are.
    pub folder: FolderOptions,
    /// Whether half of the training images are mirrored.
    pub hflip: bool,
    /// Minutes for everything.
    pub minutes: f64,
    /// The recipe, where one was given.
    pub recipe: Option<Recipe>,
    /// Seed of all random draws.
    pub seed: u64,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    pub(super) asked: Asked,
    /// What was chosen.
    pub(super) recipe: Recipe,
    pub(super) tokenizer: TokenizerOptions,
    /// Once the tokenizer is trained.
    pub(super) transformer: Option<TransformerOptions>,
    /// Seconds that calls before this one have taken, as far as they could tell.
    pub(super) spent: f64,
}

pub(super) fn path(out: &Path) -> PathBuf {
    out.join(PLAN_FILE)
}

impl Plan {
    /// The plan in a folder, where there is one for what is asked for.
    ///
    /// # Errors
    /// Where the folder was begun with other flags, or the file can't be read.
    pub(super) fn find(out: &Path, asked: &Asked) -> Result<Option<Self>> {
        let path = path(out);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) if e.kind() == std::io::ErrorKind::NotADirectory => {
                let why = "a part of it is a file; give a folder";
                return Err(Error::field("out", out.display(), why));
            }
            Err(e) => return Err(Error::io(&path)(e)),
        };
        let plan: Self = serde_json::from_slice(&bytes).map_err(|e| {
            let e = unquoted(&e);
            Error::input(format!(
                "{}: is no plan that this program understands ({e}); choose another `out`",
                path.display()
            ))
        })?;
        // Older plans have every flag, also those that were not given.
        let [before, now] = [&plan.asked, asked].map(|asked| Asked {
            folder: asked.folder.or_as(Some(Canvas::default())),
            ..asked.by_its_whole_name()
        });
        match before.difference(&now) {
            None => Ok(Some(plan)),
            Some((before, now)) => Err(Error::input(format!(
                "{}: was begun with {before}, not with {now}; give the same to go on with it, or choose another `out`",
                path.display()
            ))),
        }
    }

    /// Writes the file.
    pub(super) fn save(&self, out: &Path) -> Result<()> {
        let path = path(out);
        let text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::failed(format!("{}: {e}", path.display())))?;
        write_atomic(&path, |w| w.write_all(text.as_bytes()))
    }
}

/// A folder by one name, however it was given; what is none stays as it is.
fn absolute(data_path: &str) -> String {
    let found = Path::new(data_path).canonicalize().ok();
    found.map_or_else(|| data_path.to_owned(), |path| path.display().to_string())
}

impl Asked {
    /// The same with the folder by one name, however it was given.
    pub(super) fn by_its_whole_name(&self) -> Self {
        Self {
            data_path: absolute(&self.data_path),
            ..self.clone()
        }
    }

    /// The first that differs, here and there, as it is given.
    fn difference(&self, other: &Self) -> Option<(String, String)> {
        let [a, b] = [self, other].map(|asked| {
            let size = asked.recipe.and_then(Recipe::side);
            let mut value = serde_json::to_value(asked).unwrap_or_default();
            if let Some(all) = value.as_object_mut() {
                all.remove("recipe");
                all.insert("size".into(), size.into());
            }
            value
        });
        let mut found = None;
        let mut compare = |name: &str, a: &serde_json::Value, b: &serde_json::Value| {
            if a == b || found.is_some() {
                return;
            }
            let given = |v: &serde_json::Value| match (name, v) {
                ("data_path", serde_json::Value::String(text)) => format!("the folder {text}"),
                (_, serde_json::Value::Null) => format!("no `{name}`"),
                (_, serde_json::Value::String(text)) => format!("`{name}`={text}"),
                (_, v) => format!("`{name}`={v}"),
            };
            found = Some((given(a), given(b)));
        };
        for (name, value) in a.as_object().into_iter().flatten() {
            match value.as_object() {
                Some(group) => {
                    for (inner, value) in group {
                        compare(inner, value, &b[name][inner]);
                    }
                }
                None => compare(name, value, &b[name]),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Asked {
        Asked {
            data_path: "cats".into(),
            folder: FolderOptions::default(),
            hflip: false,
            minutes: 20.0,
            recipe: None,
            seed: 1,
        }
    }

    #[test]
    fn a_plan_is_found_again_for_the_same_flags_only() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Plan::find(dir.path(), &asked()).unwrap(), None);
        let plan = Plan {
            asked: asked(),
            recipe: Recipe::Small64,
            tokenizer: TokenizerOptions::default(),
            transformer: Some(TransformerOptions::default()),
            spent: 1.5,
        };
        plan.save(dir.path()).unwrap();
        assert_eq!(Plan::find(dir.path(), &asked()).unwrap(), Some(plan));
        let refused = |change: fn(&mut Asked)| {
            let mut other = asked();
            change(&mut other);
            let e = Plan::find(dir.path(), &other).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            e.to_string()
        };
        assert!(
            refused(|a| a.recipe = Some(Recipe::Small64)).contains("no `size`, not with `size`=64")
        );
        assert!(refused(|a| a.minutes = 30.0).contains("`minutes`=20.0, not with `minutes`=30.0"));
        assert!(
            refused(|a| a.data_path = "dogs".into())
                .contains("the folder cats, not with the folder dogs")
        );
        assert!(
            refused(|a| a.folder.val_share = Some(0.1))
                .contains("no `val_share`, not with `val_share`=0.1")
        );
        std::fs::write(path(dir.path()), b"{").unwrap();
        assert!(refused(|_| ()).contains("is no plan"));
    }
}
