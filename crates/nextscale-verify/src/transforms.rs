//! Decoding, resizing and cropping of image files.

use super::compare::{Difference, Limit, difference};
use super::folder::Folder;
use super::recorded::Recorded;
use super::report::Report;
use nextscale::data::{CropWindow, LoadBuffers, Resizer, RgbImage8, Transform, decode_file};
use nextscale::{Error, Result};
use serde_json::Value as Json;
use std::path::Path;

/// Share of values that must be equal where decoding is lossless.
const EQUAL: f64 = 0.995;
/// Largest mean difference in grey levels where it is not.
const MEAN: f64 = 0.5;
/// Most pixels of a resized picture whose crop is looked at.
const MOST_PIXELS: usize = 1 << 26;
/// The shorter side in multiples of the crop, where `meta.json` does not state it.
const MID_RESO: f64 = 1.125;

/// R of a tensor's name such as `photo_png.R64` or `photo_png.R64.uncropped`.
pub(super) fn side_of(name: &str) -> Option<usize> {
    let name = name.strip_suffix(".uncropped").unwrap_or(name);
    name.rsplit_once(".R")?.1.parse().ok()
}

/// Checks every tensor file of the folder against the files under `inputs/`.
pub(super) fn check(folder: &Folder, report: &mut Report<'_>) -> Result<()> {
    let inputs = Folder::open(folder.path().join("inputs"))?;
    let meta = if folder.has("meta.json") {
        folder.json("meta.json")?
    } else {
        Json::Null
    };
    for stem in folder.stems(".safetensors") {
        let file = folder.tensors(&format!("{stem}.safetensors"))?;
        let mut known = Vec::new();
        for name in inputs.names() {
            let key = name.replace('.', "_");
            let mine: Vec<&str> = file
                .names()
                .filter(|n| {
                    n.strip_prefix(key.as_str())
                        .is_some_and(|r| r.starts_with('.'))
                })
                .collect();
            if !mine.is_empty() {
                let input = Input::open(&inputs.file(name), &key, &file)?;
                for tensor in &mine {
                    input.tensor(tensor, &meta[name], report)?;
                }
            }
            known.extend(mine.into_iter().map(str::to_owned));
        }
        for name in file.names().filter(|n| !known.iter().any(|k| k == n)) {
            report.unchecked(name, "no file under inputs/ has that name");
        }
    }
    for (name, entry) in meta.as_object().into_iter().flatten() {
        if inputs.has(name) {
            sizes(&inputs.file(name), name, entry, report)?;
        } else {
            report.unchecked(
                format!("meta.{name}"),
                "there is no such file under inputs/",
            );
        }
    }
    Ok(())
}

/// One image file.
struct Input<'a> {
    image: RgbImage8,
    lossless: bool,
    /// The decoder's pixels of the reference, where recorded.
    decoded: Option<RgbImage8>,
    file: &'a Recorded,
}

impl<'a> Input<'a> {
    fn open(path: &Path, key: &str, file: &'a Recorded) -> Result<Self> {
        let name = format!("{key}.decoded");
        let decoded = if file.has(&name) {
            let &[h, w, 3] = file.shape(&name)? else {
                return Err(file.bad(&name, "expected the shape [h, w, 3]"));
            };
            Some(RgbImage8::new(w, h, file.bytes(&name)?.to_vec())?)
        } else {
            None
        };
        Ok(Self {
            image: decode(path)?,
            lossless: !is_jpeg(path)?,
            decoded,
            file,
        })
    }

    /// Compares one recorded picture.
    fn tensor(&self, name: &str, meta: &Json, report: &mut Report<'_>) -> Result<()> {
        let want = self.file.bytes(name)?;
        if name.ends_with(".decoded") {
            judge(name, self.image.data(), want, self.lossless, report);
            return Ok(());
        }
        let Some(side) = side_of(name) else {
            report.unchecked(name, "no known quantity");
            return Ok(());
        };
        let transform = transform_of(side, &meta["resized"][side.to_string().as_str()])?;
        let whole = name.ends_with(".uncropped");
        let got = apply(&transform, &self.image, whole)?;
        judge(name, &got, want, self.lossless, report);
        // From the reference's own pixels the decoder plays no part.
        if let Some(pixels) = self.decoded.as_ref().filter(|_| !self.lossless) {
            let got = apply(&transform, pixels, whole)?;
            judge(
                &format!("{name} of the decoded pixels"),
                &got,
                want,
                true,
                report,
            );
        }
        Ok(())
    }
}

fn decode(path: &Path) -> Result<RgbImage8> {
    let mut buffers = LoadBuffers::default();
    decode_file(path, &mut buffers)?;
    Ok(buffers.image)
}

/// Whether a file begins as JPEG files do.
fn is_jpeg(path: &Path) -> Result<bool> {
    use std::io::Read;
    let mut head = Vec::new();
    let (file, _) = nextscale::input::open_input(path)?;
    file.take(2)
        .read_to_end(&mut head)
        .map_err(Error::io(path))?;
    Ok(head == [0xff, 0xd8])
}

