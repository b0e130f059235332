//! Where the images of `sample` go.

use super::super::images::{check_parent, is_folder, looks_like_a_file, may_write, open_folder};
use super::call::{Call, Scales, Tile};
use super::shown::Shown;
use nextscale::pictures::{GridFile, NpzImages, Picture, PictureFormat, Sheet, save_gif};
use nextscale::{Error, Result, say};
use std::path::{Path, PathBuf};

/// Files to be written.
pub enum Sink<'a> {
    /// A file an image.
    Folder(PathBuf, &'a Shown<'a>),
    /// One image, as it is.
    One(PathBuf, &'a Shown<'a>),
    Grid(Box<GridFile>),
    /// A picture that is made at once when all tiles are there.
    Picture(Whole),
    /// One whose tiles follow one another in time.
    Gif(Whole, u16),
    Npz(Box<NpzImages>),
}

/// Tiles of a picture in the making.
pub struct Whole {
    path: PathBuf,
    tiles: Vec<u8>,
    sheet: Sheet,
}

/// An image that was drawn.
pub struct Drawn<'a> {
    pub tile: &'a Tile,
    /// Its number in the call.
    pub index: usize,
    pub pixels: &'a [u8],
    /// The same after every scale, where that is asked for.
    pub scales: Vec<&'a [u8]>,
}

/// What a sink is opened with.
pub struct Opening<'a> {
    pub out: &'a Path,
    pub force: bool,
    pub call: &'a Call,
    pub tiles: &'a [Tile],
    pub shown: &'a Shown<'a>,
    /// Height and width of an image.
    pub extent: (usize, usize),
    pub frame_ms: u32,
}

