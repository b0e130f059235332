//! Images of a trained model: `cargo run --release --example sample MODEL [TOKENIZER]`.
//!
//! MODEL is a training checkpoint or weights, of this library or of the reference. TOKENIZER is needed where MODEL does not hold it.
//! Draws sixteen images of the first classes to `samples.png`, on the first GPU where there is one.

use nextscale::pictures::grid;
use nextscale::{Error, Result};

fn main() -> Result<()> {
    let mut files = std::env::args_os().skip(1);
    let Some(model) = files.next() else {
        return Err(Error::input("give the file of a transformer"));
    };
    let mut draw = nextscale::draw(model).seed(7);
    if let Some(tokenizer) = files.next() {
        draw = draw.tokenizer(tokenizer);
    }
    // A model with one class has it sixteen times.
    let classes = draw.class_count()?;
    let mut images = draw.classes((0..16).map(|i| i % classes));
    let images = images.images()?;
    let tiles: Vec<u8> = images.iter().flat_map(|i| i.picture.rgb.clone()).collect();
    let side = images[0].picture.width;
    grid(&tiles, side, 4).save("samples.png".as_ref())?;
    println!("{} images in samples.png", images.len());
    Ok(())
}
