//! Subsampled components up to full size, with the weights of libjpeg's "fancy" upsampling: every sample lies in
//! the middle of the pixels that it stands for, and each pixel takes ¾ of the nearer and ¼ of the farther sample
//! along a halved side. The rounding alternates between pixels, as in libjpeg.

use crate::libjpeg::Session;

/// How a component is brought to full size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expansion {
    /// It has full size.
    None,
    /// Halved in width.
    Wide,
    /// Halved in height.
    Tall,
    /// Halved in both.
    Both,
}

impl Expansion {
    /// The expansion of each of three components, where they are all of those known here. (Components of one or two
    /// columns are not interpolated by libjpeg: these are left to it.)
    pub(crate) fn plan(session: &Session<'_>) -> Option<[Self; 3]> {
        let (width, _) = session.size();
        let (max_h, max_v) = session.max_sampling();
        let of = |index: usize| {
            let (h, v) = session.sampling(index)?;
            let enough = (width * h).div_ceil(max_h) > 2;
            match (max_h.checked_div(h)?, max_v.checked_div(v)?) {
                _ if max_h % h != 0 || max_v % v != 0 => None,
                (1, 1) => Some(Self::None),
                (2, 1) if enough => Some(Self::Wide),
                (1, 2) => Some(Self::Tall),
                (2, 2) if enough => Some(Self::Both),
                _ => None,
            }
        };
        // Higher iMCU rows than two blocks are rare enough for libjpeg's own way.
        (session.components() == 3 && max_v <= 2).then_some(())?;
        Some([of(0)?, of(1)?, of(2)?])
    }

    /// Whether the height is halved.
    pub(crate) fn tall(self) -> bool {
        matches!(self, Self::Tall | Self::Both)
    }

    /// One row of pixels of a component that has not full size: from its row `near` and the next one on the pixel row's other side,
    /// `far` (which is read for halved heights only); `upper` says whether the pixel row is the upper one of the
    /// two that `near` stands for. `sums` is a scratch of the length of `near`.
    #[inline(always)]
    pub(crate) fn row(
        self,
        near: &[u8],
        far: &[u8],
        upper: bool,
        sums: &mut [u16],
        out: &mut [u8],
    ) {
        match self {
            Self::None => out[..near.len()].copy_from_slice(near),
            Self::Wide => {
                for (sum, &near) in sums.iter_mut().zip(near) {
                    *sum = u16::from(near);
                }
                widen::<2>(sums, [1, 2], out);
            }
            Self::Tall => {
                let bias = if upper { 1 } else { 2 };
                for ((out, &near), &far) in out.iter_mut().zip(near).zip(far) {
                    *out = ((3 * u16::from(near) + u16::from(far) + bias) >> 2) as u8;
                }
            }
            Self::Both => {
                for ((sum, &near), &far) in sums.iter_mut().zip(near).zip(far) {
                    *sum = 3 * u16::from(near) + u16::from(far);
                }
                widen::<4>(sums, [8, 7], out);
            }
        }
    }
}

/// Twice as many samples from `sums` (three at least), divided by 2^`SHIFT` at the end; `bias` is what is added
/// before that to the left and to the right one of two.
#[inline(always)]
fn widen<const SHIFT: u32>(sums: &[u16], bias: [u16; 2], out: &mut [u8]) {
    let n = sums.len();
    let pairs = &mut out.as_chunks_mut::<2>().0[..n];
    // The outermost samples have no neighbour and count fourfold.
    pairs[0] = [
        ((4 * sums[0] + bias[0]) >> SHIFT) as u8,
        ((3 * sums[0] + sums[1] + bias[1]) >> SHIFT) as u8,
    ];
    let inner = sums[..n - 2].iter().zip(&sums[1..n - 1]).zip(&sums[2..]);
    for (pair, ((&left, &middle), &right)) in pairs[1..n - 1].iter_mut().zip(inner) {
        *pair = [
            ((3 * middle + left + bias[0]) >> SHIFT) as u8,
            ((3 * middle + right + bias[1]) >> SHIFT) as u8,
        ];
    }
    pairs[n - 1] = [
        ((3 * sums[n - 1] + sums[n - 2] + bias[0]) >> SHIFT) as u8,
        ((4 * sums[n - 1] + bias[1]) >> SHIFT) as u8,
    ];
}
