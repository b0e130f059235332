//! Where a pass spends its time on a GPU, beside what each operator would need at the machine's limits.

use nextscale_tensor::cuda::{Ceilings, Profile};
use std::collections::HashMap;
use std::fmt::Write;

/// How fine the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Detail {
    /// No table
    None,
    /// A row an operator
    Operators,
    /// A row for each operator, arithmetic and sizes
    Sizes,
}

/// A row of the table.
#[derive(Clone, Debug, Default, PartialEq)]
struct Line {
    name: String,
    calls: u64,
    ms: f64,
    flops: f64,
    bytes: f64,
    floor_ms: f64,
}

/// The rows by time, then what no operator accounts for, then the sum. A floor of several sizes is the sum of theirs.
fn lines(profile: &Profile, ceilings: &Ceilings, detail: Detail) -> Vec<Line> {
    let mut places: HashMap<String, usize> = HashMap::new();
    let mut lines: Vec<Line> = Vec::new();
    for row in &profile.rows {
        let name = match detail {
            Detail::Sizes if row.flops > 0.0 => {
                format!("{} {} {}", row.name, row.note, row.rate.name())
            }
            Detail::Sizes => format!("{} {}", row.name, row.note),
            Detail::None | Detail::Operators => row.name.to_owned(),
        };
        let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
        let at = *places.entry(name.clone()).or_insert_with(|| {
            lines.push(Line {
                name,
                ..Line::default()
            });
            lines.len() - 1
        });
        let line = &mut lines[at];
        line.calls += row.calls;
        line.ms += row.ms;
        line.flops += row.flops;
        line.bytes += row.bytes;
        line.floor_ms += ceilings.floor_of(row);
    }
    lines.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    let sum = Line {
        name: "all".into(),
        calls: lines.iter().map(|l| l.calls).sum(),
        ms: profile.ms,
        flops: profile.flops(),
        bytes: profile.bytes(),
        floor_ms: lines.iter().map(|l| l.floor_ms).sum(),
    };
    lines.push(Line {
        name: "other".into(),
        ms: profile.other_ms(),
        ..Line::default()
    });
    lines.push(sum);
    lines
}

/// The table as text.
pub fn of(profile: &Profile, ceilings: &Ceilings, detail: Detail) -> String {
    let lines = lines(profile, ceilings, detail);
    let width = lines.iter().map(|l| l.name.chars().count()).max();
    let width = width.unwrap_or(0).max("operator".len());
    let mut text = format!(
        "{:width$} {:>6} {:>9} {:>6} {:>9} {:>8} {:>9} {:>6}\n",
        "operator", "calls", "ms", "share", "TFLOP/s", "GB/s", "floor ms", "floor"
    );
    let whole = profile.ms;
    for l in &lines {
        let share = percent(l.ms, whole);
        let rate = |x: f64, unit: f64| match l.ms > 0.0 && x > 0.0 {
            true => format!("{:.1}", x / l.ms * 1e3 / unit),
            false => "-".into(),
        };
        let (flops, bytes) = (rate(l.flops, 1e12), rate(l.bytes, 1e9));
        let (floor, reached) = match l.floor_ms > 0.0 {
            true => (format!("{:.3}", l.floor_ms), percent(l.floor_ms, l.ms)),
            false => ("-".into(), "-".into()),
        };
        let calls = match l.calls {
            0 => "-".into(),
            n => n.to_string(),
        };
        let _ = writeln!(
            text,
            "{:width$} {calls:>6} {:>9.3} {share:>6} {flops:>9} {bytes:>8} {floor:>9} {reached:>6}",
            l.name, l.ms
        );
    }
    let Ceilings {
        half,
        tf32,
        f32,
        bandwidth,
    } = ceilings;
    let _ = writeln!(
        text,
        "measured ceilings: {:.1} TFLOP/s in half precision, {:.1} in TF32, {:.1} in float32; copies at {:.1} GB/s",
        half / 1e12,
        tf32 / 1e12,
        f32 / 1e12,
        bandwidth / 1e9
    );
    text
}

/// A share of a whole in percent.
fn percent(part: f64, whole: f64) -> String {
    if whole > 0.0 {
        format!("{:.1}%", 100.0 * part / whole)
    } else {
        "-".into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nextscale_tensor::cuda::{Precision, Row};

    const CEILINGS: Ceilings = Ceilings {
        half: 800e12,
        tf32: 400e12,
        f32: 50e12,
        bandwidth: 4e12,
    };

    fn row(name: &'static str, note: &str, rate: Precision, work: (f64, f64), ms: f64) -> Row {
        Row {
            name,
            note: note.into(),
            rate,
            calls: 2,
            ms,
            flops: work.0,
            bytes: work.1,
        }
    }

    fn profile() -> Profile {
        Profile {
            rows: vec![
                row("norm", "", Precision::Fp32, (0.0, 8e9), 4.0),
                // Bound by products: 2 ms; in TF32: 1 ms; bound by memory: 0.5 ms.
                row("linear", "big", Precision::Bf16, (1.6e12, 4e9), 2.5),
                row("linear", "big", Precision::Tf32, (4e11, 4e8), 2.0),
                row("linear", "thin", Precision::Bf16, (8e10, 2e9), 0.5),
            ],
            ms: 10.0,
        }
    }

    #[test]
    fn floors_of_sizes_add_up() {
        let all = lines(&profile(), &CEILINGS, Detail::Operators);
        let seen: Vec<_> = all
            .iter()
            .map(|l| (l.name.as_str(), l.calls, l.ms, l.floor_ms))
            .collect();
        assert_eq!(
            seen,
            [
                ("linear", 6, 5.0, 3.5),
                ("norm", 2, 4.0, 2.0),
                ("other", 0, 1.0, 0.0),
                ("all", 8, 10.0, 5.5),
            ]
        );
        let fine = lines(&profile(), &CEILINGS, Detail::Sizes);
        let names: Vec<_> = fine.iter().map(|l| l.name.as_str()).collect();
        let want = [
            "norm",
            "linear big bf16",
            "linear big tf32",
            "linear thin bf16",
            "other",
            "all",
        ];
        assert_eq!(names, want);
    }

    #[test]
    fn the_table_has_a_row_for_each() {
        let text = of(&profile(), &CEILINGS, Detail::Operators);
        let rows: Vec<Vec<&str>> = text
            .lines()
            .map(|l| l.split_whitespace().collect())
            .collect();
        assert_eq!(rows.len(), 6);
        assert_eq!(
            rows[1],
            [
                "linear", "6", "5.000", "50.0%", "416.0", "1280.0", "3.500", "70.0%"
            ]
        );
        assert_eq!(
            rows[2],
            [
                "norm", "2", "4.000", "40.0%", "-", "2000.0", "2.000", "50.0%"
            ]
        );
        assert_eq!(
            rows[3],
            ["other", "-", "1.000", "10.0%", "-", "-", "-", "-"]
        );
        assert_eq!(rows[4][..4], ["all", "8", "10.000", "100.0%"]);
        let widths: Vec<_> = text.lines().take(5).map(|l| l.chars().count()).collect();
        assert!(widths.iter().all(|w| *w == widths[0]), "{text}");
        assert!(text.ends_with("copies at 4000.0 GB/s\n"));
    }
}
