//! Learning-rate and weight-decay schedules, and progressive stages.
//!
//! The tables state the schedule's name and its end values; the peak, the start and the length of the warm-up are told from
//! the numbers themselves, rounded to the short decimals that a user would have written.

use super::compare::difference;
use super::folder::Folder;
use super::report::Report;
use nextscale::train::progressive::StagePlan;
use nextscale::train::schedule::{Curve, Schedule};
use nextscale::{Error, Result};
use std::collections::BTreeMap;

/// How far a value may be from the recorded one, relative to it.
const LIMIT: f64 = 1e-15;

/// Longest warm-up that is tried where none is known.
const MOST_WARMUP: u64 = 10_000;

const LR_COLUMNS: [&str; 6] = ["sche", "wpe", "wd_end", "it", "lr", "wd"];
const STAGE_COLUMNS: [&str; 5] = ["pg", "pg0", "stages", "it", "prog_si"];

/// Whether a CSV file's first line is that of a table which is checked here.
pub(super) fn is_known(header: &str) -> bool {
    columns(header, &LR_COLUMNS).is_some() || columns(header, &STAGE_COLUMNS).is_some()
}

/// Positions of the named columns.
fn columns<const N: usize>(header: &str, names: &[&str; N]) -> Option<[usize; N]> {
    let found: Vec<&str> = header.trim().split(',').collect();
    let mut out = [0; N];
    for (slot, name) in out.iter_mut().zip(names) {
        *slot = found.iter().position(|f| f == name)?;
    }
    Some(out)
}

/// One row of a table, with its line's number for messages.
struct Row {
    cells: Vec<String>,
    line: usize,
}

/// A table: rows in the order of the named columns, grouped by the first `keys` of them in order of appearance.
struct Table {
    groups: Vec<(Vec<String>, Vec<Row>)>,
    source: String,
}

impl Table {
    fn read<const N: usize>(
        folder: &Folder,
        name: &str,
        names: &[&str; N],
        keys: usize,
    ) -> Result<Option<Self>> {
        let text = folder.text(name)?;
        let empty = || Error::input(format!("{}: has no rows", folder.file(name).display()));
        if text.trim().is_empty() {
            return Err(empty());
        }
        let mut lines = text.lines().enumerate();
        let Some(at) = lines.next().and_then(|(_, header)| columns(header, names)) else {
            return Ok(None);
        };
        let source = folder.file(name).display().to_string();
        let mut groups: Vec<(Vec<String>, Vec<Row>)> = Vec::new();
        for (i, line) in lines.filter(|(_, l)| !l.trim().is_empty()) {
            let all: Vec<&str> = line.trim().split(',').collect();
            let mut cells = Vec::with_capacity(N);
            for &c in &at {
                let cell = all.get(c).ok_or_else(|| {
                    Error::input(format!(
                        "{source}: line {}: has {} columns only",
                        i + 1,
                        all.len()
                    ))
                })?;
                cells.push((*cell).to_owned());
            }
            let key = cells[..keys].to_vec();
            let row = Row { cells, line: i + 1 };
            match groups.iter_mut().find(|(k, _)| *k == key) {
                Some((_, rows)) => rows.push(row),
                None => groups.push((key, vec![row])),
            }
        }
        if groups.is_empty() {
            return Err(empty());
        }
        Ok(Some(Self { groups, source }))
    }

    fn number<T: std::str::FromStr>(&self, row: &Row, column: usize) -> Result<T> {
        let cell = &row.cells[column];
        cell.parse().map_err(|_| {
            Error::input(format!(
                "{}: line {}: can't read {cell:?} as a number",
                self.source, row.line
            ))
        })
    }

    fn column<T: std::str::FromStr>(&self, rows: &[Row], column: usize) -> Result<Vec<T>> {
        rows.iter().map(|r| self.number(r, column)).collect()
    }
}

/// Checks every table of the folder.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    let mut warmups = Vec::new();
    for stem in folder.stems(".csv") {
        if let Some(table) = Table::read(folder, &format!("{stem}.csv"), &LR_COLUMNS, 3)? {
            for (key, rows) in &table.groups {
                warmups.push(rates(stem, &table, key, rows, report)?);
            }
        }
    }
    for stem in folder.stems(".csv") {
        if let Some(table) = Table::read(folder, &format!("{stem}.csv"), &STAGE_COLUMNS, 3)? {
            for (key, rows) in &table.groups {
                stages(stem, &table, (key, rows), &warmups, report)?;
            }
        }
    }
    Ok(())
}

