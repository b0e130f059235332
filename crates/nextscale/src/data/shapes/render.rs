//! Draws one picture of the built-in data set.
//!
//! Coordinates are those of the unit square, y downwards. Outlines are signed distances (negative inside); a
//! pixel's coverage is the distance of its centre clamped to half a pixel on either side, which smooths edges.

use std::f32::consts::{PI, TAU};

use nextscale_tensor::rng::{Purpose, Stream};

use super::{Class, Form, Texture};

/// Everything that makes a picture, independent of its resolution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scene {
    form: Form,
    /// For polygons, the directions in which their sides face.
    sides: [[f32; 2]; 6],
    texture: Texture,
    light: [f32; 3],
    dark: [f32; 3],
    center: [f32; 2],
    /// Distance from the centre to the farthest point of the outline.
    radius: f32,
    /// Cosine and sine of the rotation.
    turn: [f32; 2],
    /// Offset of the texture, in periods.
    phase: [f32; 2],
    /// The background's colours at its two ends and the direction from one to the other.
    ground: [[f32; 3]; 2],
    slope: [f32; 2],
}

/// Distance after which a texture repeats.
const PERIOD: f32 = 0.22;
/// The darker parts of a texture relative to the lighter ones.
const DARKER: f32 = 0.5;

impl Scene {
    /// Draws the scene of picture `index` of a split from its stream.
    pub(super) fn draw(class: &Class, seed: u64, step: u64, index: u64) -> Self {
        let mut stream = Stream::new(seed, Purpose::Shapes, step, index);
        let mut within = |low: f32, high: f32| low + (high - low) * stream.uniform();
        let center = [within(0.41, 0.59), within(0.41, 0.59)];
        let radius = within(0.29, 0.38);
        let angle = within(-0.35, 0.35);
        let shade = within(0.85, 1.0);
        // Textures sit nearly where their shape does: any offset would make the smallest models learn noise.
        let phase = [within(0.0, 0.2), within(0.0, 0.2)];
        let mut end = || {
            let gray = within(0.10, 0.36);
            [0, 1, 2].map(|_| gray + within(-0.05, 0.05))
        };
        let ground = [end(), end()];
        let direction = within(0.0, TAU);
        let light = class.rgb.map(|c| c * shade);
        Self {
            form: class.form,
            sides: class.form.sides(),
            texture: class.texture,
            light,
            dark: light.map(|c| c * DARKER),
            center,
            radius,
            turn: [angle.cos(), angle.sin()],
            phase,
            ground,
            slope: [direction.cos(), direction.sin()],
        }
    }

    /// Fills `pixels` (`[side, side, 3]`).
    pub(super) fn render(&self, side: usize, pixels: &mut [u8]) {
        let size = 1.0 / side as f32;
        for (y, row) in pixels.chunks_exact_mut(3 * side).enumerate() {
            for (x, rgb) in row.as_chunks_mut::<3>().0.iter_mut().enumerate() {
                let at = [(x as f32 + 0.5) * size, (y as f32 + 0.5) * size];
                *rgb = self.color(at, size).map(|c| (c * 255.0).round() as u8);
            }
        }
    }

    /// The colour of the pixel of side `size` around `at`.
    fn color(&self, at: [f32; 2], size: f32) -> [f32; 3] {
        let p = [at[0] - 0.5, at[1] - 0.5];
        let along = 0.5 + (p[0] * self.slope[0] + p[1] * self.slope[1]) / 1.415;
        let ground = mix(self.ground[0], self.ground[1], along);
        let q = [at[0] - self.center[0], at[1] - self.center[1]];
        if q[0].hypot(q[1]) > self.radius + size {
            return ground;
        }
        // Into the shape's own frame.
        let [cos, sin] = self.turn;
        let q = [q[0] * cos + q[1] * sin, q[1] * cos - q[0] * sin];
        let inside = coverage(self.form.distance(q, self.radius, &self.sides), size);
        if inside <= 0.0 {
            return ground;
        }
        let dark = self.texture.darkness(q, self.phase, size);
        mix(ground, mix(self.light, self.dark, dark), inside)
    }
}

fn mix(a: [f32; 3], b: [f32; 3], share: f32) -> [f32; 3] {
    [0, 1, 2].map(|c| a[c] + (b[c] - a[c]) * share)
}