impl<'a> Opening<'a> {
    /// Looks at the name and begins to write.
    ///
    /// # Errors
    /// One line when the name is none to write to, the file is there already, or the picture would be too large.
    pub fn open(&self) -> Result<Sink<'a>> {
        let out = self.out;
        let ending = out.extension().and_then(|e| e.to_str());
        let ending = ending.map(str::to_ascii_lowercase);
        let folder = is_folder(out);
        let known = ending.as_deref().filter(|_| !folder);
        match known {
            Some("gif") if self.makes_gif() => self.file(),
            Some("png" | "jpg" | "jpeg" | "webp" | "npz") => self.file(),
            Some("gif") => Err(Error::input(format!(
                "--out={}: a GIF shows one image scale by scale (--scales=gif, one image) or goes from class to class (--interpolate=A,B): add one of these flags, or give a name ending in .png",
                out.display()
            ))),
            _ if !folder && looks_like_a_file(out) => Err(Error::input(format!(
                "--out={}: give a name ending in .png, .jpg, .webp or .npz, or a folder (with / at its end, where its name has a dot)",
                out.display()
            ))),
            _ => self.folder(),
        }
    }

    /// Whether the images follow one another.
    fn makes_gif(&self) -> bool {
        self.call.interpolate.is_some() && !self.call.alone || self.call.scales == Some(Scales::Gif)
    }

    fn folder(&self) -> Result<Sink<'a>> {
        let out = self.out;
        if let Some(flag) = self.of_one_picture() {
            return Err(Error::input(format!(
                "--{flag} makes one picture; give --out a name ending in .png, .jpg or .webp{}, not the folder {}",
                if self.makes_gif() { " or .gif" } else { "" },
                out.display()
            )));
        }
        if self.call.scales == Some(Scales::Strip) {
            self.check_square("a strip")?;
        }
        open_folder(out, self.force)?;
        Ok(Sink::Folder(out.to_path_buf(), self.shown))
    }

    /// The flag whose images are one picture.
    fn of_one_picture(&self) -> Option<&'static str> {
        match self.call {
            Call { sweep: Some(_), .. } => Some("sweep"),
            Call {
                interpolate: Some(_),
                alone: false,
                ..
            } => Some("interpolate"),
            _ => None,
        }
    }

    fn file(&self) -> Result<Sink<'a>> {
        let out = self.out;
        may_write(out, self.force)?;
        // Found out now rather than after the drawing.
        check_parent(out)?;
        let format = PictureFormat::of(out);
        let is_gif = has_ending(out, "gif");
        let one = self.tiles.len() == 1;
        match self.call.scales {
            None => {}
            // The strip or the GIF itself.
            Some(Scales::Strip) if one && format.is_some() => {
                self.check_square("a strip")?;
                return Ok(Sink::One(out.to_path_buf(), self.shown));
            }
            Some(Scales::Gif) if one && is_gif => {
                return Ok(Sink::One(out.to_path_buf(), self.shown));
            }
            Some(_) => {
                return Err(Error::input(format!(
                    "--scales writes many files; give --out a folder, not {}",
                    out.display()
                )));
            }
        }
        let (height, width) = self.extent;
        if format.is_none() && !is_gif {
            if let Some(flag) = self.of_one_picture() {
                return Err(Error::input(format!(
                    "--{flag} makes one picture; give --out a name ending in .png, .jpg or .webp, not {}",
                    out.display()
                )));
            }
            let n = self.tiles.len();
            return Ok(Sink::Npz(Box::new(NpzImages::create(
                out, n, height, width,
            )?)));
        }
        if self.call.alone && one {
            return Ok(Sink::One(out.to_path_buf(), self.shown));
        }
        self.check_square("a grid")?;
        if is_gif {
            if self.call.per_class > 1 {
                return Err(Error::input(format!(
                    "--per_class={}: a GIF shows one row of images; give --per_class=1 or a name ending in .png",
                    self.call.per_class
                )));
            }
            let sheet = Sheet::new(1, width, 1);
            return Ok(Sink::Gif(self.whole(sheet), self.hundredths()));
        }
        let sheet = self.shown.sheet(self.call, self.tiles, width);
        if format != Some(PictureFormat::Png) {
            sheet.check(out, "a name ending in .png, a folder, or other --columns")?;
            return Ok(Sink::Picture(self.whole(sheet)));
        }
        let texts = self.shown.texts(self.call, None)?;
        Ok(Sink::Grid(Box::new(GridFile::create(out, sheet, &texts)?)))
    }

    fn whole(&self, sheet: Sheet) -> Whole {
        Whole {
            path: self.out.to_path_buf(),
            tiles: Vec::new(),
            sheet,
        }
    }

    fn hundredths(&self) -> u16 {
        hundredths(self.frame_ms)
    }

    fn check_square(&self, what: &str) -> Result<()> {
        let (height, width) = self.extent;
        match height == width {
            true => Ok(()),
            false => Err(Error::input(format!(
                "{what} needs square images; write to a folder"
            ))),
        }
    }
}

/// A GIF's unit of time.
fn hundredths(ms: u32) -> u16 {
    u16::try_from(ms / 10).unwrap_or(u16::MAX)
}

impl Sink<'_> {
    /// Takes the next image.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn take(&mut self, call: &Call, drawn: &Drawn<'_>) -> Result<()> {
        match self {
            Self::Folder(dir, shown) => shown.save_all(dir, call, drawn),
            Self::One(path, shown) => shown.save_one(path, call, drawn),
            Self::Grid(file) => file.append(drawn.pixels),
            Self::Picture(whole) | Self::Gif(whole, _) => {
                whole.tiles.extend_from_slice(drawn.pixels);
                Ok(())
            }
            Self::Npz(file) => file.append(drawn.pixels),
        }
    }

    /// Ends the files, and says where they are.
    ///
    /// # Errors
    /// When they can't be written.
    pub fn finish(self, n: usize) -> Result<()> {
        let path = match self {
            Self::Folder(path, _) | Self::One(path, _) => path,
            Self::Grid(file) => file.finish()?,
            Self::Picture(whole) => {
                whole.sheet.picture(&whole.tiles).save(&whole.path)?;
                whole.path
            }
            Self::Gif(whole, hundredths) => {
                let side = whole.sheet.side();
                let each = (side * side * 3).max(1);
                let frames = whole.tiles.chunks_exact(each).map(|rgb| Picture {
                    width: side,
                    height: side,
                    rgb: rgb.to_vec(),
                });
                save_gif(&whole.path, &frames.collect::<Vec<_>>(), hundredths)?;
                whole.path
            }
            Self::Npz(file) => file.finish()?,
        };
        let images = if n == 1 { "image" } else { "images" };
        say!("{n} {images} in {}", path.display())
    }
}

