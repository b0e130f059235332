//! Quantities of which a bundle holds a part: every n-th row and column, the first samples, or numbers spread evenly over all.

use super::compare::{Limit, sampled};
use super::machine::host;
use super::recorded::Recorded;
use super::report::Report;
use nextscale::Result;
use nextscale_tensor::Tensor;

/// A name such as `enc.conv_in_sub4` without what says that only every fourth row and column is kept, and that number.
pub fn bare(name: &str) -> (&str, usize) {
    match name.rsplit_once("_sub") {
        Some((bare, n)) => match n.parse() {
            Ok(n) if n > 0 => (bare, n),
            _ => (name, 1),
        },
        None => (name, 1),
    }
}

/// The name under which a file holds a quantity, whole or thinned out.
pub fn name_of<'f>(file: &'f Recorded, quantity: &str) -> Option<&'f str> {
    file.names().find(|n| bare(n).0 == quantity)
}

/// The part of `values`, row-major with the extents `dims`, that a record with the extents `want` keeps when rows and columns, the
/// last two axes, are thinned by `step`; where these do not fit, such axes as do. Of the first axis fewer may be kept, and a plain list of
/// fewer numbers is spread evenly over all. `None` where nothing fits.
pub fn of(values: &[f32], dims: &[usize], want: &[usize], step: usize) -> Option<Vec<f32>> {
    let count: usize = want.iter().product();
    if step == 1 && count == values.len() {
        return Some(values.to_vec());
    }
    if let ([n], true) = (want, dims.len() != 1)
        && *n < values.len()
    {
        return Some(sampled(values, *n));
    }
    if want.len() != dims.len() || dims.is_empty() {
        return None;
    }
    let rank = dims.len();
    let rows_and_columns = 0b11 << rank.saturating_sub(2) & ((1 << rank) - 1);
    let axes = std::iter::once(rows_and_columns).chain(1..1 << rank);
    let kept = |axes: usize, i: usize| match axes >> i & 1 {
        1 => dims[i].div_ceil(step),
        _ => dims[i],
    };
    let fits = |axes: usize| {
        (0..rank).all(|i| want[i] == kept(axes, i) || i == 0 && want[0] < kept(axes, 0))
    };
    let axes = if step == 1 { Some(0) } else { None }
        .into_iter()
        .chain(axes)
        .find(|a| fits(*a))?;
    let mut out = Vec::with_capacity(count);
    let mut at = vec![0usize; rank];
    for _ in 0..count {
        let flat = (0..rank).fold(0, |flat, i| {
            let by = if axes >> i & 1 == 1 { step } else { 1 };
            flat * dims[i] + at[i] * by
        });
        out.push(values[flat]);
        for i in (0..rank).rev() {
            at[i] += 1;
            if at[i] < want[i] {
                break;
            }
            at[i] = 0;
        }
    }
    Some(out)
}

/// Values and extents as the reference lays them out: maps \[B, h, w, C\] with channels first.
pub fn as_recorded(t: &Tensor) -> Result<(Vec<f32>, Vec<usize>)> {
    let t = host(t)?;
    let values = t.f32()?;
    let &[b, h, w, c] = t.dims() else {
        return Ok((values.to_vec(), t.dims().to_vec()));
    };
    let mut out = Vec::with_capacity(values.len());
    for s in 0..b {
        for i in 0..c {
            out.extend((0..h * w).map(|p| values[(s * h * w + p) * c + i]));
        }
    }
    Ok((out, vec![b, c, h, w]))
}

/// Compares what was computed with the part of it that `file` holds under `name`.
pub fn compare(
    label: String,
    got: &Tensor,
    (file, name): (&Recorded, &str),
    limit: Limit,
    report: &mut Report<'_>,
) -> Result<()> {
    let (values, dims) = as_recorded(got)?;
    let want = file.shape(name)?;
    match of(&values, &dims, want, bare(name).1) {
        Some(part) => report.computed(label, &part, &file.f32(name)?, limit),
        None => report.fact(
            label,
            false,
            format!("has the shape {dims:?}, recorded is {want:?}"),
        ),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_parts() {
        assert_eq!(bare("enc.conv_in_sub4"), ("enc.conv_in", 4));
        assert_eq!(bare("idx_to_img.3_sub2"), ("idx_to_img.3", 2));
        for whole in ["block.0", "x_sub", "x_sub0", "a_subtle"] {
            assert_eq!(bare(whole), (whole, 1));
        }
        // 2 samples of 2 channels of 3x5.
        let all: Vec<f32> = (0..60).map(|i| i as f32).collect();
        let dims = [2, 2, 3, 5];
        assert_eq!(of(&all, &dims, &dims, 1).unwrap(), all);
        assert_eq!(
            of(&all, &dims, &[1, 2, 2, 3], 2).unwrap(),
            [
                0.0, 2.0, 4.0, 10.0, 12.0, 14.0, 15.0, 17.0, 19.0, 25.0, 27.0, 29.0
            ]
        );
        assert_eq!(of(&all, &dims, &[1, 2, 3, 5], 1).unwrap(), all[..30]);
        assert_eq!(of(&all, &dims, &[4], 1).unwrap(), [0.0, 15.0, 30.0, 45.0]);
        // Tokens and channels, or tokens alone.
        let rows: Vec<f32> = (0..24).map(|i| i as f32).collect();
        assert_eq!(
            of(&rows, &[1, 4, 6], &[1, 2, 2], 3).unwrap(),
            [0.0, 3.0, 18.0, 21.0]
        );
        assert_eq!(
            of(&rows, &[1, 4, 6], &[1, 2, 6], 3).unwrap()[5..8],
            [5.0, 18.0, 19.0]
        );
        assert!(of(&all, &dims, &[2, 2, 2, 2], 2).is_none());
        assert!(of(&all, &dims, &[3, 2, 3, 5], 1).is_none());
    }
}
