//! What pictures are laid on before they are resized: a colour behind their transparent parts, a square around them.

use serde::{Deserialize, Serialize};
use std::fmt::{self, Display};
use std::str::FromStr;

/// What becomes of transparent parts (PNG, WebP and GIF).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Background {
    /// Transparency is left away: whatever colour lies under it is seen, as in the reference.
    Drop,
    /// They are laid over this colour: red, green, blue.
    Color([u8; 3]),
}

impl Background {
    /// White, on which most pictures with transparent parts are meant to be seen.
    pub const WHITE: Self = Self::Color([255; 3]);
    /// Black.
    pub const BLACK: Self = Self::Color([0; 3]);

    /// The colour, where there is one.
    pub fn color(self) -> Option<[u8; 3]> {
        match self {
            Self::Drop => None,
            Self::Color(color) => Some(color),
        }
    }
}

impl Display for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Drop => f.write_str("drop"),
            Self::WHITE => f.write_str("white"),
            Self::BLACK => f.write_str("black"),
            Self::Color([r, g, b]) => write!(f, "{r:02x}{g:02x}{b:02x}"),
        }
    }
}

impl FromStr for Background {
    type Err = String;

    /// Reads `white`, `black`, `drop` or a colour's six hexadecimal digits.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "drop" => return Ok(Self::Drop),
            "white" => return Ok(Self::WHITE),
            "black" => return Ok(Self::BLACK),
            _ => {}
        }
        let digits = text.strip_prefix('#').unwrap_or(text);
        let is_color = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        match u32::from_str_radix(digits, 16) {
            Ok(n) if is_color => {
                let [_, r, g, b] = n.to_be_bytes();
                Ok(Self::Color([r, g, b]))
            }
            _ => Err("give white, black, drop or a colour as RRGGBB".into()),
        }
    }
}

impl From<Background> for String {
    fn from(background: Background) -> Self {
        background.to_string()
    }
}

impl TryFrom<String> for Background {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

/// How a picture that is no square becomes one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "cli", value(rename_all = "snake_case"))]
pub enum Aspect {
    /// What is beyond a square is cut off.
    #[default]
    Crop,
    /// It is set in the middle of a square of the background's colour.
    Pad,
}

impl Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Crop => "crop",
            Self::Pad => "pad",
        })
    }
}

/// What pictures are laid on before they are resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canvas {
    /// What is seen through their transparent parts.
    pub background: Background,
    /// How they become squares.
    pub aspect: Aspect,
}

impl Default for Canvas {
    /// White, and cut to squares.
    fn default() -> Self {
        Self {
            background: Background::WHITE,
            aspect: Aspect::Crop,
        }
    }
}

impl Display for Canvas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.background {
            Background::Drop => f.write_str("transparency left away")?,
            color => write!(f, "laid over {color}")?,
        }
        f.write_str(match self.aspect {
            Aspect::Crop => ", cut to squares",
            Aspect::Pad => ", set in squares",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn backgrounds_are_read_as_they_are_written(color in any::<[u8; 3]>()) {
            for background in [Background::Color(color), Background::Drop] {
                prop_assert_eq!(background.to_string().parse::<Background>(), Ok(background));
            }
        }

        #[test]
        fn other_words_are_refused(text in "[^#]{0,9}") {
            let digits = text.len() == 6 && text.bytes().all(|b| b.is_ascii_hexdigit());
            let known = ["white", "black", "drop"].contains(&text.as_str());
            prop_assert_eq!(text.parse::<Background>().is_ok(), digits || known);
        }
    }

    #[test]
    fn a_canvas_is_kept_as_text() {
        let canvas = Canvas {
            background: Background::Color([1, 2, 255]),
            aspect: Aspect::Pad,
        };
        let text = serde_json::to_string(&canvas).unwrap();
        assert_eq!(text, r#"{"background":"0102ff","aspect":"pad"}"#);
        assert_eq!(serde_json::from_str::<Canvas>(&text).unwrap(), canvas);
        assert_eq!(canvas.to_string(), "laid over 0102ff, set in squares");
        assert_eq!(
            Canvas::default().to_string(),
            "laid over white, cut to squares"
        );
    }
}
