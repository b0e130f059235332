//! Small tables that operators need again and again (weights of positions, ends of ranges): uploaded once, then found by
//! their content.

use crate::Result;
use crate::gpu::Gpu;
use crate::matmul::DevicePtr;
use crate::pool::DeviceBuffer;
use std::sync::{Arc, Mutex};

/// Tables that are remembered; the one unused for longest makes room.
const MOST: usize = 512;

/// The tables of one GPU, the last used at the end.
#[derive(Debug, Default)]
pub(crate) struct Constants(Mutex<Vec<(Vec<u8>, Arc<DeviceBuffer>)>>);

impl Gpu {
    /// A buffer with these bytes that nobody writes to.
    ///
    /// # Errors
    /// When the GPU's memory is full, or while a graph is captured and the table is new.
    pub fn constant(&'static self, bytes: &[u8]) -> Result<Arc<DeviceBuffer>> {
        let lock = || self.constants().0.lock().unwrap_or_else(|e| e.into_inner());
        let find = |all: &mut Vec<(Vec<u8>, Arc<DeviceBuffer>)>| {
            let entry = all.remove(all.iter().position(|(b, _)| b == bytes)?);
            let table = Arc::clone(&entry.1);
            all.push(entry);
            Some(table)
        };
        let found = find(&mut lock());
        if let Some(table) = found {
            return Ok(table);
        }
        let table = Arc::new(DeviceBuffer::new(self, bytes.len())?);
        self.upload_to(bytes, DevicePtr(&table, 0))?;
        let mut all = lock();
        if all.len() >= MOST {
            all.remove(0);
        }
        all.push((bytes.to_vec(), Arc::clone(&table)));
        Ok(table)
    }
}
