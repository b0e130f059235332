//! Which columns hold pictures and labels, and what the classes are called.

use std::sync::Arc;

use serde_json::Value as Json;

use super::footer::{Column, Footer, Physical};

/// Names of a column of pictures, the likeliest first.
const IMAGES: [&str; 2] = ["image", "img"];

/// Names of a column of labels, the likeliest first.
const LABELS: [&str; 5] = ["label", "labels", "fine_label", "class", "cls"];

/// What was chosen.
pub(super) struct Columns {
    /// The column of pictures, by its number.
    pub image: usize,
    /// The column of labels.
    pub label: usize,
    /// Names of the classes, where the file has them.
    pub names: Option<Arc<[String]>>,
}

impl Columns {
    /// Chooses by name and type, and by what the library `datasets` writes of the columns.
    ///
    /// # Errors
    /// What is missing, or can't be used.
    pub fn of(footer: &Footer) -> Result<Self, String> {
        let features = features(footer);
        let image = image(footer, &features)?;
        let label = label(footer, &features)?;
        let names = features
            .get(&footer.columns[label].path[0])
            .and_then(class_names);
        if names.as_ref().is_some_and(|names| names.is_empty()) {
            return Err("it names no class".into());
        }
        Ok(Self {
            image,
            label,
            names,
        })
    }
}

/// What `datasets` says of each column.
fn features(footer: &Footer) -> Json {
    footer
        .text("huggingface")
        .and_then(|text| serde_json::from_str::<Json>(text).ok())
        .and_then(|mut json| json.pointer_mut("/info/features").map(Json::take))
        .unwrap_or_default()
}

/// The columns that `datasets` says are of a type.
fn of_type<'a>(features: &'a Json, kind: &'a str) -> impl Iterator<Item = &'a str> {
    let all = features.as_object().into_iter().flatten();
    all.filter(move |(_, feature)| feature.get("_type").and_then(Json::as_str) == Some(kind))
        .map(|(name, _)| name.as_str())
}

fn class_names(feature: &Json) -> Option<Arc<[String]>> {
    let names = feature.get("names")?;
    if let Some(list) = names.as_array() {
        return list
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect();
    }
    // Written in YAML they are numbered.
    let numbered = names.as_object()?;
    (0..numbered.len())
        .map(|i| numbered.get(&i.to_string())?.as_str().map(str::to_owned))
        .collect()
}

/// The columns of a file, for messages.
fn listed(columns: &[Column]) -> String {
    let names: Vec<String> = columns.iter().take(8).map(|c| c.path.join(".")).collect();
    match columns.len().saturating_sub(8) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names.join(", ")),
    }
}

fn image(footer: &Footer, features: &Json) -> Result<usize, String> {
    let columns = &footer.columns;
    let of = |name: &str| {
        columns
            .iter()
            .position(|column| match column.path.as_slice() {
                [first] => first == name || first.strip_suffix(".bytes") == Some(name),
                [first, last] => first == name && last == "bytes",
                _ => false,
            })
    };
    let by_name = IMAGES.iter().find_map(|name| of(name));
    let by_type = || {
        let mut found = of_type(features, "Image").filter_map(of);
        found.next().filter(|_| found.next().is_none())
    };
    let by_shape = || {
        let is = |column: &Column| column.path.len() == 2 && column.path[1] == "bytes";
        let mut found = (0..columns.len()).filter(|&i| is(&columns[i]));
        found.next().filter(|_| found.next().is_none())
    };
    let place = by_name.or_else(by_type).or_else(by_shape).ok_or_else(|| {
        format!(
            "there is no column of images; expected \"image\" with files as bytes, found {}",
            listed(columns)
        )
    })?;
    let column = &columns[place];
    let name = column.path.join(".");
    if column.repeated {
        return Err(format!(
            "column {name:?} has lists of images; one a row is read"
        ));
    }
    match column.kind {
        Physical::Bytes => Ok(place),
        Physical::Int32 | Physical::Int64 => Err(format!(
            "column {name:?} has integers; expected files as bytes"
        )),
        Physical::Other(kind) => Err(format!(
            "column {name:?} has values of type {kind}; expected files as bytes"
        )),
    }
}

fn label(footer: &Footer, features: &Json) -> Result<usize, String> {
    let columns = &footer.columns;
    let of = |name: &str| {
        columns
            .iter()
            .position(|column| column.path.len() == 1 && column.path[0] == name)
    };
    let by_name = LABELS.iter().find_map(|name| of(name));
    let by_type = || {
        let mut found = of_type(features, "ClassLabel").filter_map(of);
        found.next().filter(|_| found.next().is_none())
    };
    let place = by_name.or_else(by_type).ok_or_else(|| {
        format!(
            "there is no column of labels; expected \"label\" with integers, found {}",
            listed(columns)
        )
    })?;
    let column = &columns[place];
    let name = column.path.join(".");
    match column.kind {
        _ if column.repeated => Err(format!(
            "column {name:?} has lists of labels; one a row is read"
        )),
        Physical::Int32 | Physical::Int64 => Ok(place),
        Physical::Bytes => Err(format!(
            "column {name:?} has texts; expected the numbers of classes"
        )),
        Physical::Other(kind) => Err(format!(
            "column {name:?} has values of type {kind}; expected integers"
        )),
    }
}
