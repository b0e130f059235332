//! Using a trained model: drawing images and changing parts of given ones.

mod batches;
mod draw;
mod edit;
mod keep;
mod sample;

pub use batches::BatchSampler;
pub use draw::{Class, Draw, DrawnImage, draw};
pub use edit::{Edit, Region, Selected};
pub use keep::Seam;
pub use sample::{Blend, Noise, SampleOptions, Sampled, Sampler, ScaleNoise, Watch};
