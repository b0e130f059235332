//! How the examples time work on a GPU.

use nextscale_tensor::{Device, Result};
use std::time::Instant;

/// Milliseconds a call of the fastest of `rounds` rounds of `runs` calls on the first GPU, after one call to warm up.
pub fn fastest(rounds: usize, runs: usize, mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let gpu = Device::Cuda(0).gpu()?.expect("a GPU");
    f()?;
    let mut best = f64::INFINITY;
    for _ in 0..rounds {
        gpu.synchronize()?;
        let start = Instant::now();
        for _ in 0..runs {
            f()?;
        }
        gpu.synchronize()?;
        best = best.min(start.elapsed().as_secs_f64() * 1e3 / runs as f64);
    }
    Ok(best)
}
