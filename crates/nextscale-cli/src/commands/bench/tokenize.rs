//! What a training step makes of images before the transformer sees them.

use super::timing::Bench;
use super::{Args, Place, models, random_images};
use nextscale::Result;
use nextscale::model::Run;
use std::time::Instant;

/// Images to tokens and the transformer's teacher-forcing input, as [`nextscale::train::var_trainer::VarTrainer::step`] does.
pub fn tokenize(args: &Args, place: Place) -> Result<()> {
    let begun = Instant::now();
    let (vqvae, var, side) = models(args, place, (false, false))?;
    let batch = args.batch();
    let images = random_images(batch, side, place.0)?;
    let pyramid = &var.config.pyramid;
    let bench = Bench::new(args, place, begun)?;
    bench.run("tokenize", batch, &[], |_| {
        let run = Run::plain(vqvae.math);
        let f = vqvae.features(&run, &images, None)?;
        let (quantizer, params) = (&vqvae.quantizer, &vqvae.params);
        quantizer
            .encode_with_input(&run, params, &f, pyramid, pyramid.count())
            .map(|_| ())
    })
}
