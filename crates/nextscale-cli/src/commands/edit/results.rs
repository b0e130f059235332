//! Where the results of `edit` go, and what their files say.

use super::super::file_names::file_names;
use super::super::record::{Image, Origin, Record};
use nextscale::data::Canvas;
use nextscale::pictures::{Picture, PngText, grid};
use nextscale::{Result, say};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// The flags that decide the pixels, as a picture's file keeps them.
#[derive(Clone, Debug, Serialize)]
pub struct Flags {
    pub image: String,
    pub image_sha256: String,
    /// What it was laid on.
    #[serde(flatten)]
    pub canvas: Canvas,
    pub mode: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#box: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mask: Option<Mask>,
    /// The label, where a class was given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<i32>,
    pub count: usize,
    pub seed: u64,
    pub cfg: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub keep_original: bool,
    /// Pixels over which it blends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub feather: Option<usize>,
}

/// A picture that is a mask.
#[derive(Clone, Debug, Serialize)]
pub struct Mask {
    pub file: String,
    pub sha256: String,
}

impl Flags {
    fn in_words(&self) -> String {
        let region = match (&self.r#box, &self.mask) {
            (Some(corners), _) => format!("--box={corners}"),
            (None, Some(mask)) => format!("--mask={}", mask.file),
            (None, None) => String::new(),
        };
        let kept = match self.feather {
            Some(feather) => format!(" --keep_original --feather={feather}"),
            None => String::new(),
        };
        format!(
            "--image={} --background={} --aspect={} --mode={} {region} --seed={} --cfg={} --top_k={} --top_p={}{kept}",
            self.image,
            self.canvas.background,
            self.canvas.aspect,
            self.mode,
            self.seed,
            self.cfg,
            self.top_k,
            self.top_p
        )
    }
}

/// The results, on their way to one picture or to files in a folder.
pub struct Results {
    out: PathBuf,
    to_folder: bool,
    side: usize,
    record: Record<Flags>,
    /// Name of the class, where it has one.
    class_name: Option<String>,
    /// How files in a folder begin.
    name: String,
    digits: usize,
    tiles: Vec<u8>,
    taken: usize,
}

impl Results {
    /// For square results of side `side`; `names` are those of all classes.
    pub fn new(
        out: &Path,
        to_folder: bool,
        side: usize,
        flags: Flags,
        origin: Origin,
        names: Option<Vec<String>>,
    ) -> Self {
        let of_class = |names: &[String]| -> Option<String> {
            names.get(usize::try_from(flags.class?).ok()?).cloned()
        };
        let class_name = names.as_deref().and_then(of_class);
        let file = names.as_deref().map(file_names);
        let name = match (file.as_deref().and_then(of_class), flags.class) {
            (Some(name), _) => name,
            (None, Some(class)) => format!("class{class}"),
            (None, None) => "edit".to_owned(),
        };
        Self {
            out: out.to_path_buf(),
            to_folder,
            side,
            class_name,
            name,
            digits: flags.count.saturating_sub(1).to_string().len(),
            record: Record {
                origin,
                command: "edit".into(),
                image: None,
                flags,
            },
            tiles: Vec::new(),
            taken: 0,
        }
    }

    /// What stands before the results in a picture of all: the source and its reconstruction.
    pub fn begin(&mut self, source: &[u8], back: &[u8]) {
        self.tiles.extend_from_slice(source);
        self.tiles.extend_from_slice(back);
    }

    /// Takes the next result.
    ///
    /// # Errors
    /// When its file can't be written.
    pub fn take(&mut self, pixels: &[u8]) -> Result<()> {
        let number = self.taken;
        self.taken += 1;
        if !self.to_folder {
            self.tiles.extend_from_slice(pixels);
            return Ok(());
        }
        let record = Record {
            image: Some(Image {
                class: self.record.flags.class,
                class_name: self.class_name.clone(),
                number: number as u64,
            }),
            ..self.record.clone()
        };
        let picture = Picture {
            width: self.side,
            height: self.side,
            rgb: pixels.to_vec(),
        };
        let digits = self.digits;
        let file = format!("{}-{number:0digits$}.png", self.name);
        picture.save_with(&self.out.join(file), &texts(&record)?)
    }

    /// Writes the picture of all, and says where the results are.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(self, count: usize) -> Result<()> {
        if !self.to_folder {
            let all = grid(&self.tiles, self.side, count + 2);
            all.save_with(&self.out, &texts(&self.record)?)?;
        }
        say!("{count} results in {}", self.out.display())
    }
}

fn texts(record: &Record<Flags>) -> Result<Vec<PngText>> {
    record.texts(&record.flags.in_words())
}
