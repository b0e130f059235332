//! From image files or the built-in shapes to batches of pixels.
//!
//! An [`ImageSource`] is a numbered set of labelled images: [`FolderSource`], [`ShardSource`](shards::ShardSource) or
//! [`ShapesSource`]. A sampler
//! decides which images make a batch, a [`Transform`] makes each R × R pixels, and a [`TrainLoader`] or
//! [`ValLoader`] does so on threads of its own, ahead of the trainer.

mod canvas;
pub(crate) mod decode;
mod feed;
mod folder;
mod image8;
mod knn;
mod loader;
mod readable;
mod relabelled;
mod resize;
mod sampler;
mod shapes;
pub mod shards;
mod source;
mod splits;
mod subset;
mod survey;
pub mod tokens;
mod transform;

pub use crate::canvas::{Aspect, Background, Canvas};
pub use canvas::OnCanvas;
pub use decode::{
    LoadBuffers, MAX_FILE_BYTES, MAX_PIXELS, alpha_of, decode_bytes, decode_file, decode_within,
};
pub use feed::Feed;
pub use folder::{FolderSource, IMAGE_EXTENSIONS};
pub use image8::RgbImage8;
pub use knn::KnnClassifier;
pub use loader::{
    BadImage, BadImages, Batch, LoaderConfig, TrainLoader, ValLoader, is_of_the_file,
};
pub use relabelled::Relabelled;
pub use resize::{CropWindow, Resizer};
pub use sampler::{TrainSampler, ValSampler};
pub use shapes::{Class, Form, ShapesSource, ShapesSplit, Texture, classes};
pub use source::ImageSource;
pub use splits::{Cut, Splits, whole};
pub use subset::Subset;
pub use survey::{Look, SplitSurvey, Survey};
pub use transform::Transform;

#[cfg(test)]
mod fixtures;