/// The transform to crops of `side`, by way of the recorded shorter side.
fn transform_of(side: usize, resized: &Json) -> Result<Transform> {
    let mid = match resized["short_edge"].as_f64() {
        // The multiple that a user gave is one of those that round to the recorded side; the quotient is one.
        Some(short) if side > 0 && (MID_RESO * side as f64).round_ties_even() != short => {
            short / side as f64
        }
        _ => MID_RESO,
    };
    Transform::new(side, mid, false)
}

/// The centre crop or the whole resized picture, \[h, w, 3\].
fn apply(transform: &Transform, image: &RgbImage8, whole: bool) -> Result<Vec<u8>> {
    let mut resizer = Resizer::default();
    if !whole {
        let mut out = vec![0; transform.bytes()];
        transform.center(image, &mut resizer, &mut out)?;
        return Ok(out);
    }
    let (width, height) = transform.resized(image.width(), image.height());
    let window = CropWindow {
        left: 0,
        top: 0,
        width,
        height,
    };
    let mut out = vec![0; 3 * width * height];
    resizer.resize_crop(image, (width, height), window, false, &mut out)?;
    Ok(out)
}

/// Compares pixels by the rule for lossless or for lossy files.
fn judge(name: &str, got: &[u8], want: &[u8], lossless: bool, report: &mut Report<'_>) {
    if got.len() != want.len() {
        return report.fact(
            name,
            false,
            format!("{} values, recorded are {}", got.len(), want.len()),
        );
    }
    let d: Difference = difference(got, want);
    let n = got.len().max(1) as f64;
    let (holds, rule) = if lossless {
        let equal = got.iter().zip(want).filter(|(g, w)| g == w).count() as f64 / n;
        (
            d.max_abs <= 1.0 && equal >= EQUAL,
            format!("{:.2} % of the values equal", 100.0 * equal),
        )
    } else {
        let mean = got
            .iter()
            .zip(want)
            .map(|(g, w)| f64::from(g.abs_diff(*w)))
            .sum::<f64>()
            / n;
        (
            mean <= MEAN,
            format!("mean difference {mean:.2} grey levels"),
        )
    };
    report.judged(name, holds, d, rule);
}

/// Compares the sizes and crop offsets that `meta.json` states for a file.
fn sizes(path: &Path, name: &str, entry: &Json, report: &mut Report<'_>) -> Result<()> {
    let image = decode(path)?;
    let label = |what: &str| format!("meta.{name}.{what}");
    if let (Some(w), Some(h)) = (entry["width"].as_u64(), entry["height"].as_u64()) {
        report.same(
            label("size"),
            &(image.width() as u64, image.height() as u64),
            &(w, h),
        );
    }
    for (side, r) in entry["resized"].as_object().into_iter().flatten() {
        let Ok(side) = side.parse::<usize>() else {
            report.unchecked(label(side), "no size");
            continue;
        };
        let transform = transform_of(side, r)?;
        let (w, h) = transform.resized(image.width(), image.height());
        let want: Option<Vec<f64>> = [
            &r["resized_hw"][0],
            &r["resized_hw"][1],
            &r["crop_top"],
            &r["crop_left"],
        ]
        .into_iter()
        .map(Json::as_f64)
        .collect();
        let Some(want) = want else {
            report.unchecked(label(&format!("R{side}")), "sizes or offsets are missing");
            continue;
        };
        if w * h > MOST_PIXELS {
            report.unchecked(
                label(&format!("R{side}")),
                "the resized picture is too large",
            );
            continue;
        }
        let (top, left) = offsets(&transform, (w, h))?;
        let got = [h as f64, w as f64, top as f64, left as f64];
        report.numbers(label(&format!("R{side}")), &got, &want, Limit::EXACT);
    }
    Ok(())
}

/// (Top, left) of the centre crop from a picture resized to `size` (width, height), read off the crop of a picture that states its own
/// coordinates.
fn offsets(transform: &Transform, (w, h): (usize, usize)) -> Result<(usize, usize)> {
    // The colours of a pixel of an unresized picture: column and row modulo 256, and their higher parts.
    let mut data = Vec::with_capacity(3 * w * h);
    for y in 0..h {
        for x in 0..w {
            data.extend([
                (x % 256) as u8,
                (y % 256) as u8,
                ((x / 256) % 16 + (y / 256) % 16 * 16) as u8,
            ]);
        }
    }
    let image = RgbImage8::new(w, h, data)?;
    if transform.resized(w, h) != (w, h) {
        return Err(Error::failed("a resized picture would be resized again"));
    }
    let crop = apply(transform, &image, false)?;
    let high = usize::from(crop[2]);
    Ok((
        usize::from(crop[1]) + 256 * (high / 16),
        usize::from(crop[0]) + 256 * (high % 16),
    ))
}
