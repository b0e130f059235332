//! Kept statistics: `.npz` files with `mu` and `sigma`, and those of spatial features as `mu_s` and `sigma_s`, as guided diffusion and the
//! packages keep them.

use super::{Statistics, Summary};
use crate::format::atomic::Unfinished;
use crate::format::npy::{NpyHeader, NpyType};
use crate::format::npz::Npz;
use crate::{Error, Result};
use faer::Mat;
use serde::{Deserialize, Serialize};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

/// Names of mean and covariance, of features and of spatial features.
const FEATURES: [&str; 2] = ["mu", "sigma"];
const SPATIAL: [&str; 2] = ["mu_s", "sigma_s"];
/// How many pictures they are of: an array that the packages do not know and pass over.
const COUNT: &str = "count";
/// By what they were made: a text beside the arrays, which the packages pass over too.
const MADE_BY: &str = "nextscale.json";
/// Features at most.
const MOST: usize = 1 << 14;

/// By what statistics were made: those of others mean nothing beside them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    /// The protocol, or `own-features`.
    pub protocol: String,
    /// The SHA-256 of the network's file.
    pub network: String,
}

/// By what the statistics in a file were made; `None` where it does not say so, as those of other programs.
///
/// # Errors
/// One line for a file that can't be read.
pub fn statistics_made_by(path: &Path) -> Result<Option<MadeBy>> {
    let mut npz = Npz::open(path)?;
    let Some(text) = npz.text(MADE_BY)? else {
        return Ok(None);
    };
    let bad = |e| Error::input(format!("{}: {e}; make the file again", npz.source(MADE_BY)));
    serde_json::from_str(&text).map(Some).map_err(bad)
}

/// The statistics in a file, without anything of single pictures; `None` where there are none in it. `width` and `spatial` are the
/// numbers of features that are expected.
///
/// # Errors
/// One line for arrays of other shapes, or with what is no number.
pub fn read_statistics(
    path: &Path,
    width: usize,
    spatial: Option<usize>,
) -> Result<Option<Summary>> {
    let mut npz = Npz::open(path)?;
    if !npz.has(FEATURES[0]) {
        return Ok(None);
    }
    let mut count = None;
    if npz.has(COUNT) {
        let (_, values) = npz.numbers(COUNT, |shape| shape.iter().product::<usize>() == 1)?;
        let n = values.first().copied().unwrap_or(0.0);
        if n.fract() != 0.0 || !(2.0..1e12).contains(&n) {
            return Err(Error::input(format!(
                "{}: is {n}; a number of images, 2 or more, is expected; make the file again",
                npz.source(COUNT)
            )));
        }
        count = Some(n as usize);
    }
    let features = read_pair(&mut npz, FEATURES, width, count)?;
    let spatial = match spatial.filter(|_| npz.has(SPATIAL[0])) {
        Some(width) => Some(read_pair(&mut npz, SPATIAL, width, count)?),
        None => None,
    };
    Ok(Some(Summary {
        count,
        features,
        spatial,
        inception_score: None,
        rows: None,
        accuracy: None,
        labelled: 0,
    }))
}

fn read_pair(
    npz: &mut Npz,
    names: [&str; 2],
    width: usize,
    count: Option<usize>,
) -> Result<Statistics> {
    let [mean, covariance] = names.map(|name| npz.source(name));
    let (shape, mu) = npz.numbers(names[0], |shape| shape.iter().product::<usize>() <= MOST)?;
    if mu.len() != width {
        return Err(Error::input(format!(
            "{mean}: is of shape {shape:?}; the network has {width} features: the statistics are of another network"
        )));
    }
    if shape.len() > 1 && shape.iter().filter(|extent| **extent != 1).count() > 1 {
        return Err(Error::input(format!(
            "{mean}: is of shape {shape:?}; a mean of {width} features is a row of them"
        )));
    }
    let (_, sigma) = npz.numbers(names[1], |shape| shape == [width, width])?;
    for (source, values) in [(&mean, &mu), (&covariance, &sigma)] {
        if let Some(bad) = values.iter().position(|v| !v.is_finite()) {
            let value = values[bad];
            return Err(Error::input(format!(
                "{source}: number {bad} is {value}; make the file again"
            )));
        }
    }
    let at = |i: usize, j: usize| sigma[i * width + j];
    let most = (0..width).map(|i| at(i, i)).fold(0.0, f64::max);
    for i in 0..width {
        let bad = (0..=i).find(|&j| (at(i, j) - at(j, i)).abs() > 1e-4 * most);
        if bad.is_some() || at(i, i) < -1e-4 * most || most == 0.0 && at(i, i) != 0.0 {
            return Err(Error::input(format!(
                "{covariance}: row {i} is none of a covariance, which is symmetric and has no negative variances; make the file again"
            )));
        }
    }
    Ok(Statistics {
        count,
        mean: mu,
        covariance: Mat::from_fn(width, width, |i, j| sigma[i * width + j]),
    })
}