/// The shortest decimal of at most twelve digits next to `x`: what the recorded run was told, free of later rounding.
fn told(x: f64) -> f64 {
    format!("{x:.11e}").parse().unwrap_or(x)
}

/// One schedule; returns its warm-up in iterations.
fn rates(
    stem: &str,
    table: &Table,
    key: &[String],
    rows: &[Row],
    report: &mut Report<'_>,
) -> Result<u64> {
    let its: Vec<u64> = table.column(rows, 3)?;
    let lr: Vec<f64> = table.column(rows, 4)?;
    let wd: Vec<f64> = table.column(rows, 5)?;
    let by_it: BTreeMap<u64, f64> = its.iter().copied().zip(lr.iter().copied()).collect();
    let max_it = its.iter().max().map_or(0, |m| m + 1);
    let peak = told(lr.iter().copied().fold(0.0, f64::max));
    let (first, second) = (by_it.get(&0), by_it.get(&1));
    // The warm-up is a straight line from wp0·peak to peak.
    let (warmup, wp0) = match (first, second) {
        (Some(&a), Some(&b)) if b > a => (((peak - a) / (b - a)).round(), told(a / peak)),
        _ => (0.0, 1.0),
    };
    let curve: Curve = key[0].parse().map_err(|_| {
        Error::input(format!(
            "{}: there is no schedule called {:?}",
            table.source, key[0]
        ))
    })?;
    let schedule = Schedule {
        curve,
        peak_lr: peak,
        wd: told(at_start(&its, &wd)),
        wd_end: table.number(&rows[0], 2)?,
        warmup_its: warmup,
        wp0,
        wpe: table.number(&rows[0], 1)?,
        max_it,
    };
    let at: Vec<_> = its.iter().map(|&it| schedule.at(it)).collect();
    let name = format!("{stem}/{} wpe={} wd_end={}", key[0], key[1], key[2]);
    for (what, got, want) in [
        ("lr", at.iter().map(|v| v.lr).collect::<Vec<_>>(), &lr),
        ("wd", at.iter().map(|v| v.wd).collect(), &wd),
    ] {
        let d = difference(&got, want);
        let holds = d.max_rel <= LIMIT;
        report.judged(
            format!("{name} {what}"),
            holds,
            d,
            format!("limit {LIMIT:e} of each value"),
        );
    }
    Ok(warmup as u64)
}

/// The value at iteration 0, or the first one.
fn at_start(its: &[u64], values: &[f64]) -> f64 {
    let at = its.iter().position(|&it| it == 0).unwrap_or(0);
    values.get(at).copied().unwrap_or(0.0)
}

/// The stages of one setting. The table does not state the warm-up: it is that of the schedules beside it or, failing that,
/// one with which every row agrees.
fn stages(
    stem: &str,
    table: &Table,
    (key, rows): (&[String], &[Row]),
    warmups: &[u64],
    report: &mut Report<'_>,
) -> Result<()> {
    let its: Vec<u64> = table.column(rows, 3)?;
    let want: Vec<u32> = table.column(rows, 4)?;
    let max_it = its.iter().max().map_or(0, |m| m + 1);
    let mut plan = StagePlan {
        pg: table.number(&rows[0], 0)?,
        first: table.number(&rows[0], 1)?,
        scales: table.number(&rows[0], 2)?,
        warmup_its: 0.0,
        max_it,
        ramp_its: 0.0,
    };
    let mut candidates: Vec<u64> = warmups.to_vec();
    candidates.extend(0..max_it.min(MOST_WARMUP));
    let stages =
        |plan: &StagePlan| -> Vec<u32> { its.iter().map(|&it| plan.stage(it) as u32).collect() };
    let fits = candidates.iter().copied().find(|&w| {
        plan.warmup_its = w as f64;
        stages(&plan) == want
    });
    let (best, note) = match fits {
        Some(w) if warmups.contains(&w) || warmups.is_empty() => (w, String::new()),
        Some(w) => (
            w,
            format!("with a warm-up of {w} iterations, another than the schedules'"),
        ),
        None => (
            warmups.first().copied().unwrap_or(0),
            "no warm-up explains it".to_owned(),
        ),
    };
    plan.warmup_its = best as f64;
    let d = difference(&stages(&plan), &want);
    let holds = fits.is_some() && (warmups.is_empty() || warmups.contains(&best));
    report.judged(
        format!("{stem}/pg={} pg0={} stages={}", key[0], key[1], key[2]),
        holds,
        d,
        note,
    );
    Ok(())
}
