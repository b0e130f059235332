//! The operands of a convolution seen as a matrix product, gathered while they are packed.

use crate::cpu::gemm::pack::{PackA, PackB};

/// Distance between rows in a panel stored by rows.
const KC: usize = crate::cpu::gemm::KC;

/// The patches of a channels-last feature map: one row for every position of a grid, in it the channels of every tap.
pub(super) struct Patches<'a> {
    pub(super) data: &'a [f32],
    /// Height, width and channels of the map.
    pub(super) map: (usize, usize, usize),
    /// Height and width of the grid of positions.
    pub(super) grid: (usize, usize),
    /// Pixels of the map between neighbouring positions.
    pub(super) stride: usize,
    /// Pixel offsets (down, right) of the taps from a position's own pixel.
    pub(super) taps: Vec<(isize, isize)>,
}

impl Patches<'_> {
    /// First float of the tap's pixel for a position, or `None` in the padding.
    #[inline(always)]
    fn pixel(&self, (b, y, x): (usize, usize, usize), tap: usize) -> Option<usize> {
        let (h, w, c) = self.map;
        let (dy, dx) = self.taps[tap];
        let y = (y * self.stride).wrapping_add_signed(dy);
        let x = (x * self.stride).wrapping_add_signed(dx);
        // A negative index wraps around to a huge one.
        (y < h && x < w).then(|| ((b * h + y) * w + x) * c)
    }

    #[inline(always)]
    fn position(&self, row: usize) -> (usize, usize, usize) {
        let (gh, gw) = self.grid;
        (row / (gh * gw), row / gw % gh, row % gw)
    }

    /// Writes the columns `k0..k0 + out.len()` of a position's row.
    #[inline(always)]
    fn gather(&self, at: (usize, usize, usize), k0: usize, out: &mut [f32]) {
        let c = self.map.2;
        let (mut tap, mut channel, mut done) = (k0 / c, k0 % c, 0);
        while done < out.len() {
            let run = (c - channel).min(out.len() - done);
            let target = &mut out[done..done + run];
            match self.pixel(at, tap) {
                Some(p) => target.copy_from_slice(&self.data[p + channel..p + channel + run]),
                None => target.fill(0.0),
            }
            done += run;
            channel = 0;
            tap += 1;
        }
    }
}

impl PackA for Patches<'_> {
    const K_MAJOR: bool = false;

    #[inline(always)]
    fn pack(&self, row0: usize, rows: usize, k0: usize, kc: usize, mr: usize, out: &mut [f32]) {
        for (i, out) in out.chunks_exact_mut(KC).take(mr).enumerate() {
            if i < rows {
                self.gather(self.position(row0 + i), k0, &mut out[..kc]);
            } else {
                out[..kc].fill(0.0);
            }
        }
    }
}

impl PackB for Patches<'_> {
    #[inline(always)]
    fn pack(&self, k0: usize, kc: usize, n0: usize, cols: usize, nr: usize, out: &mut [f32]) {
        for (k, out) in out.chunks_exact_mut(nr).take(kc).enumerate() {
            self.gather(self.position(k0 + k), n0, &mut out[..cols]);
            out[cols..].fill(0.0);
        }
    }
}

/// The weights \[O, taps, I\] as the right operand of the input's gradient: inner index (tap, output), columns inputs.
pub(super) struct Turned<'a> {
    pub(super) weight: &'a [f32],
    pub(super) outputs: usize,
    pub(super) inputs: usize,
    /// Taps of the whole kernel.
    pub(super) all: usize,
    /// Which of them take part, in the order of the patches' taps.
    pub(super) taps: Vec<usize>,
}

impl PackB for Turned<'_> {
    #[inline(always)]
    fn pack(&self, k0: usize, kc: usize, n0: usize, cols: usize, nr: usize, out: &mut [f32]) {
        for (k, out) in out.chunks_exact_mut(nr).take(kc).enumerate() {
            let (tap, o) = ((k0 + k) / self.outputs, (k0 + k) % self.outputs);
            let at = (o * self.all + self.taps[tap]) * self.inputs + n0;
            out[..cols].copy_from_slice(&self.weight[at..at + cols]);
            out[cols..].fill(0.0);
        }
    }
}