/// How much of a pixel lies inside an edge at a signed distance.
fn coverage(distance: f32, size: f32) -> f32 {
    (0.5 - distance / size).clamp(0.0, 1.0)
}

impl Form {
    /// Corners of a regular polygon, 0 for other outlines.
    fn corners(self) -> usize {
        match self {
            Self::Triangle => 3,
            Self::Square => 4,
            Self::Pentagon => 5,
            Self::Hexagon => 6,
            _ => 0,
        }
    }

    /// Where the sides of a regular polygon face: a corner is at the top, but a square rests on its side.
    fn sides(self) -> [[f32; 2]; 6] {
        let count = self.corners();
        let half = PI / count.max(1) as f32;
        let start = if count == 4 { 0.0 } else { half };
        let mut sides = [[0.0; 2]; 6];
        for (i, side) in sides.iter_mut().enumerate().take(count) {
            let (sin, cos) = (start + 2.0 * half * i as f32).sin_cos();
            *side = [sin, -cos];
        }
        sides
    }

    /// The signed distance (exact at the edges that matter for smoothing) of `p` from the outline of a shape
    /// whose farthest point lies `r` from its centre.
    fn distance(self, p: [f32; 2], r: f32, sides: &[[f32; 2]; 6]) -> f32 {
        let [x, y] = p;
        let length = x.hypot(y);
        match self {
            Self::Circle => length - 0.9 * r,
            Self::Ring => (length - 0.75 * r).abs() - 0.25 * r,
            Self::Crescent => (length - r).max(0.8 * r - (x - 0.45 * r).hypot(y)),
            Self::Square | Self::Triangle | Self::Pentagon | Self::Hexagon => {
                let count = self.corners();
                let apothem = r * (PI / count as f32).cos();
                sides[..count]
                    .iter()
                    .map(|side| p[0] * side[0] + p[1] * side[1] - apothem)
                    .fold(f32::MIN, f32::max)
            }
            Self::Diamond => {
                // The edge from (0.6 r, 0) to (0, r).
                (x.abs() * r + y.abs() * 0.6 * r - 0.6 * r * r) / (r * 1.0f32.hypot(0.6))
            }
            Self::Bar => (x.abs() - 0.97 * r).max(y.abs() - 0.24 * r),
            Self::Cross => {
                let (long, short) = (0.94 * r, 0.32 * r);
                let flat = (x.abs() - long).max(y.abs() - short);
                flat.min((y.abs() - long).max(x.abs() - short))
            }
            Self::Heart => {
                // A square on its corner with half-discs on its two upper sides.
                let (side, y) = (0.46 * r, y - 0.17 * r);
                let (u, v) = (
                    (x + y) * std::f32::consts::FRAC_1_SQRT_2,
                    (y - x) * std::f32::consts::FRAC_1_SQRT_2,
                );
                let square = u.abs().max(v.abs()) - side;
                square
                    .min(u.hypot(v + side) - side)
                    .min((u + side).hypot(v) - side)
            }
            Self::Star => {
                // Fold into half a point, then one edge from the tip to the notch.
                let sector = TAU / 5.0;
                let angle = x.atan2(-y).rem_euclid(sector);
                let angle = angle.min(sector - angle);
                let (px, py) = (length * angle.cos(), length * angle.sin());
                let notch = 0.45 * r;
                let (nx, ny) = (notch * (PI / 5.0).cos(), notch * (PI / 5.0).sin());
                let edge = (nx - r).hypot(ny);
                ((px - r) * ny - py * (nx - r)) / edge
            }
        }
    }
}

impl Texture {
    /// How much of the pixel around `p` is dark.
    fn darkness(self, p: [f32; 2], phase: [f32; 2], size: f32) -> f32 {
        let wave = |axis: usize| {
            let t = (p[axis] / PERIOD + phase[axis]).rem_euclid(1.0) - 0.5;
            (t, coverage((t.abs() - 0.25) * PERIOD, size))
        };
        let ((u, across), (v, down)) = (wave(0), wave(1));
        match self {
            Self::Plain => 0.0,
            Self::Striped => down,
            Self::Dotted => coverage((u.hypot(v) - 0.3) * PERIOD, size),
            Self::Checked => across + down - 2.0 * across * down,
        }
    }
}