/// Writes statistics for later.
///
/// # Errors
/// When the file can't be written.
pub fn write_statistics(path: &Path, summary: &Summary, made_by: &MadeBy) -> Result<PathBuf> {
    let file = Unfinished::create(path)?;
    let mut zip = ZipWriter::new(BufWriter::new(file.writer()?));
    let failed = |e: zip::result::ZipError| Error::failed(format!("{}: {e}", path.display()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    let mut put =
        |name: &str, shape: &[usize], values: &mut dyn Iterator<Item = f64>| -> Result<()> {
            zip.start_file(format!("{name}.npy"), stored)
                .map_err(failed)?;
            let mut bytes = NpyHeader::new(NpyType::F64, shape).to_bytes();
            bytes.extend(values.flat_map(f64::to_le_bytes));
            zip.write_all(&bytes).map_err(Error::io(path))
        };
    let mut pair = |names: [&str; 2], s: &Statistics| -> Result<()> {
        let n = s.mean.len();
        put(names[0], &[n], &mut s.mean.iter().copied())?;
        let values = (0..n * n).map(|k| s.covariance[(k / n, k % n)]);
        put(names[1], &[n, n], &mut { values })
    };
    pair(FEATURES, &summary.features)?;
    if let Some(spatial) = &summary.spatial {
        pair(SPATIAL, spatial)?;
    }
    if let Some(count) = summary.count {
        put(COUNT, &[], &mut std::iter::once(count as f64))?;
    }
    let text = serde_json::to_string(made_by)
        .map_err(|e| Error::failed(format!("{}: {e}", path.display())))?;
    zip.start_file(MADE_BY, stored).map_err(failed)?;
    zip.write_all(text.as_bytes()).map_err(Error::io(path))?;
    let buffered = zip.finish().map_err(failed)?;
    buffered
        .into_inner()
        .map_err(|e| Error::io(path)(e.into_error()))?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(width: usize, spatial: Option<usize>) -> Summary {
        let of = |n: usize| Statistics {
            count: Some(12),
            mean: (0..n).map(|i| 0.1 * i as f64).collect(),
            covariance: Mat::from_fn(n, n, |i, j| (i + j + 1) as f64 / 3.0),
        };
        Summary {
            count: Some(12),
            features: of(width),
            spatial: spatial.map(of),
            inception_score: None,
            rows: None,
            accuracy: None,
            labelled: 0,
        }
    }

    #[test]
    fn statistics_come_back_bit_for_bit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.npz");
        let kept = summary(5, Some(3));
        let by = MadeBy {
            protocol: "adm".into(),
            network: "00ff".into(),
        };
        write_statistics(&path, &kept, &by).unwrap();
        assert_eq!(statistics_made_by(&path).unwrap(), Some(by));
        let read = read_statistics(&path, 5, Some(3)).unwrap().unwrap();
        assert_eq!(read.features, kept.features);
        assert_eq!(read.spatial, kept.spatial);
        assert_eq!(read.count, Some(12));
        // A protocol without spatial features passes them over.
        assert!(
            read_statistics(&path, 5, None)
                .unwrap()
                .unwrap()
                .spatial
                .is_none()
        );
        let told = read_statistics(&path, 6, None).unwrap_err().to_string();
        assert!(
            told.contains("another network") && told.contains("mu"),
            "{told}"
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.npz");
        let mut bad = summary(2, None);
        bad.features.covariance[(1, 0)] = f64::NAN;
        let by = MadeBy {
            protocol: "adm".into(),
            network: String::new(),
        };
        write_statistics(&path, &bad, &by).unwrap();
        let told = read_statistics(&path, 2, None).unwrap_err().to_string();
        assert!(told.contains("sigma: number 2 is NaN"), "{told}");
        let mut bent = summary(2, None);
        bent.features.covariance[(1, 0)] = 7.0;
        write_statistics(&path, &bent, &by).unwrap();
        let told = read_statistics(&path, 2, None).unwrap_err().to_string();
        assert!(
            told.contains("sigma: row 1 is none of a covariance"),
            "{told}"
        );
        let mut few = summary(2, None);
        few.count = Some(1);
        write_statistics(&path, &few, &by).unwrap();
        let told = read_statistics(&path, 2, None).unwrap_err().to_string();
        assert!(told.contains("count: is 1;"), "{told}");
        std::fs::write(&path, b"PK nothing").unwrap();
        assert!(read_statistics(&path, 2, None).is_err());
    }
}
