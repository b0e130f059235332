//! Line plots as SVG files: figures against a setting, readable on white, with names at the ends of lines.
//!
//! The text depends on the plot alone, so that the same figures give the same file.

mod axis;
mod svg;
#[cfg(test)]
mod tests;

use crate::Result;
use crate::format::write_atomic;
use axis::Axis;
use std::path::Path;
use svg::{Anchor, COLORS, Canvas, GRAY, INK, LIGHT, short, width_of};

/// A plot of lines. Points that are no finite numbers are left out, and part their line.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plot {
    /// What stands above it.
    pub title: String,
    /// What goes to the right, with its unit.
    pub x_label: String,
    /// What goes up, with its unit.
    pub y_label: String,
    /// The lines.
    pub series: Vec<Series>,
    /// Values to compare with, as dashed lines from side to side.
    pub references: Vec<Reference>,
}

/// A line of a plot.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Series {
    /// What it is called.
    pub name: String,
    /// Its points (x, y), which are joined in this order.
    pub points: Vec<(f64, f64)>,
}

/// A value that does not depend on x.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reference {
    /// What it is called.
    pub name: String,
    /// The value.
    pub y: f64,
}

/// Size of the picture, in pixels.
const SIZE: (f64, f64) = (760.0, 440.0);
/// What is left free above and below the lines.
const TOP: f64 = 44.0;
const BELOW: f64 = 56.0;
/// The least distance of two names at the right.
const LINE: f64 = 16.0;
/// About as many parts as an axis has at most.
const PARTS: usize = 6;

/// Whether a value has a place: sums and differences of such values are finite too.
fn has_place(value: f64) -> bool {
    value.is_finite() && value.abs() <= 1e300
}

impl Plot {
    /// The plot as the text of an SVG file.
    pub fn svg(&self) -> String {
        let drawn = |&&(x, y): &&(f64, f64)| has_place(x) && has_place(y);
        let points = || self.series.iter().flat_map(|s| &s.points).filter(drawn);
        let lines = || {
            self.references
                .iter()
                .map(|r| r.y)
                .filter(|&y| has_place(y))
        };
        let x_axis = Axis::of(points().map(|p| p.0), PARTS);
        let y_axis = Axis::of(points().map(|p| p.1).chain(lines()), PARTS);

        let names = self.series.iter().map(|s| s.name.as_str());
        let names = names.chain(self.references.iter().map(|r| r.name.as_str()));
        let right = names.map(|name| width_of(&short(name))).fold(0.0, f64::max) + 34.0;
        let ticks = y_axis.labels();
        let left = ticks.iter().map(|t| width_of(t)).fold(0.0, f64::max) + 46.0;
        let area = Area {
            left,
            right: SIZE.0 - right,
            x_axis,
            y_axis,
        };

        let mut canvas = Canvas::new(SIZE, &self.title);
        let middle = (left + area.right) / 2.0;
        canvas.text((middle, 24.0), Anchor::Middle, INK, 15, &self.title);
        area.axes(&mut canvas);
        canvas.text(
            (middle, SIZE.1 - 14.0),
            Anchor::Middle,
            INK,
            12,
            &self.x_label,
        );
        let up = (TOP + SIZE.1 - BELOW) / 2.0;
        canvas.text_upwards((16.0, up), INK, 12, &self.y_label);
        if points().next().is_none() && lines().next().is_none() {
            canvas.text((middle, up), Anchor::Middle, GRAY, 12, "nothing to show");
            return canvas.end();
        }
        let mut labels = Vec::new();
        for reference in self.references.iter().filter(|r| has_place(r.y)) {
            let y = area.y(reference.y);
            canvas.line((area.left, y), (area.right, y), GRAY, true);
            labels.push(Label {
                y,
                name: &reference.name,
                color: GRAY,
                mark: None,
            });
        }
        for (i, series) in self.series.iter().enumerate() {
            let color = COLORS[i % COLORS.len()];
            let parts = series.points.split(|p| !drawn(&p));
            let parts = parts.map(|part| part.iter().map(|&(x, y)| (area.x(x), area.y(y))));
            let parts: Vec<Vec<(f64, f64)>> = parts.map(Iterator::collect).collect();
            for part in &parts {
                canvas.path(part, color);
                part.iter().for_each(|&at| canvas.mark(at, i, color));
            }
            if let Some(last) = parts.iter().flatten().max_by(|a, b| a.0.total_cmp(&b.0)) {
                labels.push(Label {
                    y: last.1,
                    name: &series.name,
                    color,
                    mark: Some(i),
                });
            }
        }
        area.names(&mut canvas, labels);
        canvas.end()
    }

    /// Writes it as an SVG file.
    ///
    /// # Errors
    /// Where the disk refuses.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        write_atomic(path, |out| out.write_all(self.svg().as_bytes()))
    }
}

/// A name at the right.
struct Label<'a> {
    y: f64,
    name: &'a str,
    color: &'static str,
    /// The marks of its points; `None` of a dashed line.
    mark: Option<usize>,
}

/// Where lines are.
struct Area {
    left: f64,
    right: f64,
    x_axis: Axis,
    y_axis: Axis,
}

impl Area {
    fn x(&self, value: f64) -> f64 {
        self.left + self.x_axis.share(value) * (self.right - self.left)
    }

    fn y(&self, value: f64) -> f64 {
        let bottom = SIZE.1 - BELOW;
        bottom - self.y_axis.share(value) * (bottom - TOP)
    }

    /// Grid lines with their values.
    fn axes(&self, canvas: &mut Canvas) {
        let bottom = SIZE.1 - BELOW;
        for (value, label) in self.y_axis.ticks().into_iter().zip(self.y_axis.labels()) {
            let y = self.y(value);
            canvas.line((self.left, y), (self.right, y), LIGHT, false);
            canvas.text((self.left - 8.0, y + 4.0), Anchor::End, INK, 12, &label);
        }
        for (value, label) in self.x_axis.ticks().into_iter().zip(self.x_axis.labels()) {
            let x = self.x(value);
            canvas.line((x, bottom), (x, bottom + 5.0), INK, false);
            canvas.text((x, bottom + 20.0), Anchor::Middle, INK, 12, &label);
        }
        canvas.line((self.left, bottom), (self.right, bottom), INK, false);
        canvas.line((self.left, TOP), (self.left, bottom), INK, false);
    }

    /// Names beside the ends of their lines, moved apart where they would lie over each other.
    fn names(&self, canvas: &mut Canvas, mut labels: Vec<Label<'_>>) {
        labels.sort_by(|a, b| a.y.total_cmp(&b.y));
        let lowest = SIZE.1 - BELOW;
        let mut free = TOP;
        for label in &mut labels {
            label.y = label.y.max(free);
            free = label.y + LINE;
        }
        // What was pushed out below goes up again, with what is above it.
        let mut free = lowest;
        for label in labels.iter_mut().rev() {
            label.y = label.y.min(free);
            free = label.y - LINE;
        }
        for label in labels {
            let at = (self.right + 14.0, label.y);
            match label.mark {
                Some(kind) => canvas.mark(at, kind, label.color),
                None => canvas.line((at.0 - 6.0, at.1), (at.0 + 6.0, at.1), label.color, true),
            }
            let at = (at.0 + 11.0, at.1 + 4.0);
            canvas.text(at, Anchor::Start, label.color, 12, &short(label.name));
        }
    }
}
