//! The names of a model's classes, in class order: as text in a file, and matched with those of other images.

use serde_json::{Map, Value as Json};
use std::collections::{HashMap, HashSet};

use crate::format::safetensors::TextMetadata;
use crate::{Error, Result};

/// The metadata key, and the key among a training checkpoint's extras, of the classes' names.
pub const CLASSES_KEY: &str = "nextscale.classes";

/// How alike two names are that may be one, 0 to 1.
const ALIKE: f64 = 0.6;
/// Letters of a part of a name that may stand for it.
const PART: usize = 3;
/// How many names a message lists.
const LISTED: usize = 5;

/// Names as text: one a line, or a JSON list where lines can't tell them apart.
pub fn names_to_text(names: &[String]) -> String {
    let lines = names.join("\n");
    match names_from_text(&lines) {
        Some(back) if back == names => lines,
        _ => Json::from(names).to_string(),
    }
}

/// Names from such a text; `None` where there are none.
pub fn names_from_text(text: &str) -> Option<Vec<String>> {
    if text.is_empty() {
        return None;
    }
    let listed = serde_json::from_str::<Vec<String>>(text).ok();
    let names = listed.unwrap_or_else(|| text.split('\n').map(str::to_owned).collect());
    (!names.is_empty()).then_some(names)
}

/// The names among a training checkpoint's extras.
pub fn names_of_extra(extra: &Map<String, Json>) -> Option<Vec<String>> {
    serde_json::from_value(extra.get(CLASSES_KEY)?.clone())
        .ok()
        .filter(|names: &Vec<String>| !names.is_empty())
}

/// The names in a file's free text.
pub fn names_of_metadata(metadata: &TextMetadata) -> Option<Vec<String>> {
    names_from_text(metadata.get(CLASSES_KEY)?)
}

/// The first few names, in quotes, and how many more there are.
pub fn list_names(names: &[String]) -> String {
    list_some(names, LISTED)
}

/// The first `most` names, in quotes, and how many more there are.
pub(super) fn list_some(names: &[String], most: usize) -> String {
    let shown: Vec<String> = names.iter().take(most).map(|n| format!("{n:?}")).collect();
    match names.len().saturating_sub(most) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// The name that one may have meant by `word`, where one is much like it.
pub fn nearest<'a>(word: &str, names: &'a [String]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let likeness = |name: &str| {
        let name = name.to_lowercase();
        let [short, long] = match word.len() < name.len() {
            true => [&word, &name],
            false => [&name, &word],
        };
        let part = short.chars().count() >= PART && long.contains(short.as_str());
        let same = strsim::normalized_damerau_levenshtein(&word, &name);
        if part { same.max(ALIKE) } else { same }
    };
    let all = names.iter().filter(|name| !name.is_empty());
    let all = all.map(|name| (likeness(name), name.as_str()));
    let (likeness, name) = all.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (likeness >= ALIKE).then_some(name)
}

/// What is said after a word that is no class: which there are, in brackets, and what may have been meant.
pub fn known_classes(word: &str, names: &[String]) -> String {
    let meant = nearest(word, names);
    let meant = meant.map_or_else(String::new, |name| format!("; did you mean {name:?}?"));
    format!("({}){meant}", list_names(names))
}

/// The first name that stands twice.
pub fn named_twice(names: &[String]) -> Option<&str> {
    let mut seen = HashSet::new();
    let twice = names.iter().find(|name| !seen.insert(name.as_str()));
    twice.map(String::as_str)
}

/// Where two lists of classes first differ, as the end of a sentence: `class 1 is "b" there and "c" here`.
pub fn first_difference(there: &[String], here: &[String]) -> Option<String> {
    let name = |n: Option<&String>| n.map_or("missing".to_owned(), |n| format!("{n:?}"));
    (0..there.len().max(here.len()))
        .map(|i| (i, there.get(i), here.get(i)))
        .find(|(_, a, b)| a != b)
        .map(|(i, a, b)| format!("class {i} is {} there and {} here", name(a), name(b)))
}

/// The classes that a model draws and judges.
#[derive(Debug, Clone, Copy)]
pub struct ModelClasses<'a> {
    /// The model's file, for messages.
    pub file: &'a str,
    /// Their names, where the file holds them.
    pub names: Option<&'a [String]>,
    /// How many there are.
    pub count: usize,
}

