//! From libjpeg's samples to pixels, a few rows at a time.

use crate::color::ycbcr_row;
use crate::libjpeg::{BLOCK, Session};
use crate::upsample::Expansion;

/// The samples of one component: the last two rows of MCUs, the newer one overwriting the older one.
struct Plane {
    samples: Vec<u8>,
    /// Bytes from one row to the next: whole blocks.
    stride: usize,
    /// Rows of samples in a row of MCUs.
    step: usize,
    /// Columns and rows that belong to the picture.
    width: usize,
    height: usize,
    expansion: Expansion,
}

impl Plane {
    fn row(&self, y: usize) -> &[u8] {
        let at = (y % (2 * self.step)) * self.stride;
        &self.samples[at..at + self.width]
    }

    /// The place for row of MCUs number `index`, and the bytes from row to row.
    fn place(&mut self, index: usize) -> (&mut [u8], usize) {
        let size = self.step * self.stride;
        let from = (index % 2) * size;
        (&mut self.samples[from..from + size], self.stride)
    }

    /// Row `y` of the picture; `sums` and `out` are scratch.
    #[inline(always)]
    fn full_row<'a>(&'a self, y: usize, sums: &mut [u16], out: &'a mut [u8]) -> &'a [u8] {
        let (near, far) = if self.expansion.tall() {
            let near = y / 2;
            let far = if y.is_multiple_of(2) {
                near.saturating_sub(1)
            } else {
                (near + 1).min(self.height - 1)
            };
            (self.row(near), self.row(far))
        } else {
            (self.row(y), &[][..])
        };
        if self.expansion == Expansion::None {
            return near;
        }
        let sums = &mut sums[..near.len()];
        self.expansion
            .row(near, far, y.is_multiple_of(2), sums, out);
        out
    }
}

/// Makes pixels of Y, Cb and Cr of the usual samplings.
pub(crate) struct Rows {
    planes: [Plane; 3],
    /// Rows of pixels in a row of MCUs.
    step: usize,
    sums: Vec<u16>,
    full: [Vec<u8>; 3],
}

impl Rows {
    pub(crate) fn new(session: &Session<'_>, plan: [Expansion; 3]) -> Self {
        let (width, height) = session.size();
        let (max_h, max_v) = session.max_sampling();
        let planes = [0, 1, 2].map(|index| {
            let (h, v) = session.sampling(index).unwrap_or((max_h, max_v));
            let width = (width * h).div_ceil(max_h);
            let (stride, step) = (width.next_multiple_of(BLOCK), v * BLOCK);
            Plane {
                samples: vec![0; 2 * step * stride],
                stride,
                step,
                width,
                height: (height * v).div_ceil(max_v),
                expansion: plan[index],
            }
        });
        // An odd width has its last pixel in the left half of a pair.
        let scratch = width + 1;
        let full = [0, 1, 2].map(|index| match plan[index] {
            Expansion::None => Vec::new(),
            _ => vec![0; scratch],
        });
        Self {
            planes,
            step: max_v * BLOCK,
            sums: vec![0; scratch],
            full,
        }
    }

    /// Reads all samples and fills `pixels`, rows of `width` pixels.
    pub(crate) fn decode(
        mut self,
        session: &mut Session<'_>,
        width: usize,
        pixels: &mut [u8],
    ) -> Result<(), String> {
        let mut lines = pixels.chunks_exact_mut(3 * width).enumerate();
        let height = lines.len();
        let arch = pulp::Arch::new();
        for index in 0..height.div_ceil(self.step) {
            let [y, cb, cr] = &mut self.planes;
            session.read_samples([y, cb, cr].map(|plane| plane.place(index)))?;
            // The last row needs samples below it, which come with the next row of MCUs.
            let end = (index + 1) * self.step;
            let count = if end >= height {
                lines.len()
            } else {
                end - 1 - (height - lines.len())
            };
            for (y, line) in lines.by_ref().take(count) {
                arch.dispatch(Line {
                    rows: &mut self,
                    y,
                    line,
                });
            }
        }
        Ok(())
    }
}

/// The work on one row of pixels, to be compiled once for each instruction set.
struct Line<'a> {
    rows: &'a mut Rows,
    y: usize,
    line: &'a mut [u8],
}

impl pulp::WithSimd for Line<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Rows {
            planes: [y, cb, cr],
            sums,
            full: [y_full, cb_full, cr_full],
            ..
        } = self.rows;
        let y = y.full_row(self.y, sums, y_full);
        let cb = cb.full_row(self.y, sums, cb_full);
        let cr = cr.full_row(self.y, sums, cr_full);
        ycbcr_row(y, cb, cr, self.line);
    }
}
