//! Images of a trained model: `cargo run --release --example sample MODEL [TOKENIZER]`.
//!
//! MODEL is a training checkpoint or weights, of this library or of the reference. TOKENIZER is needed where MODEL does not hold it.
//! Draws sixteen images of the first classes to `samples.png`, on the first GPU where there is one.

use nextscale::checkpoint::open::open_pair;
use nextscale::device::resolve_device;
use nextscale::generate::{BatchSampler, Noise, SampleOptions, Sampler};
use nextscale::options::values::DeviceChoice;
use nextscale::pictures::grid;
use nextscale::tensor::Precision;
use nextscale::{Error, Result};
use std::path::{Path, PathBuf};

fn main() -> Result<()> {
    let files: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let Some(model) = files.first() else {
        return Err(Error::input("give the file of a transformer"));
    };
    let mut pair = open_pair(model, files.get(1).map(PathBuf::as_path), None)?;
    let device = resolve_device(DeviceChoice::Auto)?;
    let math = Precision::Bf16.math();
    pair.var.to_device(device, math)?;
    pair.tokenizer.vqvae.to_device(device, math)?;
    let sampler = Sampler {
        var: &pair.var,
        vqvae: &pair.tokenizer.vqvae,
    };
    let options = SampleOptions {
        noise: Noise::Seed(7),
        ..SampleOptions::default()
    };
    // Four at a time: on a GPU every batch after the first is one recorded graph.
    let mut batches = BatchSampler::new(sampler, options, 4);
    let (mut pixels, mut side) = (Vec::new(), 0);
    for first in (0..16).step_by(4) {
        let classes = pair.var.config.classes as i32;
        let labels: Vec<i32> = (first..first + 4).map(|i| i % classes).collect();
        let drawn = batches.draw(&labels, first as u64)?;
        side = drawn.images.dims()[1];
        pixels.extend(drawn.pixels()?);
    }
    grid(&pixels, side, 4).save(Path::new("samples.png"))?;
    println!("16 images in samples.png");
    Ok(())
}
