//! The straight-through estimate (Bengio et al. 2013): the value of f̂, the gradient of f.
//!
//! The value is computed as (f̂ − f) + f, as the reference rounds it.

#[cfg(test)]
mod tests;

use super::arithmetic::{Map, zip_map};
use crate::{Cx, Result, Tensor};

/// f̂ in value, f for the gradient; both of one shape.
///
/// # Errors
/// When shapes differ.
pub fn straight_through(cx: &Cx<'_>, f: &Tensor, f_hat: &Tensor) -> Result<Tensor> {
    let mut y = zip_map("straight_through", Map::StraightThrough, f, Some(f_hat))?;
    if cx.records(&[f]) {
        let f = f.without_data();
        cx.record_one(&mut y, move |g, grads| grads.add(&f, g));
    }
    Ok(y)
}