/// Whether a name ends so, in any case.
pub fn has_ending(path: &Path, ending: &str) -> bool {
    let found = path.extension().and_then(|e| e.to_str());
    found.is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// Writes the files of one image.
impl Shown<'_> {
    fn save_all(&self, dir: &Path, call: &Call, drawn: &Drawn<'_>) -> Result<()> {
        let name = self.name(drawn.index);
        let path = |suffix: &str| dir.join(format!("{name}{suffix}"));
        let alone = call.of_tile(drawn.tile);
        if let Some(k) = call.scale {
            return self.save_scale(&path(&format!("_scale{k}.png")), &alone, drawn, k);
        }
        self.save(&path(".png"), &alone, drawn, drawn.pixels)?;
        match call.scales {
            None => Ok(()),
            Some(Scales::Files) => (0..drawn.scales.len()).try_for_each(|k| {
                self.save_scale(&path(&format!("_scale{k}.png")), &alone, drawn, k)
            }),
            Some(Scales::Strip) => self.save_strip(&path("_scales.png"), &alone, drawn),
            Some(Scales::Gif) => self.save_scales_gif(&path("_scales.gif"), drawn),
        }
    }

    fn save_one(&self, path: &Path, call: &Call, drawn: &Drawn<'_>) -> Result<()> {
        let alone = call.of_tile(drawn.tile);
        match (call.scale, call.scales) {
            (Some(k), _) => self.save_scale(path, &alone, drawn, k),
            (None, Some(Scales::Strip)) => self.save_strip(path, &alone, drawn),
            (None, Some(Scales::Gif)) => self.save_scales_gif(path, drawn),
            (None, None | Some(Scales::Files)) => self.save(path, &alone, drawn, drawn.pixels),
        }
    }

    fn save_scale(&self, path: &Path, alone: &Call, drawn: &Drawn<'_>, k: usize) -> Result<()> {
        let Some(pixels) = drawn.scales.get(k) else {
            return Err(Error::input(format!(
                "{}: the model has no scale {k}; its scales are 0 to {}",
                path.display(),
                drawn.scales.len().saturating_sub(1)
            )));
        };
        let call = Call {
            scale: Some(k),
            ..alone.clone()
        };
        self.save(path, &call, drawn, pixels)
    }

    fn save(&self, path: &Path, call: &Call, drawn: &Drawn<'_>, pixels: &[u8]) -> Result<()> {
        let texts = self.texts(call, Some(drawn.tile))?;
        self.picture(pixels).save_with(path, &texts)
    }

    fn save_strip(&self, path: &Path, alone: &Call, drawn: &Drawn<'_>) -> Result<()> {
        let call = Call {
            scales: Some(Scales::Strip),
            ..alone.clone()
        };
        let texts = self.texts(&call, Some(drawn.tile))?;
        let n = drawn.scales.len();
        let strip = Sheet::new(n, self.picture(drawn.pixels).width, n);
        strip
            .picture(&drawn.scales.concat())
            .save_with(path, &texts)
    }

    fn save_scales_gif(&self, path: &Path, drawn: &Drawn<'_>) -> Result<()> {
        let frames: Vec<Picture> = drawn.scales.iter().map(|f| self.picture(f)).collect();
        save_gif(path, &frames, hundredths(self.frame_ms))
    }
}
