//! Memory with gaps: every byte of a buffer has its address, only some have memory.
//!
//! A process that holds its share of a large array can so keep the array's own layout: kernels and offsets are the same as with all
//! of it.

use crate::codes::Checked;
use crate::driver::{Answer, mapping};
use crate::gpu::Gpu;
use crate::{Error, Result};
use std::ops::Range;

/// Bytes of a page where there is no driver to ask.
const DRY_PAGE: usize = 2 << 20;
/// The same of a CPU.
const CPU_PAGE: usize = 4096;

/// Reserved addresses, and the memory behind some of them.
#[derive(Debug)]
pub(crate) struct Gapped {
    gpu: &'static Gpu,
    address: u64,
    /// Bytes of addresses.
    reserved: usize,
    /// Bytes of memory.
    held: usize,
    /// Pages with memory, from the address on, in bytes.
    backed: Vec<Range<usize>>,
}

impl Gapped {
    /// Memory behind the ranges `kept` of `bytes` bytes, and nothing elsewhere.
    pub(crate) fn new(gpu: &'static Gpu, bytes: usize, kept: &[Range<usize>]) -> Result<Self> {
        let dry = gpu.dry().is_some();
        let page = match (gpu.dry_cpu(), dry) {
            (Some(_), _) => CPU_PAGE,
            (None, true) => DRY_PAGE,
            (None, false) => {
                gpu.bind()?;
                mapping::page(gpu.info().ordinal as i32).doing("asking for the size of a page")?
            }
        };
        let too_many = || Error::TooMany(format!("{bytes} bytes on a GPU"));
        let reserved = (bytes.max(1))
            .checked_next_multiple_of(page)
            .ok_or_else(too_many)?;
        let backed = pages(kept, page, reserved);
        let mut gapped = Self {
            gpu,
            address: if dry {
                gpu.pool().number(reserved)
            } else {
                mapping::reserve(reserved).doing("reserving addresses")?
            },
            reserved,
            held: 0,
            backed: Vec::with_capacity(backed.len()),
        };
        for range in backed {
            let (at, bytes) = (gapped.address + range.start as u64, range.len());
            // SAFETY: whole pages of the addresses reserved above, each once.
            let back = || unsafe { mapping::back(at, bytes, gpu.info().ordinal as i32) };
            gpu.pool().beside(gpu, bytes, back)?;
            gapped.held += bytes;
            gapped.backed.push(range);
        }
        Ok(gapped)
    }

    pub(crate) fn address(&self) -> u64 {
        self.address
    }

    /// Where memory is, in bytes from the address on.
    pub(crate) fn backed(&self) -> &[Range<usize>] {
        &self.backed
    }

    fn give_back(&self) -> Answer<()> {
        for range in &self.backed {
            // SAFETY: backed by `new`; all work of the GPU is done.
            unsafe { mapping::unback(self.address + range.start as u64, range.len()) }?;
        }
        // SAFETY: reserved by `new`; nothing is behind it any more.
        unsafe { mapping::unreserve(self.address, self.reserved) }
    }
}

impl Drop for Gapped {
    fn drop(&mut self) {
        // Work that was asked for before may still use it.
        if self.gpu.dry().is_none()
            && (self.gpu.synchronize().is_err() || self.give_back().is_err())
        {
            return;
        }
        self.gpu.pool().no_longer_beside(self.held);
    }
}

/// The pages that ranges lie in, in order, those that follow one another as one.
fn pages(kept: &[Range<usize>], page: usize, reserved: usize) -> Vec<Range<usize>> {
    let mut all: Vec<Range<usize>> = kept
        .iter()
        .filter(|r| !r.is_empty())
        .map(|r| r.start / page * page..r.end.next_multiple_of(page).min(reserved))
        .collect();
    all.sort_by_key(|r| r.start);
    let mut runs: Vec<Range<usize>> = Vec::new();
    for range in all {
        match runs.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => runs.push(range),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DeviceBuffer;
    use crate::dry;
    use crate::matmul::DevicePtr;
    use crate::tests::{bytes_of, gpu, random};

    #[test]
    fn ranges_take_whole_pages_once() {
        let of = |kept: &[Range<usize>]| pages(kept, 10, 100);
        // Those that touch become one.
        assert_eq!(of(&[45..51, 10..20, 0..0, 5..6]), [0..20, 40..60]);
        assert_eq!(of(&[71..72, 10..20, 0..0, 25..31]), [10..40, 70..80]);
        assert_eq!(of(&[95..100, 0..1]), [0..10, 90..100]);
        assert_eq!(of(&[]), []);
    }

    #[test]
    fn a_dry_run_counts_what_is_kept() {
        let like = dry::gpu(&dry::tests::like());
        let rules = dry::Recycling {
            most: |n| n,
            keeps: |_, _, _| true,
        };
        for (gpu, page) in [(like, DRY_PAGE), (dry::cpu(rules), CPU_PAGE)] {
            let before = gpu.usage();
            let kept = [0..1, 3 * page..3 * page + 1];
            let buffer = DeviceBuffer::with_gaps(gpu, 100 * page, &kept).unwrap();
            assert_eq!(buffer.bytes(), 100 * page);
            assert_eq!(gpu.usage().used - before.used, 2 * page);
            drop(buffer);
            assert_eq!(gpu.usage().used, before.used);
            assert_eq!(gpu.usage().held, before.held);
        }
    }

    #[test]
    fn what_is_kept_is_zero_and_can_be_written() {
        let Some(gpu) = gpu() else { return };
        let page = mapping::page(0).unwrap();
        let kept = [5..9, 7 * page - 8..7 * page + 64];
        let before = gpu.usage().used;
        for _ in 0..3 {
            let buffer = DeviceBuffer::with_gaps(gpu, 9 * page + 4, &kept).unwrap();
            assert_eq!(gpu.usage().used - before, 3 * page);
            let there = DevicePtr(&buffer, 7 * page - 16);
            let mut bytes = vec![1u8; 80];
            gpu.download_from(there, &mut bytes).unwrap();
            assert_eq!(bytes, [0; 80]);
            let values = bytes_of(&random(20, 3));
            gpu.upload_to(&values, there).unwrap();
            gpu.download_from(there, &mut bytes).unwrap();
            assert_eq!(bytes, values);
            drop(buffer);
            assert_eq!(gpu.usage().used, before);
        }
    }
}
