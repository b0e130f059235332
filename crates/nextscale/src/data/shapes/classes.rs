//! The classes of the built-in data set.

/// The outline of a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// A disc.
    Circle,
    /// A moon: a disc with another cut out of it.
    Crescent,
    /// A plus of two bars.
    Cross,
    /// A rhombus, higher than wide.
    Diamond,
    /// A heart.
    Heart,
    /// Six equal sides.
    Hexagon,
    /// Five equal sides.
    Pentagon,
    /// A disc with a round hole.
    Ring,
    /// Four equal sides.
    Square,
    /// Five points.
    Star,
    /// Three equal sides.
    Triangle,
    /// A rectangle four times as long as wide.
    Bar,
}

/// What covers a shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Texture {
    /// One colour.
    Plain,
    /// Dark parallel stripes.
    Striped,
    /// A grid of dark dots.
    Dotted,
    /// A dark chessboard pattern.
    Checked,
}

/// A class of the built-in data set.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Class {
    /// The colour's name.
    pub color: &'static str,
    /// Red, green and blue of the lighter parts, 0 to 1.
    pub rgb: [f32; 3],
    /// The outline.
    pub form: Form,
    /// The covering.
    pub texture: Texture,
}

impl Class {
    /// The name, such as `red-circle-plain`.
    pub fn name(&self) -> String {
        format!("{}-{:?}-{:?}", self.color, self.form, self.texture).to_lowercase()
    }
}

/// All classes, in the order of their names, which is that of their labels.
pub fn classes() -> &'static [Class; 12] {
    const fn class(color: &'static str, rgb: [f32; 3], form: Form, texture: Texture) -> Class {
        Class {
            color,
            rgb,
            form,
            texture,
        }
    }
    const CLASSES: [Class; 12] = [
        class("blue", [0.12, 0.25, 0.95], Form::Square, Texture::Striped),
        class("brown", [0.55, 0.30, 0.10], Form::Bar, Texture::Plain),
        class("cyan", [0.10, 0.85, 0.90], Form::Cross, Texture::Plain),
        class("green", [0.05, 0.62, 0.15], Form::Triangle, Texture::Plain),
        class("lime", [0.65, 1.00, 0.15], Form::Pentagon, Texture::Checked),
        class("magenta", [0.95, 0.10, 0.80], Form::Ring, Texture::Plain),
        class(
            "orange",
            [1.00, 0.50, 0.05],
            Form::Diamond,
            Texture::Checked,
        ),
        class("pink", [1.00, 0.65, 0.75], Form::Heart, Texture::Plain),
        class("purple", [0.45, 0.15, 0.70], Form::Crescent, Texture::Plain),
        class("red", [0.90, 0.08, 0.08], Form::Circle, Texture::Plain),
        class("white", [0.97, 0.97, 0.97], Form::Hexagon, Texture::Dotted),
        class("yellow", [1.00, 0.90, 0.10], Form::Star, Texture::Plain),
    ];
    &CLASSES
}
