//! ReLU: y = max(x, 0), element by element on any shape; what is not a number stays so.
//!
//! Gradient: g where y > 0, else 0 (also at x = 0, as in the usual frameworks). Kept on the tape: y.

#[cfg(test)]
mod tests;

use super::arithmetic::{Map, zip_map};
use crate::{Cx, Result, Tensor};

/// max(x, 0).
///
/// # Errors
/// When x holds integers.
pub fn relu(cx: &Cx<'_>, x: &Tensor) -> Result<Tensor> {
    let mut y = zip_map("relu", Map::Relu, x, None)?;
    if cx.records(&[x]) {
        let (x, kept) = (x.without_data(), y.clone());
        cx.record_one(&mut y, move |g, grads| {
            let dx = zip_map("relu", Map::WherePositive, &kept, Some(&g))?;
            grads.add(&x, dx)
        });
    }
    Ok(y)
}
