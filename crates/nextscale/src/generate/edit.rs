//! Zero-shot editing: at every scale the tokens outside the region are those of the source image (VAR paper,
//! section 5.4).

use crate::model::Pyramid;
use crate::{Error, Result};
use nextscale_tensor::{Device, Tensor};

/// A region of an image, as the share of each pixel that belongs to it.
#[derive(Clone, Debug, PartialEq)]
pub struct Region {
    height: usize,
    width: usize,
    /// 0 keeps the source, 1 draws anew; row-major.
    mask: Vec<f32>,
}

impl Region {
    /// From a mask of `height`×`width` values in \[0, 1\], 1 where the image is drawn anew.
    ///
    /// # Errors
    /// When the count does not fit.
    pub fn from_mask(height: usize, width: usize, mask: Vec<f32>) -> Result<Self> {
        if height == 0 || width == 0 || mask.len() != height * width {
            return Err(Error::input(format!(
                "mask: {} values do not make a picture of {height}×{width}",
                mask.len()
            )));
        }
        Ok(Self {
            height,
            width,
            mask,
        })
    }

    /// The rectangle from (`x0`, `y0`) to (`x1`, `y1`), all as shares of the image's sides; `outside` turns it round
    /// (out-painting).
    ///
    /// # Errors
    /// When the rectangle is empty or leaves the image.
    pub fn rectangle((x0, y0, x1, y1): (f64, f64, f64, f64), outside: bool) -> Result<Self> {
        const SIDE: usize = 512;
        let inside = |v: f64| (0.0..=1.0).contains(&v);
        if ![x0, y0, x1, y1].into_iter().all(inside) || x0 >= x1 || y0 >= y1 {
            return Err(Error::input(format!(
                "`box`={x0},{y0},{x1},{y1}: expected x0,y0,x1,y1 as shares of the image with 0 <= x0 < x1 <= 1 and 0 <= y0 < y1 <= 1"
            )));
        }
        // The share of pixel i's extent that [a, b] covers.
        let cover = |i: usize, a: f64, b: f64| {
            let (lo, hi) = (i as f64, (i + 1) as f64);
            ((b * SIDE as f64).min(hi) - (a * SIDE as f64).max(lo)).max(0.0)
        };
        let mut mask = Vec::with_capacity(SIDE * SIDE);
        for y in 0..SIDE {
            for x in 0..SIDE {
                let share = (cover(y, y0, y1) * cover(x, x0, x1)) as f32;
                mask.push(if outside { 1.0 - share } else { share });
            }
        }
        Self::from_mask(SIDE, SIDE, mask)
    }

    /// Which tokens of a `ph`×`pw` map are drawn anew: those whose area lies in the region by half or more.
    pub fn tokens(&self, ph: usize, pw: usize) -> Vec<bool> {
        self.cells(ph, pw, |sum, n| sum >= 0.5 * n)
    }

    /// The share of every pixel of an image of `height`×`width` that lies in the region.
    pub fn shares(&self, height: usize, width: usize) -> Vec<f32> {
        self.cells(height, width, |sum, n| (sum / n) as f32)
    }

    /// What `of` makes of the sum and the count of the mask's values under each of `ph`×`pw` cells.
    fn cells<T>(&self, ph: usize, pw: usize, of: impl Fn(f64, f64) -> T) -> Vec<T> {
        let mut out = Vec::with_capacity(ph * pw);
        for y in 0..ph {
            for x in 0..pw {
                let rows = window(y, ph, self.height);
                let cols = window(x, pw, self.width);
                let (mut sum, mut n) = (0.0f64, 0usize);
                for r in rows {
                    for c in cols.clone() {
                        sum += f64::from(self.mask[r * self.width + c]);
                        n += 1;
                    }
                }
                out.push(of(sum, n as f64));
            }
        }
        out
    }

    /// How much of an image of these scales is drawn anew.
    pub fn selected(&self, pyramid: &Pyramid) -> Selected {
        let maps = pyramid.scales().iter().map(|&(ph, pw)| self.tokens(ph, pw));
        let all: Vec<bool> = maps.flatten().collect();
        if all.iter().all(|&anew| anew) {
            Selected::Everything
        } else if all.contains(&true) {
            Selected::Part
        } else {
            Selected::Nothing
        }
    }
}

