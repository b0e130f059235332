//! One axis of a resize: which inputs make up each output, with which weights.

use crate::ops::max_pool::Window;

/// Which resize.
#[derive(Clone, Copy, Debug)]
pub(in crate::ops) enum Kind {
    Area,
    Bicubic,
    /// Half-pixel centres.
    Bilinear,
    /// Pixel i of the output at i·from/to, as TensorFlow 1 had it.
    AsymmetricBilinear,
    /// Averages of windows; `padding` says whether what is padded counts, as zeros.
    Windows {
        window: Window,
        padding: bool,
    },
}

/// Weighted sums from `from` inputs to as many outputs as there are rows.
#[derive(Clone, Debug)]
pub(in crate::ops) struct Axis {
    pub(super) from: usize,
    /// (input, weight) of every output.
    pub(super) rows: Vec<Vec<(usize, f32)>>,
}

impl Axis {
    pub(in crate::ops) fn new(kind: Kind, from: usize, to: usize) -> Self {
        match kind {
            Kind::Area => Self::area(from, to),
            Kind::Bicubic => Self::bicubic(from, to),
            Kind::Bilinear => Self::bilinear(from, to, |i, scale| {
                scale.mul_add(i as f32 + 0.5, -0.5).max(0.0)
            }),
            Kind::AsymmetricBilinear => Self::bilinear(from, to, |i, scale| i as f32 * scale),
            Kind::Windows { window, padding } => Self::windows(from, to, window, padding),
        }
    }

    /// Two neighbours of the place `at(output, scale)`.
    fn bilinear(from: usize, to: usize, at: impl Fn(usize, f32) -> f32) -> Self {
        let scale = from as f32 / to as f32;
        let rows = (0..to)
            .map(|i| {
                let at = at(i, scale);
                let first = (at as usize).min(from - 1);
                let t = at - first as f32;
                match first + 1 < from {
                    true => vec![(first, 1.0 - t), (first + 1, t)],
                    false => vec![(first, 1.0)],
                }
            })
            .collect();
        Self { from, rows }
    }

    /// Averages of windows that may reach over the edge.
    fn windows(from: usize, to: usize, window: Window, padding: bool) -> Self {
        let rows = (0..to)
            .map(|i| {
                let pixels = window.pixels(i, from);
                let count = if padding { window.size } else { pixels.len() };
                pixels.map(|j| (j, 1.0 / count as f32)).collect()
            })
            .collect();
        Self { from, rows }
    }

    /// Averages of windows.
    fn area(from: usize, to: usize) -> Self {
        let rows = (0..to)
            .map(|i| {
                let window = i * from / to..((i + 1) * from).div_ceil(to);
                let weight = 1.0 / window.len() as f32;
                window.map(|j| (j, weight)).collect()
            })
            .collect();
        Self { from, rows }
    }

    /// Four neighbours by Keys' kernel; weights in float32 as the framework computes them.
    fn bicubic(from: usize, to: usize) -> Self {
        let scale = from as f32 / to as f32;
        let rows = (0..to)
            .map(|i| {
                let at = scale.mul_add(i as f32 + 0.5, -0.5);
                let floor = at.floor();
                let t = at - floor;
                let weights = [outer(t + 1.0), inner(t), inner(1.0 - t), outer(2.0 - t)];
                let mut row: Vec<(usize, f32)> = Vec::with_capacity(4);
                for (k, w) in weights.into_iter().enumerate() {
                    let j = (floor as isize + k as isize - 1).clamp(0, from as isize - 1);
                    row.push((j as usize, w));
                }
                row
            })
            .collect();
        Self { from, rows }
    }

    /// Outputs and inputs exchanged.
    pub(super) fn transposed(&self) -> Self {
        let mut rows = vec![Vec::new(); self.from];
        for (i, row) in self.rows.iter().enumerate() {
            for &(j, w) in row {
                rows[j].push((i, w));
            }
        }
        Self {
            from: self.rows.len(),
            rows,
        }
    }

    /// Whether every output is its input.
    pub(super) fn is_identity(&self) -> bool {
        self.rows.len() == self.from
            && self
                .rows
                .iter()
                .enumerate()
                .all(|(i, r)| matches!(r[..], [(j, w)] if j == i && w == 1.0))
    }
}

const A: f32 = -0.75;

/// The kernel within one pixel.
fn inner(x: f32) -> f32 {
    ((A + 2.0).mul_add(x, -(A + 3.0)) * x * x) + 1.0
}

/// The kernel from one to two pixels.
fn outer(x: f32) -> f32 {
    (A.mul_add(x, -5.0 * A).mul_add(x, 8.0 * A)) * x - 4.0 * A
}
