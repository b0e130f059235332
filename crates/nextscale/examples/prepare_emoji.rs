//! Makes an image folder of the npm package `emoji-datasource-twitter`: a class for each category, the pictures on white
//! (their backgrounds are transparent), every tenth of a class for validation.
//!
//! `cargo run --release -p nextscale --example prepare_emoji -- PACKAGE_FOLDER OUT_FOLDER`

use image::{Rgba, RgbaImage};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [package, out] = args.as_slice() else {
        eprintln!("usage: prepare_emoji PACKAGE_FOLDER OUT_FOLDER");
        return ExitCode::from(2);
    };
    match prepare(Path::new(package), Path::new(out)) {
        Ok((train, val, classes)) => {
            println!("{train} training and {val} validation images of {classes} classes in {out}");
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("prepare_emoji: {e}");
            ExitCode::from(2)
        }
    }
}

type Error = Box<dyn std::error::Error>;

fn prepare(package: &Path, out: &Path) -> Result<(usize, usize, usize), Error> {
    let list = package.join("emoji.json");
    let text = std::fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))?;
    let emoji: Vec<Value> = serde_json::from_str(&text)?;
    let mut classes: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for e in &emoji {
        let Some(category) = e["category"].as_str() else {
            continue;
        };
        // "Component" holds skin tones and hair alone: five pictures, no class.
        if category == "Component" {
            continue;
        }
        let name: String = category
            .to_lowercase()
            .replace(" & ", "-")
            .replace(' ', "-");
        let files = classes.entry(name).or_default();
        files.extend(e["image"].as_str().map(str::to_owned));
        if let Some(tones) = e["skin_variations"].as_object() {
            files.extend(
                tones
                    .values()
                    .filter_map(|v| v["image"].as_str().map(str::to_owned)),
            );
        }
    }
    let (mut train, mut val) = (0, 0);
    for (class, files) in &classes {
        for half in ["train", "val"] {
            std::fs::create_dir_all(out.join(half).join(class))?;
        }
        for (i, file) in files.iter().enumerate() {
            let source = package.join("img/twitter/64").join(file);
            if !source.exists() {
                continue;
            }
            let held_out = i % 10 == 9;
            let half = if held_out { "val" } else { "train" };
            on_white(&source)?.save(out.join(half).join(class).join(file))?;
            if held_out {
                val += 1;
            } else {
                train += 1;
            }
        }
    }
    Ok((train, val, classes.len()))
}

/// The picture over white, without alpha, with a margin so that crops keep it whole.
fn on_white(path: &Path) -> Result<image::RgbImage, Error> {
    let picture: RgbaImage = image::open(path)?.to_rgba8();
    let (w, h) = picture.dimensions();
    let side = w.max(h) + 8;
    let mut canvas = RgbaImage::from_pixel(side, side, Rgba([255; 4]));
    let at = (i64::from((side - w) / 2), i64::from((side - h) / 2));
    image::imageops::overlay(&mut canvas, &picture, at.0, at.1);
    Ok(image::DynamicImage::ImageRgba8(canvas).to_rgb8())
}
