//! Small tables that operators need again and again (weights of positions, ends of ranges): uploaded once, then found by
//! their content.

use super::gpu::Gpu;
use crate::{DType, Result, Shape, Tensor};
use std::sync::Mutex;

/// Tables that are remembered; the one unused for longest makes room.
const MOST: usize = 512;

/// The tables of one GPU, the last used at the end.
#[derive(Debug, Default)]
pub(super) struct Constants(Mutex<Vec<(Vec<u8>, Tensor)>>);

impl Gpu {
    /// A table of floats as a tensor that nobody writes to.
    ///
    /// # Errors
    /// When the GPU's memory is full, or while a graph is captured and the table is new.
    pub(crate) fn constant_f32(&'static self, values: &[f32]) -> Result<Tensor> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(bytes, values.len(), DType::F32)
    }

    /// The same for integers.
    ///
    /// # Errors
    /// As [`Gpu::constant_f32`].
    pub(crate) fn constant_i32(&'static self, values: &[i32]) -> Result<Tensor> {
        let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.constant(bytes, values.len(), DType::I32)
    }

    fn constant(&'static self, bytes: Vec<u8>, n: usize, dtype: DType) -> Result<Tensor> {
        let find = |all: &mut Vec<(Vec<u8>, Tensor)>| {
            let same = |(b, t): &(Vec<u8>, Tensor)| *b == bytes && t.dtype() == dtype;
            let at = all.iter().position(same)?;
            let entry = all.remove(at);
            let t = entry.1.clone();
            all.push(entry);
            Some(t)
        };
        let lock = || self.constants().0.lock().unwrap_or_else(|e| e.into_inner());
        let found = find(&mut lock());
        let t = match found {
            Some(t) => t,
            None => {
                let t = Tensor::scratch(self, Shape::from([n].as_slice()), dtype)?;
                self.upload_to(&bytes, t.place()?)?;
                let mut all = lock();
                if all.len() >= MOST {
                    all.remove(0);
                }
                all.push((bytes, t.clone()));
                t
            }
        };
        // A graph reads it at every replay.
        self.keep_for_graph(&t);
        Ok(t)
    }
}
