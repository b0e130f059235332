use super::axis::Axis;
use super::svg::{Escaped, short};
use super::*;
use proptest::prelude::*;

fn axis(values: &[f64]) -> Axis {
    Axis::of(values.iter().copied(), PARTS)
}

#[test]
fn ticks_are_round() {
    let labels = |values: &[f64]| axis(values).labels().join(" ");
    assert_eq!(labels(&[0.0, 4.0]), "0 1 2 3 4");
    assert_eq!(labels(&[1.0, 3.0]), "1.0 1.5 2.0 2.5 3.0");
    assert_eq!(labels(&[12.3, 57.0]), "0 10 20 30 40 50 60");
    assert_eq!(labels(&[40.2, 57.0]), "40 45 50 55 60");
    assert_eq!(labels(&[-0.3, 0.31]), "-0.4 -0.2 0.0 0.2 0.4");
    assert_eq!(labels(&[2.0]), "1.8 1.9 2.0 2.1 2.2");
    assert_eq!(labels(&[2e9, 1e10]), "0 2e9 4e9 6e9 8e9 1.0e10");
    assert_eq!(labels(&[]), "0.0 0.2 0.4 0.6 0.8 1.0");
    assert_eq!(axis(&[0.0, 0.6]).ticks()[3], 0.3);
    assert_eq!(axis(&[0.0, 4.0]).share(1.0), 0.25);
}

proptest! {
    #[test]
    fn ticks_hold_all_values_between_them(
        values in prop::collection::vec(prop_oneof![-1e300..1e300f64, -50.0..50.0f64, 0.0..1e-12f64, 1e6..1.001e6f64], 1..6)
    ) {
        let axis = axis(&values);
        let ticks = axis.ticks();
        prop_assert!((2..=PARTS + 2).contains(&ticks.len()), "{ticks:?}");
        let labels = axis.labels();
        for pair in labels.windows(2) {
            prop_assert!(pair[0] != pair[1], "{labels:?}");
        }
        let step = ticks[1] - ticks[0];
        let mantissa = step / 10f64.powi((step * 1.0001).log10().floor() as i32);
        prop_assert!([1.0, 2.0, 5.0].iter().any(|m| (mantissa - m).abs() < 1e-6), "{ticks:?}");
        for (tick, label) in ticks.iter().zip(&labels) {
            // What is written is where it stands.
            let said: f64 = label.parse().unwrap();
            prop_assert!((said - tick).abs() <= 1e-6 * step, "{tick} {label}");
            prop_assert!((tick / step).round() * step - tick <= 1e-6 * step);
        }
        let (first, last) = (ticks[0], ticks[ticks.len() - 1]);
        for value in values {
            prop_assert!(first - 1e-6 * step <= value && value <= last + 1e-6 * step);
            prop_assert!((0.0..=1.0).contains(&axis.share(value)));
        }
    }

    #[test]
    fn any_plot_is_a_file(
        title in ".*",
        name in ".*",
        points in prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY), 0..8),
        y in prop::num::f64::ANY,
    ) {
        let plot = Plot {
            x_label: title.clone(),
            y_label: name.clone(),
            title,
            series: vec![Series { name: name.clone(), points }],
            references: vec![Reference { name, y }],
        };
        let text = plot.svg();
        well_formed(&text);
        prop_assert!(!text.contains("NaN") && !text.contains("inf"));
    }
}

/// Elements of a text, which must be opened and closed in order, with their attributes quoted and their characters allowed.
fn well_formed(text: &str) -> Vec<String> {
    let allowed = |c: char| c == '\n' || (c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}'));
    assert!(text.chars().all(allowed));
    let (mut open, mut all) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(start) = rest.find('<') {
        entities(&rest[..start]);
        let end = start + rest[start..].find('>').expect("an end");
        let tag = &rest[start + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name));
            continue;
        }
        let (tag, is_closed) = match tag.strip_suffix('/') {
            Some(tag) => (tag, true),
            None => (tag, false),
        };
        let name = tag.split(' ').next().unwrap().to_owned();
        let quoted: Vec<&str> = tag.split('"').collect();
        assert_eq!(quoted.len() % 2, 1, "{tag}");
        for (i, part) in quoted.iter().enumerate() {
            match i % 2 {
                0 if i + 1 < quoted.len() => assert!(part.ends_with('='), "{tag}"),
                0 => assert!(!part.contains('='), "{tag}"),
                _ => entities(part),
            }
        }
        all.push(name.clone());
        if !is_closed {
            open.push(name);
        }
    }
    assert!(open.is_empty() && rest.trim().is_empty(), "{open:?}");
    all
}