/// How much a [`Region`] selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// No token of any scale.
    Nothing,
    /// Some tokens.
    Part,
    /// Every token.
    Everything,
}

/// The source pixels of cell `i` among `n`.
fn window(i: usize, n: usize, size: usize) -> std::ops::Range<usize> {
    i * size / n..((i + 1) * size).div_ceil(n)
}

/// A source and where it is changed.
#[derive(Clone, Debug)]
pub struct Edit {
    /// Token maps of the source, \[1 or B, l\] a scale.
    pub source: Vec<Tensor>,
    /// Where images are drawn anew.
    pub region: Region,
}

impl Edit {
    /// Puts the source's tokens back outside the region: `drawn` are the tokens \[B, l\] of scale `k`.
    pub(crate) fn apply(&self, drawn: &Tensor, k: usize, pyramid: &Pyramid) -> Result<Tensor> {
        let (ph, pw) = pyramid.scales()[k];
        let anew = self.region.tokens(ph, pw);
        let source = self.source[k].to(Device::Cpu)?;
        let source = source.i32()?;
        let l = ph * pw;
        let mut out = drawn.to(Device::Cpu)?.i32()?.to_vec();
        for (i, token) in out.iter_mut().enumerate() {
            if !anew[i % l] {
                *token = source[i % source.len()];
            }
        }
        Ok(Tensor::from_i32(drawn.shape(), out).to(drawn.device())?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_choose_tokens() {
        let left = Region::rectangle((0.0, 0.0, 0.5, 1.0), false).unwrap();
        assert_eq!(left.tokens(2, 2), [true, false, true, false]);
        assert_eq!(left.tokens(1, 1), [true]);
        let right = Region::rectangle((0.0, 0.0, 0.5, 1.0), true).unwrap();
        assert_eq!(right.tokens(2, 2), [false, true, false, true]);
        let dot = Region::rectangle((0.4, 0.4, 0.6, 0.6), false).unwrap();
        let map = dot.tokens(5, 5);
        assert!(map.iter().enumerate().all(|(i, &m)| m == (i == 12)));
        let pyramid = Pyramid::square(&[1, 2, 4]).unwrap();
        let selected = |r: (f64, f64, f64, f64), outside| {
            Region::rectangle(r, outside).unwrap().selected(&pyramid)
        };
        assert_eq!(selected((0.0, 0.0, 0.25, 0.25), false), Selected::Part);
        assert_eq!(selected((0.0, 0.0, 0.1, 0.1), false), Selected::Nothing);
        assert_eq!(selected((0.0, 0.0, 1.0, 1.0), true), Selected::Nothing);
        assert_eq!(selected((0.0, 0.0, 1.0, 1.0), false), Selected::Everything);
        assert_eq!(selected((0.0, 0.0, 0.1, 0.1), true), Selected::Everything);
        for bad in [
            (0.5, 0.0, 0.5, 1.0),
            (-0.1, 0.0, 1.0, 1.0),
            (0.0, 0.0, 1.0, f64::NAN),
        ] {
            assert!(Region::rectangle(bad, false).is_err());
        }
        assert!(Region::from_mask(2, 2, vec![0.0; 3]).is_err());
    }

    #[test]
    fn source_stays_outside() {
        let pyramid = Pyramid::square(&[1, 2]).unwrap();
        let edit = Edit {
            source: vec![
                Tensor::from_i32([1, 1], vec![9]),
                Tensor::from_i32([1, 4], vec![5, 6, 7, 8]),
            ],
            region: Region::rectangle((0.0, 0.0, 1.0, 0.5), false).unwrap(),
        };
        let drawn = Tensor::from_i32([2, 4], vec![0; 8]);
        let mixed = edit.apply(&drawn, 1, &pyramid).unwrap();
        assert_eq!(mixed.i32().unwrap(), [0, 0, 7, 8, 0, 0, 7, 8]);
    }
}
