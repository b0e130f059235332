//! The token maps of an image, coarse to fine: how many patches each scale has.

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// The scales' extents in patches (height, width), coarse to fine. Called `patch_nums` or `pn` in the reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<(usize, usize)>", into = "Vec<(usize, usize)>")]
pub struct Pyramid {
    scales: Vec<(usize, usize)>,
}

impl Pyramid {
    /// Square scales from their sides.
    ///
    /// # Errors
    /// When there is none, one is zero, or sides do not grow.
    pub fn square(sides: &[usize]) -> Result<Self> {
        Self::new(sides.iter().map(|&s| (s, s)).collect())
    }

    /// Scales from (height, width) pairs.
    ///
    /// # Errors
    /// When there is none, an extent is zero, or a scale is smaller than the one before.
    pub fn new(scales: Vec<(usize, usize)>) -> Result<Self> {
        let text = || {
            let parts: Vec<String> = scales.iter().map(|s| format!("{}x{}", s.0, s.1)).collect();
            parts.join(" ")
        };
        if scales.is_empty() || scales.iter().any(|s| s.0 == 0 || s.1 == 0) {
            return Err(Error::input(format!(
                "patch numbers [{}]: expected at least one scale and none of size 0",
                text()
            )));
        }
        if scales
            .windows(2)
            .any(|w| w[1].0 < w[0].0 || w[1].1 < w[0].1)
        {
            return Err(Error::input(format!(
                "patch numbers [{}]: a scale is smaller than the one before; give them coarse to fine",
                text()
            )));
        }
        Ok(Self { scales })
    }

    /// (Height, width) of every scale.
    pub fn scales(&self) -> &[(usize, usize)] {
        &self.scales
    }

    /// Number of scales K.
    pub fn count(&self) -> usize {
        self.scales.len()
    }

    /// Tokens of scale `k`.
    pub fn len_of(&self, k: usize) -> usize {
        self.scales[k].0 * self.scales[k].1
    }

    /// Tokens of all scales, L.
    pub fn total(&self) -> usize {
        (0..self.count()).map(|k| self.len_of(k)).sum()
    }

    /// Position after the last token of every scale in the concatenated sequence.
    pub fn ends(&self) -> Vec<usize> {
        let mut end = 0;
        (0..self.count())
            .map(|k| {
                end += self.len_of(k);
                end
            })
            .collect()
    }

    /// (First position, position after the last) of scale `k`.
    pub fn range(&self, k: usize) -> std::ops::Range<usize> {
        let start: usize = (0..k).map(|j| self.len_of(j)).sum();
        start..start + self.len_of(k)
    }

    /// The finest scale.
    pub fn finest(&self) -> (usize, usize) {
        self.scales[self.count() - 1]
    }

    /// The sides where every scale is square.
    pub fn sides(&self) -> Option<Vec<usize>> {
        self.scales
            .iter()
            .map(|s| (s.0 == s.1).then_some(s.0))
            .collect()
    }
}

impl TryFrom<Vec<(usize, usize)>> for Pyramid {
    type Error = Error;

    fn try_from(scales: Vec<(usize, usize)>) -> Result<Self> {
        Self::new(scales)
    }
}

impl From<Pyramid> for Vec<(usize, usize)> {
    fn from(p: Pyramid) -> Self {
        p.scales
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents() {
        let p = Pyramid::square(&[1, 2, 3]).unwrap();
        assert_eq!((p.count(), p.total(), p.ends()), (3, 14, vec![1, 5, 14]));
        assert_eq!((p.range(1), p.finest()), (1..5, (3, 3)));
        assert_eq!(p.sides(), Some(vec![1, 2, 3]));
        let p = Pyramid::new(vec![(1, 1), (2, 3)]).unwrap();
        assert_eq!((p.total(), p.sides()), (7, None));
    }

    #[test]
    fn refusals() {
        assert!(Pyramid::square(&[]).is_err());
        assert!(Pyramid::square(&[0, 1]).is_err());
        assert!(Pyramid::square(&[2, 1]).is_err());
    }
}