impl ModelClasses<'_> {
    /// The model's class for each of the classes called `given`, which `source` brings: by name where the model's file holds
    /// names, else by their order.
    ///
    /// # Errors
    /// One line when a name is none of the model's, or when there are no names and the counts differ.
    pub fn of(&self, given: &[String], source: &str) -> Result<Vec<usize>> {
        let Some(names) = self.names else {
            if given.len() == self.count {
                return Ok((0..self.count).collect());
            }
            return Err(Error::input(format!(
                "{source}: holds {} classes, the model has {}, and {} does not say what they are called, so they can't be matched; \
                 give a folder with all classes that it was trained on",
                given.len(),
                self.count,
                self.file
            )));
        };
        let places: HashMap<&str, usize> = names
            .iter()
            .enumerate()
            .map(|(i, n)| (n.as_str(), i))
            .collect();
        given
            .iter()
            .map(|name| {
                places.get(name.as_str()).copied().ok_or_else(|| {
                    Error::input(format!(
                        "{source}: its class {name:?} is none of the {} classes of {} ({})",
                        names.len(),
                        self.file,
                        list_names(names)
                    ))
                })
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn any_names_come_back_from_text() {
        for list in [
            names(&["a", "b"]),
            names(&["a, x", "\"q\"", "é"]),
            names(&["two\nlines", "b"]),
            names(&["[\"a\"]"]),
            names(&["[1]", "[2]"]),
            names(&["", "a"]),
            names(&[""]),
        ] {
            let text = names_to_text(&list);
            assert_eq!(names_from_text(&text), Some(list), "{text}");
        }
        assert_eq!(names_to_text(&names(&["a", "b"])), "a\nb");
        assert_eq!(names_from_text(""), None);
        assert_eq!(names_from_text("[]"), None);
    }

    #[test]
    fn what_may_have_been_meant_is_named() {
        let all = names(&["animals", "people", "signs_and_symbols", ""]);
        for (word, meant) in [
            ("animal", Some("animals")),
            ("Peopel", Some("people")),
            ("symbols", Some("signs_and_symbols")),
            ("vehicles", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, &all), meant, "{word}");
        }
        assert_eq!(nearest("cat", &names(&["a", "b", "c"])), None);
        assert_eq!(nearest("12x", &names(&["1", "2"])), None);
        let text = known_classes("Animals", &all);
        assert!(text.ends_with("); did you mean \"animals\"?"), "{text}");
    }

    #[test]
    fn classes_are_matched_by_name_or_refused() {
        let own = names(&["a", "b", "c"]);
        let known = ModelClasses {
            file: "m",
            names: Some(&own),
            count: 3,
        };
        assert_eq!(known.of(&names(&["c", "a"]), "d").unwrap(), [2, 0]);
        assert_eq!(
            known.of(&names(&["c", "x"]), "d").unwrap_err().to_string(),
            "d: its class \"x\" is none of the 3 classes of m (\"a\", \"b\", \"c\")"
        );
        let unknown = ModelClasses {
            names: None,
            ..known
        };
        assert_eq!(
            unknown.of(&names(&["x", "y", "z"]), "d").unwrap(),
            [0, 1, 2]
        );
        let text = unknown.of(&names(&["a"]), "d").unwrap_err().to_string();
        assert!(text.contains("holds 1 classes, the model has 3"), "{text}");
    }

    #[test]
    fn the_first_difference_is_told() {
        let a = names(&["a", "b"]);
        assert_eq!(first_difference(&a, &a), None);
        assert_eq!(
            first_difference(&a, &names(&["a", "x", "y"])).unwrap(),
            "class 1 is \"b\" there and \"x\" here"
        );
        assert_eq!(
            first_difference(&a, &names(&["a"])).unwrap(),
            "class 1 is \"b\" there and missing here"
        );
    }

    #[test]
    fn a_name_that_stands_twice_is_found() {
        assert_eq!(named_twice(&names(&["a", "b", "a"])), Some("a"));
        assert_eq!(named_twice(&names(&["a", "b", "A"])), None);
    }

    #[test]
    fn long_lists_are_cut() {
        let many: Vec<String> = (0..7).map(|i| i.to_string()).collect();
        assert_eq!(
            list_names(&many),
            "\"0\", \"1\", \"2\", \"3\", \"4\" and 2 more"
        );
    }
}
