//! Which classes `--classes` and `--class` mean.

use nextscale::checkpoint::class_names::{ModelClasses, known_classes};
use nextscale::options::FolderOptions;
use nextscale::run::Dataset;
use nextscale::{Error, Result};

/// The label of the one class that `text` names, and the names of all, where they are known.
pub(super) fn one_class(
    text: &str,
    data_path: Option<&str>,
    model: &ModelClasses<'_>,
) -> Result<(i32, Option<Vec<String>>)> {
    let named = Named::of(data_path, model)?;
    let label = match named.labels(text).as_deref() {
        Ok([label]) => Ok(*label),
        Ok(several) => Err(format!("expected one class, not {}", several.len())),
        Err(e) => Err(e.clone()),
    };
    let label = label.map_err(|e| Error::input(format!("--class={text}: {e}")))?;
    Ok((label, named.all()))
}

/// Names, and the model's class of each.
pub struct Named {
    names: Vec<(String, usize)>,
    count: usize,
    /// The model's file, for messages.
    file: String,
    /// Whether the names are in it.
    in_file: bool,
}

impl Named {
    /// Names are those that the model's file holds, else those of the folders of `data_path`.
    pub(super) fn of(data_path: Option<&str>, model: &ModelClasses<'_>) -> Result<Self> {
        let given = match data_path {
            Some(path) => Some((
                path,
                Dataset::open(path, &FolderOptions::default(), 64, 1.125, false)?,
            )),
            None => None,
        };
        let names = match (&given, model.names) {
            (Some((path, data)), known) => {
                let own = data.train.class_names();
                let places = model.of(own, &format!("--data_path={path}"))?;
                let known = known.unwrap_or_default().iter().cloned().zip(0..);
                let own = own.iter().cloned().zip(places);
                // All that the model knows, not only what the folder has.
                if model.names.is_some() {
                    known.collect()
                } else {
                    own.collect()
                }
            }
            (None, Some(names)) => names.iter().cloned().zip(0..).collect(),
            (None, None) => Vec::new(),
        };
        Ok(Self {
            names,
            count: model.count,
            file: model.file.to_owned(),
            in_file: model.names.is_some(),
        })
    }

    /// Labels of classes given by name or number, separated by commas; without a list every class once. `flag` is the list's.
    pub(super) fn list(&self, flag: &str, list: Option<&str>) -> Result<Vec<i32>> {
        let Some(list) = list else {
            return Ok((0..self.count as i32).collect());
        };
        let labels = self.labels(list);
        labels.map_err(|e| Error::input(format!("--{flag}={list}: {e}")))
    }

    /// The names of all classes in class order, where they are known.
    pub(super) fn all(&self) -> Option<Vec<String>> {
        let mut all = vec![None; self.count];
        for (name, label) in &self.names {
            *all.get_mut(*label)? = Some(name.clone());
        }
        all.into_iter().collect()
    }

    /// The labels that a list means; an error completes a sentence that begins with the flag.
    fn labels(&self, list: &str) -> Result<Vec<i32>, String> {
        // A list that is a name as it stands, commas and all.
        if let Some(label) = self.by_name(list) {
            return Ok(vec![label as i32]);
        }
        split(list)?.iter().map(|word| self.label(word)).collect()
    }

    fn by_name(&self, name: &str) -> Option<usize> {
        self.names.iter().find(|(n, _)| n == name).map(|(_, i)| *i)
    }

    fn label(&self, word: &str) -> Result<i32, String> {
        match self.by_name(word).or_else(|| word.parse::<usize>().ok()) {
            Some(i) if i < self.count => Ok(i as i32),
            Some(i) => Err(format!(
                "there is no class {i}; the model has classes 0 to {}",
                self.count.saturating_sub(1)
            )),
            None if self.names.is_empty() => Err(format!(
                "{word:?} is no number, and {} does not say what its classes are called; to use names give --data_path, whose folders name the classes",
                self.file
            )),
            None => {
                let names: Vec<String> = self.names.iter().map(|(n, _)| n.clone()).collect();
                let list = match self.in_file {
                    true => format!("`nextscale info {}` lists them; ", self.file),
                    false => String::new(),
                };
                Err(format!(
                    "{word:?} is no number and none of the model's classes {} ({list}a name with a comma goes in double quotes)",
                    known_classes(word, &names),
                ))
            }
        }
    }
}

