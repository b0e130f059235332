//! SVG text: lines, marks and words at places in pixels.

use std::fmt::{Display, Formatter, Write};

/// Colours of lines that people who see few colours tell apart too (Okabe and Ito 2008), those that are too pale on white left out.
pub(super) const COLORS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#b1488a", "#000000", "#8a6d00",
];
/// Of words and axes.
pub(super) const INK: &str = "#222222";
/// Of what lines are compared with.
pub(super) const GRAY: &str = "#666666";
/// Of the grid.
pub(super) const LIGHT: &str = "#e4e4e4";

/// Letters of a name at most.
const LETTERS: usize = 34;

/// A name, cut where it is long.
pub(super) fn short(name: &str) -> String {
    match name.char_indices().nth(LETTERS) {
        None => name.to_owned(),
        Some(_) => {
            let kept: String = name.chars().take(LETTERS - 1).collect();
            format!("{kept}…")
        }
    }
}

/// About how wide a text of size 12 is, in pixels: fonts differ.
pub(super) fn width_of(text: &str) -> f64 {
    7.0 * text.chars().count() as f64
}

/// Which part of a text stands at its place.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    Start,
    Middle,
    End,
}

impl Display for Anchor {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        })
    }
}

/// A text as XML may hold it: what means something there written as entities, characters that it can't hold at all replaced.
pub(super) struct Escaped<'a>(pub(super) &'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&apos;")?,
                '\t' | '\n' | '\r' => f.write_char(' ')?,
                c if c < ' ' || matches!(c, '\u{fffe}' | '\u{ffff}') => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

/// An SVG file in the making.
pub(super) struct Canvas {
    text: String,
}

impl Canvas {
    /// A white picture; `title` is told to those who can't see it.
    pub(super) fn new((width, height): (f64, f64), title: &str) -> Self {
        let mut canvas = Self {
            text: String::new(),
        };
        canvas.add(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" font-family="Helvetica, Arial, sans-serif">"#
        ));
        canvas.add(format_args!("<title>{}</title>", Escaped(title)));
        canvas.add(format_args!(
            r##"<rect width="{width}" height="{height}" fill="#ffffff"/>"##
        ));
        canvas
    }

    fn add(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a text does not fail.
        let _ = writeln!(self.text, "{line}");
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), color: &str, dashed: bool) {
        let dashes = if dashed {
            r#" stroke-dasharray="6 4""#
        } else {
            ""
        };
        self.add(format_args!(
            r#"<line x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}" stroke="{color}"{dashes}/>"#,
            from.0, from.1, to.0, to.1
        ));
    }

    /// A line through these points.
    pub(super) fn path(&mut self, points: &[(f64, f64)], color: &str) {
        if points.len() < 2 {
            return;
        }
        let places = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}"));
        let places = places.collect::<Vec<_>>().join(" ");
        self.add(format_args!(
            r#"<polyline points="{places}" fill="none" stroke="{color}" stroke-width="2"/>"#
        ));
    }

    /// A point; lines that follow each other have points of different shapes.
    pub(super) fn mark(&mut self, (x, y): (f64, f64), kind: usize, color: &str) {
        if kind.is_multiple_of(4) {
            return self.add(format_args!(
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{color}"/>"#
            ));
        }
        let corners: &[(f64, f64)] = match kind % 4 {
            1 => &[(-3.2, -3.2), (3.2, -3.2), (3.2, 3.2), (-3.2, 3.2)],
            2 => &[(0.0, -4.6), (4.2, 3.2), (-4.2, 3.2)],
            _ => &[(0.0, -4.6), (4.6, 0.0), (0.0, 4.6), (-4.6, 0.0)],
        };
        let places = corners
            .iter()
            .map(|(dx, dy)| format!("{:.1},{:.1}", x + dx, y + dy));
        let places = places.collect::<Vec<_>>().join(" ");
        self.add(format_args!(
            r#"<polygon points="{places}" fill="{color}"/>"#
        ));
    }

    pub(super) fn text(
        &mut self,
        (x, y): (f64, f64),
        anchor: Anchor,
        color: &str,
        size: u32,
        text: &str,
    ) {
        self.add(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{color}" font-size="{size}">{}</text>"#,
            Escaped(text)
        ));
    }

    /// Words from below to above, around a place.
    pub(super) fn text_upwards(&mut self, (x, y): (f64, f64), color: &str, size: u32, text: &str) {
        self.add(format_args!(
            r#"<text transform="translate({x:.1} {y:.1}) rotate(-90)" text-anchor="middle" fill="{color}" font-size="{size}">{}</text>"#,
            Escaped(text)
        ));
    }

    /// The whole file.
    pub(super) fn end(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }
}
