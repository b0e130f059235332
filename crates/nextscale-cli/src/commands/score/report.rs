//! The result: a table to read and a JSON file to keep.

use super::pairs::PairScores;
use nextscale::data::Canvas;
use nextscale::pictures::{Plot, Series};
use nextscale::score::network::LpipsInfo;
use nextscale::score::{NetworkFacts, Scores};
use nextscale::{Error, Result, say};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::path::Path;

/// A row of the table.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The protocol, or `own-features`.
    pub protocol: String,
    /// What is swept, with its values here.
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_object")]
    pub settings: Vec<(String, f32)>,
    /// The numbers.
    #[serde(flatten)]
    pub scores: Scores,
    /// Of a tokenizer's reconstructions.
    #[serde(flatten)]
    pub pairs: PairScores,
}

fn as_object<S: Serializer>(settings: &[(String, f32)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(settings.iter().map(|(name, value)| (name, value)))
}

/// All that the JSON file says.
#[derive(Debug, Serialize)]
pub struct Report {
    pub software: &'static str,
    pub version: &'static str,
    pub samples: Value,
    pub reference: Option<Value>,
    pub network: NetworkFacts,
    /// The files of LPIPS.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lpips: Option<LpipsInfo>,
    pub device: &'static str,
    pub precision: &'static str,
    /// How pictures are cut before they are prepared.
    pub cut: Option<Value>,
    /// What images of files are laid on.
    pub canvas: Canvas,
    pub remarks: Vec<String>,
    pub results: Vec<Row>,
}

impl Report {
    /// Writes it.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self)
            .map_err(|e| Error::failed(format!("{}: {e}", path.display())))?;
        text.push('\n');
        nextscale::format::write_atomic(path, |file| {
            std::io::Write::write_all(file, text.as_bytes())
        })
    }
}

/// A column: its head, and a row's number in it with its digits.
type Column = (&'static str, fn(&Row) -> Option<String>);

fn digits(value: Option<f64>, digits: usize) -> Option<String> {
    // What is nothing but rounding has no sign.
    let shown = |v: f64| {
        if v.abs() < 0.5 * 0.1_f64.powi(digits as i32) {
            0.0
        } else {
            v
        }
    };
    value.map(|v| format!("{:.digits$}", shown(v)))
}

/// The columns that there may be; those that no row has a number for are left out.
fn columns(own: bool) -> Vec<Column> {
    vec![
        (if own { "distance" } else { "FID" }, |r| {
            digits(r.scores.frechet_distance, 4)
        }),
        ("sFID", |r| digits(r.scores.spatial_frechet_distance, 4)),
        ("IS", |r| digits(r.scores.inception_score, 4)),
        ("IS std", |r| digits(r.scores.inception_score_std, 4)),
        ("precision", |r| digits(r.scores.precision, 4)),
        ("recall", |r| digits(r.scores.recall, 4)),
        ("class accuracy", |r| {
            r.scores
                .class_accuracy
                .map(|v| format!("{:.2} %", 100.0 * v))
        }),
        ("of the reference", |r| {
            r.scores
                .reference_class_accuracy
                .map(|v| format!("{:.2} %", 100.0 * v))
        }),
        ("PSNR", |r| digits(r.pairs.psnr_db, 3)),
        ("SSIM", |r| digits(r.pairs.ssim, 4)),
        ("LPIPS", |r| digits(r.pairs.lpips, 4)),
    ]
}

/// Whether rows are of more than one protocol.
fn has_several_protocols(rows: &[Row]) -> bool {
    rows.iter().any(|r| r.protocol != rows[0].protocol)
}

/// Prints the rows; `own` says that features are none of Inception's.
pub fn print_table(rows: &[Row], own: bool) -> Result<()> {
    let mut table: Vec<Vec<String>> = vec![Vec::new(); rows.len() + 1];
    let mut put = |head: &str, cells: Vec<String>| {
        table[0].push(head.to_owned());
        table
            .iter_mut()
            .skip(1)
            .zip(cells)
            .for_each(|(line, cell)| line.push(cell));
    };
    put(
        "protocol",
        rows.iter().map(|r| r.protocol.clone()).collect(),
    );
    let swept = rows.first().map_or(&[][..], |r| &r.settings);
    for (i, (name, _)) in swept.iter().enumerate() {
        put(
            name,
            rows.iter().map(|r| r.settings[i].1.to_string()).collect(),
        );
    }
    for (head, cell) in columns(own) {
        let cells: Vec<Option<String>> = rows.iter().map(cell).collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|c| c.unwrap_or_else(|| "-".into()));
            put(head, cells.collect());
        }
    }
    let columns = table[0].len();
    let width = |i: usize| {
        table
            .iter()
            .map(|line| line[i].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for line in &table {
        let cells = line
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(i, (cell, width))| match i {
                0 => format!("{cell:<width$}"),
                _ => format!("{cell:>width$}"),
            });
        say!("{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    if has_several_protocols(rows) {
        say!("numbers of different protocols can't be compared with each other")?;
    }
    Ok(())
}

/// A sweep as a plot: the distance against the flag that was swept first, a line for every combination of the others and every protocol.
pub fn plot(rows: &[Row], own: bool, subject: &str) -> Option<Plot> {
    let (x_label, _) = rows.first()?.settings.first()?.clone();
    let several = has_several_protocols(rows);
    let mut series: Vec<Series> = Vec::new();
    for row in rows {
        let others = row.settings.iter().skip(1);
        let mut words: Vec<String> = others
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        if several {
            words.insert(0, row.protocol.clone());
        }
        let name = match words.is_empty() {
            true => subject.to_owned(),
            false => words.join(", "),
        };
        let (Some((_, x)), Some(y)) = (row.settings.first(), row.scores.frechet_distance) else {
            continue;
        };
        let point = (f64::from(*x), y);
        match series.iter_mut().find(|s| s.name == name) {
            Some(known) => known.points.push(point),
            None => series.push(Series {
                name,
                points: vec![point],
            }),
        }
    }
    let distance = if own {
        "Fréchet distance of own features"
    } else {
        "FID"
    };
    if series.is_empty() {
        return None;
    }
    Some(Plot {
        title: format!("{distance} of {subject}"),
        x_label,
        y_label: distance.to_owned(),
        series,
        references: Vec::new(),
    })
}