/// The words of a list separated by commas. A word in double quotes may hold commas, and quotes written twice.
fn split(list: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut rest = list;
    loop {
        let word = rest.trim_start();
        let (word, after) = match word.strip_prefix('"') {
            Some(quoted) => unquote(quoted).ok_or(
                "a double quote is not closed, or something other than a comma follows it",
            )?,
            None => match word.split_once(',') {
                Some((word, after)) => (word.trim_end().to_owned(), Some(after)),
                None => (word.trim_end().to_owned(), None),
            },
        };
        words.push(word);
        match after {
            Some(after) => rest = after,
            None => return Ok(words),
        }
    }
}

/// A word up to its closing quote, and what follows the comma after it, if there is one.
fn unquote(text: &str) -> Option<(String, Option<&str>)> {
    let mut word = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        word.push_str(part);
        if let Some(more) = after.strip_prefix('"') {
            word.push('"');
            rest = more;
            continue;
        }
        let after = after.trim_start();
        return match after.strip_prefix(',') {
            Some(next) => Some((word, Some(next))),
            None if after.is_empty() => Some((word, None)),
            None => None,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lists_are_split_as_in_a_table() {
        let words = |list| split(list).unwrap();
        assert_eq!(words("a, b,c"), ["a", "b", "c"]);
        assert_eq!(words("\"a, x\",b"), ["a, x", "b"]);
        assert_eq!(words(" \"a, x\" , \"b\" "), ["a, x", "b"]);
        assert_eq!(words("\"say \"\"a\"\"\""), ["say \"a\""]);
        assert_eq!(words("a \"b\""), ["a \"b\""]);
        assert_eq!(words("\" a \""), [" a "]);
        assert_eq!(words("a,"), ["a", ""]);
        for bad in ["\"a", "\"a\"b", "x,\"a,b"] {
            assert!(split(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_come_before_numbers() {
        let names = ["1", "0", "a, x", "b"].map(str::to_owned);
        let model = ModelClasses {
            file: "m",
            names: Some(&names),
            count: 4,
        };
        let class_list =
            |list, model: &ModelClasses<'_>| Named::of(None, model)?.list("classes", list);
        let of = |list| class_list(Some(list), &model);
        assert_eq!(of("0,1,2,b").unwrap(), [1, 0, 2, 3]);
        assert_eq!(of("a, x").unwrap(), [2]);
        assert_eq!(of("b,\"a, x\",3").unwrap(), [3, 2, 3]);
        assert_eq!(class_list(None, &model).unwrap(), [0, 1, 2, 3]);
        let text = of("a").unwrap_err().to_string();
        assert!(
            text.contains("\"a, x\"") && text.contains("double quotes"),
            "{text}"
        );
        assert!(of("4").unwrap_err().to_string().contains("0 to 3"));
        let (label, all) = one_class("b", None, &model).unwrap();
        assert_eq!((label, all.as_deref()), (3, Some(&names[..])));
        assert_eq!(
            Named::of(
                None,
                &ModelClasses {
                    names: None,
                    ..model
                }
            )
            .unwrap()
            .all(),
            None
        );
        let text = one_class("b,1", None, &model).unwrap_err().to_string();
        assert_eq!(text, "--class=b,1: expected one class, not 2");
        let silent = ModelClasses {
            names: None,
            ..model
        };
        let text = class_list(Some("b"), &silent).unwrap_err().to_string();
        assert!(text.contains("--data_path"), "{text}");
    }

    proptest! {
        #[test]
        fn quoted_names_are_the_names(names in prop::collection::vec("\\PC{0,8}", 1..5)) {
            let quoted = names.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\"")));
            let list = quoted.collect::<Vec<_>>().join(" , ");
            prop_assert_eq!(split(&list), Ok(names));
        }

        #[test]
        fn any_list_is_read_or_refused(list in "[a-b\", 0-9-]{0,16}") {
            let names = ["a", "a b", "1"].map(str::to_owned);
            let model = ModelClasses { file: "m", names: Some(&names), count: 3 };
            match Named::of(None, &model).and_then(|named| named.list("classes", Some(&list))) {
                Ok(labels) => prop_assert!(labels.iter().all(|label| (0..3).contains(label))),
                Err(e) => { let begin = format!("--classes={list}: "); prop_assert!(e.to_string().starts_with(&begin)) }
            }
        }
    }
}
