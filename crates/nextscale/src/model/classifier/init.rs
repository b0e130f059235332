//! Initial weights of the classifier.
//!
//! Convolutions behind SiLU keep the variance of what goes in, about twice that of a linear one (He et al. 2015, uniform within
//! ±√(6/fan_in)); the last one of every branch starts small, so that the stack begins near the shortcuts; norms are 1 and 0, biases 0.

use crate::Result;
use nextscale_tensor::Params;
use nextscale_tensor::rng::{Purpose, Stream};

/// What the last convolution of a branch is smaller by.
const LAST: f32 = 0.2;

pub(super) fn init(params: &mut Params, seed: u64) -> Result<()> {
    let infos = params.infos().to_vec();
    let flat = params.flat_mut()?;
    for (i, info) in infos.iter().enumerate() {
        let values = &mut flat[info.range()];
        let mut s = Stream::new(seed, Purpose::Init, i as u64, 3);
        let name = info.name.as_str();
        let dims = info.shape.dims();
        let Some(fan_in) = dims.get(1..).filter(|d| !d.is_empty()) else {
            let is_norm = name.contains("norm") && name.ends_with("weight");
            values.fill(if is_norm { 1.0 } else { 0.0 });
            continue;
        };
        let fan_in = fan_in.iter().product::<usize>() as f32;
        let gain = match name {
            _ if name.contains(".conv1.") => 6.0_f32.sqrt(),
            _ if name.contains(".conv2.") => LAST * 6.0_f32.sqrt(),
            // What has no SiLU before it.
            _ if name.starts_with("head.") => 1.0,
            _ => 3.0_f32.sqrt(),
        };
        let bound = gain / fan_in.sqrt();
        values
            .iter_mut()
            .for_each(|v| *v = (2.0 * s.uniform() - 1.0) * bound);
    }
    Ok(())
}
