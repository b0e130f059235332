//! What a training step makes of images before the transformer sees them.

use super::timing::Bench;
use super::{Args, Target, models, random_images};
use nextscale::Result;
use nextscale::model::ForwardPass;
use std::time::Instant;

/// Images to tokens and the transformer's teacher-forcing input, as [`nextscale::train::var_trainer::VarTrainer::step`] does.
pub fn tokenize(args: &Args, target: Target) -> Result<()> {
    let begun = Instant::now();
    let (vqvae, var, side) = models(args, target, (false, false))?;
    let batch = args.batch();
    let images = random_images(batch, side, target.0)?;
    let pyramid = &var.config.pyramid;
    let bench = Bench::new(args, target, begun)?;
    bench.run("tokenize", batch, &[], |_| {
        let run = ForwardPass::plain(vqvae.math);
        let f = vqvae.features(&run, &images, None)?;
        let (quantizer, params) = (&vqvae.quantizer, &vqvae.params);
        quantizer
            .encode_with_input(&run, params, &f, pyramid, pyramid.count())
            .map(|_| ())
    })
}