/// No character that means something stands alone.
fn entities(text: &str) {
    for part in text.split('&').skip(1) {
        let known = ["amp;", "lt;", "gt;", "quot;", "apos;"];
        assert!(known.iter().any(|k| part.starts_with(k)), "{text}");
    }
    assert!(!text.contains(['>', '<']), "{text}");
}

fn sweep() -> Plot {
    let series = |name: &str, ys: [f64; 5]| Series {
        name: name.to_owned(),
        points: ys.iter().enumerate().map(|(x, &y)| (x as f64, y)).collect(),
    };
    Plot {
        title: "Own features against guidance".into(),
        x_label: "guidance (cfg)".into(),
        y_label: "Fréchet distance".into(),
        series: vec![
            series("samples", [61.0, 32.0, 21.5, 24.0, 30.0]),
            series("top_p=0.9", [50.0, 31.0, 23.5, 26.0, 31.0]),
        ],
        references: vec![Reference {
            name: "test images".into(),
            y: 1.2,
        }],
    }
}

#[test]
fn a_plot_has_its_lines_points_and_names() {
    let text = sweep().svg();
    let elements = well_formed(&text);
    let count = |name: &str| elements.iter().filter(|e| *e == name).count();
    // A mark for every point and one beside its name.
    assert_eq!(
        [count("circle"), count("polygon"), count("polyline")],
        [6, 6, 2]
    );
    assert_eq!(text.matches("stroke-dasharray").count(), 2);
    for part in [
        ">samples<",
        ">top_p=0.9<",
        ">test images<",
        ">guidance (cfg)<",
        ">Fréchet distance<",
    ] {
        assert_eq!(text.matches(part).count(), 1, "{part}");
    }
    assert_eq!(text, sweep().svg());
    // The lowest distance is drawn lowest: y grows downwards.
    let line = text.lines().find(|l| l.starts_with("<polyline")).unwrap();
    let places = line.split('"').nth(1).unwrap();
    let ys: Vec<f64> = places
        .split(' ')
        .map(|p| p.split(',').nth(1).unwrap().parse().unwrap())
        .collect();
    assert!(ys[2] > ys[1] && ys[2] > ys[3] && ys[0] < ys[1], "{ys:?}");
    // Names do not lie over each other.
    let names = ["samples", "top_p=0.9", "test images"].map(|name| {
        let line = text
            .lines()
            .find(|l| l.contains(&format!(">{name}<")))
            .unwrap();
        let y = line.split("y=\"").nth(1).unwrap();
        y.split('"').next().unwrap().parse::<f64>().unwrap()
    });
    assert!((names[0] - names[1]).abs() >= LINE - 0.11, "{names:?}");
    assert!((names[1] - names[2]).abs() >= LINE - 0.11, "{names:?}");
}

#[test]
fn what_has_no_place_is_left_out() {
    let mut plot = sweep();
    plot.series.truncate(1);
    plot.references.clear();
    plot.series[0].points[2].1 = f64::NAN;
    let text = plot.svg();
    let elements = well_formed(&text);
    let count = |name: &str| elements.iter().filter(|e| *e == name).count();
    // The gap parts the line.
    assert_eq!([count("circle"), count("polyline")], [5, 2]);

    plot.series[0].points.truncate(1);
    let elements = well_formed(&plot.svg());
    assert!(!elements.contains(&"polyline".to_owned()));
    assert!(elements.contains(&"circle".to_owned()));

    plot.series[0].points = vec![(f64::INFINITY, 1.0)];
    assert!(plot.svg().contains("nothing to show"));
    well_formed(&Plot::default().svg());
}

#[test]
fn texts_are_escaped() {
    let text = Escaped("a<b> & \"c\" 'd'\u{7}\n").to_string();
    assert_eq!(
        text,
        "a&lt;b&gt; &amp; &quot;c&quot; &apos;d&apos;\u{fffd} "
    );
    let long = "ä".repeat(60);
    assert_eq!(short(&long).chars().count(), 34);
    assert!(short(&long).ends_with('…'));
    assert_eq!(short("cfg"), "cfg");
}

#[test]
fn a_file_is_the_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("plot.svg");
    sweep().save(&path).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), sweep().svg());
}
