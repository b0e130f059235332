//! What commands share about images: reading single ones, and names of output files.

use nextscale::data::{BadImage, Canvas, LoadBuffers, Resizer, Transform};
use nextscale::pictures::PictureFormat;
use nextscale::{Error, Result, tell};
use nextscale_tensor::{Tensor, ops};
use std::path::{Path, PathBuf};

/// An image file, made ready for a model.
pub struct Loaded {
    /// \[1, side, side, 3\] in \[−1, 1\].
    pub tensor: Tensor,
    /// Its pixels.
    pub pixels: Vec<u8>,
    /// What became of it, as ends of a sentence that begins with its name.
    pub remarks: Vec<String>,
}

/// An image file, laid on a canvas, resized and centre-cropped to `side`.
pub fn load(path: &Path, side: usize, mid_reso: f64, canvas: Canvas) -> Result<Loaded> {
    let mut buffers = LoadBuffers::default();
    canvas.decode(path, &mut buffers)?;
    let transform = Transform::new(side, mid_reso, false)?;
    let mut pixels = vec![0; transform.bytes()];
    transform.center(&buffers.image, &mut Resizer::default(), &mut pixels)?;
    let (width, height) = (buffers.image.width(), buffers.image.height());
    let mut remarks = Vec::new();
    if buffers.is_transparent {
        remarks.push(format!(
            "its transparent parts are laid over {} (--background)",
            canvas.background
        ));
    }
    if width != height {
        remarks.push(format!(
            "of its {width}x{height} pixels a square is seen (--aspect=pad keeps all)"
        ));
    }
    Ok(Loaded {
        tensor: ops::from_pixels([1, side, side, 3], &pixels)?,
        pixels,
        remarks,
    })
}

/// Bad images that are named; the others are counted.
const NAMED: usize = 5;

/// Says which images were left out.
pub fn tell_bad(bad: &[BadImage]) {
    for image in bad.iter().take(NAMED) {
        tell!("left out: {}", image.reason);
    }
    if !bad.is_empty() {
        let all = if bad.len() == 1 { "image" } else { "images" };
        tell!("{} {all} left out that can't be read", bad.len());
    }
}

/// Says what there is to say of a data folder.
pub fn tell_all(lines: &[String]) {
    for line in lines {
        tell!("{line}");
    }
}

/// The files of a model, for messages: its own, and its tokenizer's where that is another.
pub fn pair(model: &Path, tokenizer: Option<&Path>) -> String {
    match tokenizer {
        Some(tokenizer) => format!("{} or {}", model.display(), tokenizer.display()),
        None => model.display().to_string(),
    }
}

/// Refuses names that are no picture's.
pub fn check_picture(path: &Path) -> Result<()> {
    match PictureFormat::of(path) {
        Some(_) => Ok(()),
        None => Err(Error::input(format!(
            "--out={}: pictures are written as .png, .jpg or .webp; give such a name",
            path.display()
        ))),
    }
}

/// Refuses to overwrite a file unless asked to.
pub fn may_write(path: &Path, force: bool) -> Result<()> {
    // What can't be looked at is not taken for missing.
    if !force && path.try_exists().map_err(Error::io(path))? {
        return Err(Error::input(format!(
            "{}: exists already; choose another name or add --force",
            path.display()
        )));
    }
    Ok(())
}

/// Refuses `--out` in a folder that is not there.
pub fn check_parent(out: &Path) -> Result<()> {
    check_parent_of("out", out)
}

/// Refuses a flag's file in a folder that is not there.
pub fn check_parent_of(flag: &str, out: &Path) -> Result<()> {
    let folder = out.parent().filter(|p| !p.as_os_str().is_empty());
    match folder.filter(|f| !f.is_dir()) {
        Some(folder) => Err(Error::input(format!(
            "--{flag}={}: there is no folder {}",
            out.display(),
            folder.display()
        ))),
        None => Ok(()),
    }
}

/// Makes a folder for many files, or takes one that is empty, or any if `force`.
pub fn open_folder(out: &Path, force: bool) -> Result<()> {
    let taken = out
        .read_dir()
        .is_ok_and(|mut entries| entries.next().is_some());
    if taken && !force {
        return Err(Error::input(format!(
            "--out={}: the folder is not empty; choose another one, such as --out={}, or add --force",
            out.display(),
            free_name(out).display()
        )));
    }
    std::fs::create_dir_all(out).map_err(Error::io(out))
}

/// A name like that of a folder that nothing has yet.
fn free_name(out: &Path) -> PathBuf {
    let name = out.components().as_path().as_os_str().to_string_lossy();
    let mut names = (2..).map(|n| PathBuf::from(format!("{name}-{n}")));
    names.find(|path| !path.exists()).unwrap_or_default()
}

/// Whether `out` is a folder, or to be one by the slash at its end.
pub fn is_folder(out: &Path) -> bool {
    out.as_os_str().as_encoded_bytes().ends_with(b"/") || out.is_dir()
}

/// Whether a name seems to mean a file: a short word with a letter stands behind its last dot. (`run-1.5` and `.samples` are folders like
/// others.)
pub fn looks_like_a_file(out: &Path) -> bool {
    let name = out.file_name().unwrap_or_default().to_string_lossy();
    let name = name.trim_end_matches([' ', '.']);
    name.rsplit_once('.').is_some_and(|(_, ending)| {
        let short = ending.len() <= 5 || ending.eq_ignore_ascii_case("safetensors");
        let word = ending.chars().all(char::is_alphanumeric);
        short && word && ending.chars().any(char::is_alphabetic)
    })
}

/// Checks that `flag` is in `range`.
pub fn in_range(flag: &str, value: f64, range: std::ops::RangeInclusive<f64>) -> Result<()> {
    if range.contains(&value) {
        Ok(())
    } else {
        Err(Error::input(format!(
            "--{flag}={value}: expected a number from {} to {}",
            range.start(),
            range.end()
        )))
    }
}
