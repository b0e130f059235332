//! The average on the CPU.

use crate::cpu::{CHUNK, simd};
use rayon::prelude::*;

pub(super) fn average(average: &mut [f32], weights: &[f32], share: f32) {
    if share == 1.0 {
        average.copy_from_slice(weights);
        return;
    }
    average
        .par_chunks_mut(CHUNK)
        .zip(weights.par_chunks(CHUNK))
        .for_each(|(average, weights)| {
            simd::run(
                #[inline(always)]
                || {
                    for (a, w) in average.iter_mut().zip(weights) {
                        *a = share.mul_add(w - *a, *a);
                    }
                },
            );
        });
}
