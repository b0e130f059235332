//! How good a model is: reconstructions, losses and likelihoods over a whole set of images.

mod classification;
mod judge;
mod likelihood;
mod losses;
mod measures;
mod reconstruction;
mod teacher_forcing;
mod trend;

use crate::data::ValLoader;
use crate::{Error, Result};

/// Refuses figures of no images at all: they would be numbers that mean nothing.
fn some_images(seen: usize, loader: &ValLoader) -> Result<()> {
    if seen > 0 {
        return Ok(());
    }
    let bad = loader.bad_images();
    let example = bad.first().map_or("there are none", |b| b.reason.as_str());
    Err(Error::input(format!(
        "none of the {} validation images can be read: {example}",
        bad.len()
    )))
}

pub(crate) use classification::largest;
pub use classification::{Classification, evaluate_classification};
pub use judge::Judge;
pub use likelihood::{
    Estimated, Guess, ImageLikelihood, Likelihood, LikelihoodFile, evaluate_likelihood,
};
pub use losses::{evaluate_losses, evaluate_token_losses};
pub use measures::{Measures, PendingMeasures};
pub use reconstruction::{Reconstruction, evaluate_reconstruction, psnr_db};
pub(crate) use teacher_forcing::Inputs;
pub use teacher_forcing::TeacherForcing;
pub(crate) use trend::FEW_STEPS;
pub use trend::{Tendency, Trend, Verdict};
