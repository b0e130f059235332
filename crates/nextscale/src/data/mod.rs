//! From image files or the built-in shapes to batches of pixels.

mod decode;
mod image8;
mod resize;
mod transform;

pub use decode::{LoadBuffers, MAX_FILE_BYTES, MAX_PIXELS, decode_bytes, decode_file};
pub use image8::RgbImage8;
pub use resize::{CropWindow, Resizer};
pub use transform::Transform;

#[cfg(test)]
mod fixtures;
