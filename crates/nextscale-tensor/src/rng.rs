//! Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
//! 1, 2, 3", SC 2011).
//!
//! A draw is a pure function of (seed, purpose, step, lane, position), so nothing but the step has to be
//! saved to resume a run exactly, and every device and any number of workers sees the same values.

use rayon::prelude::*;

/// No normal number is larger: √(−2·ln 2⁻²⁴), the logarithm being of the least uniform number.
const LARGEST_NORMAL: f32 = 5.77;
/// How many bounds wide a bell is over which truncated normals are drawn evenly. Narrower ones, which are all that anybody trains with,
/// keep the draws that they always had.
const WIDE: f32 = 8.0;
/// Blocks of four words that a thread draws at once.
const FILLED_AT_ONCE: usize = 4096;

/// What a stream of draws is used for. Two purposes never share a counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[non_exhaustive]
pub enum Purpose {
    /// Initial weights; the step is the position of the parameter.
    Init = 1,
    /// Order of the images in an epoch; the step is the epoch.
    Shuffle = 2,
    /// Crop and flip of one image; the step is the epoch, the lane the image's index.
    Augment = 3,
    /// Class dropout; the step is the training step, the lane 0, the position the sample's number in the
    /// batch of all processes.
    ClassDrop = 4,
    /// Stochastic depth; the step is the training step, the lane the branch, the position the
    /// sample's number as above.
    DropPath = 5,
    /// Token draws while sampling; the step is the scale, the lane the image.
    Sample = 6,
    /// Gumbel noise of smooth sampling; the step is the scale, the lane the image.
    Gumbel = 7,
    /// The built-in procedural images; the step is 0 (train) or 1 (held out), the lane the image.
    Shapes = 8,
    /// Dropout inside the tokenizer; the step is the training step, the lane the layer.
    Dropout = 9,
    /// Codes that are drawn with equal probability; the step is 0, the lane the image.
    Noise = 11,
    /// Anything drawn by tests and benchmarks.
    Test = 10,
}

const MUL_A: u32 = 0xD251_1F53;
const MUL_B: u32 = 0xCD9E_8D57;
const WEYL_A: u32 = 0x9E37_79B9;
const WEYL_B: u32 = 0xBB67_AE85;

/// One block of Philox4x32-10: four independent 32-bit words for a counter under a key.
#[inline]
pub fn philox4x32(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let mut c = counter;
    let mut k = key;
    for _ in 0..10 {
        let a = u64::from(MUL_A) * u64::from(c[0]);
        let b = u64::from(MUL_B) * u64::from(c[2]);
        c = [
            (b >> 32) as u32 ^ c[1] ^ k[0],
            b as u32,
            (a >> 32) as u32 ^ c[3] ^ k[1],
            a as u32,
        ];
        k = [k[0].wrapping_add(WEYL_A), k[1].wrapping_add(WEYL_B)];
    }
    c
}

/// A sequence of draws addressed by position; also usable as a plain generator.
#[derive(Clone, Debug)]
pub struct Stream {
    key: [u32; 2],
    // Words 1..4 of the counter; word 0 is the block index within the stream.
    tail: [u32; 3],
    position: u64,
}

impl Stream {
    /// The stream of `purpose` at `step` for `lane` (image, branch or layer: see [`Purpose`]).
    ///
    /// # Panics
    /// Never; `lane` above 2⁴⁸ or `step` above 2³² are folded into the key.
    pub fn new(seed: u64, purpose: Purpose, step: u64, lane: u64) -> Self {
        // The purpose goes into the key together with the parts of lane and step that do not fit the counter.
        let high = ((lane >> 32) as u32).rotate_left(8) ^ ((step >> 32) as u32).rotate_left(16);
        Self {
            key: [seed as u32, (seed >> 32) as u32 ^ high],
            tail: [purpose as u32, step as u32, lane as u32],
            position: 0,
        }
    }

    /// The 32-bit word at `position`, independent of what was drawn before. Positions below 2³⁴ are distinct.
    #[inline]
    pub fn word_at(&self, position: u64) -> u32 {
        self.block_at(position >> 2)[(position & 3) as usize]
    }

    /// The four words at positions `4·block … 4·block + 3`.
    #[inline]
    pub fn block_at(&self, block: u64) -> [u32; 4] {
        philox4x32(
            [block as u32, self.tail[0], self.tail[1], self.tail[2]],
            self.key,
        )
    }

    /// The key and words 1..4 of the counter, for a GPU to draw the same words.
    pub(crate) fn key_and_tail(&self) -> ([u32; 2], [u32; 3]) {
        (self.key, self.tail)
    }

    /// A uniform number in the open interval (0, 1) at `position`.
    #[inline]
    pub fn uniform_at(&self, position: u64) -> f32 {
        to_open_unit(self.word_at(position))
    }

    /// The next 32-bit word.
    pub fn next_u32(&mut self) -> u32 {
        let w = self.word_at(self.position);
        self.position += 1;
        w
    }

    /// The next uniform number in the open interval (0, 1).
    pub fn uniform(&mut self) -> f32 {
        to_open_unit(self.next_u32())
    }

    /// The next integer below `n`, without bias. `n` = 0 gives 0.
    pub fn below(&mut self, n: u32) -> u32 {
        // Lemire's multiply-shift with rejection of the short tail.
        if n == 0 {
            return 0;
        }
        let threshold = n.wrapping_neg() % n;
        loop {
            let m = u64::from(self.next_u32()) * u64::from(n);
            if m as u32 >= threshold {
                return (m >> 32) as u32;
            }
        }
    }

    /// The next standard normal number (Box–Muller on two words).
    pub fn normal(&mut self) -> f32 {
        let u = self.uniform();
        box_muller(u, self.uniform())
    }

    /// The next number of a normal distribution with deviation `std`, redrawn until it lies within ±`bound`
    /// (absolute, as the reference truncates).
    pub fn truncated_normal(&mut self, std: f32, bound: f32) -> f32 {
        if std.abs() > WIDE * bound {
            // Nearly all normal numbers would be thrown away: even ones are drawn, and kept as often as the bell is high there.
            loop {
                let x = (2.0 * self.uniform() - 1.0) * bound;
                let kept = (-0.5 * (x / std).powi(2)).exp();
                if self.uniform() < kept {
                    return x;
                }
            }
        }
        loop {
            let x = self.normal() * std;
            if x.abs() <= bound {
                return x;
            }
        }
    }

    /// Fills `out` with what as many calls of [`Self::truncated_normal`] would give, on all threads where no number can lie
    /// beyond `bound`.
    pub fn fill_truncated_normal(&mut self, out: &mut [f32], std: f32, bound: f32) {
        let never_redrawn = std.abs() * LARGEST_NORMAL <= bound;
        if !never_redrawn || !self.position.is_multiple_of(4) {
            out.fill_with(|| self.truncated_normal(std, bound));
            return;
        }
        let first = self.position / 4;
        self.position += 2 * out.len() as u64;
        let stream = &*self;
        // A block of four words makes two numbers.
        out.par_chunks_mut(2 * FILLED_AT_ONCE)
            .enumerate()
            .for_each(|(i, part)| {
                let first = first + (i * FILLED_AT_ONCE) as u64;
                for (pair, block) in part.chunks_mut(2).zip(first..) {
                    let words = stream.block_at(block);
                    for (x, words) in pair.iter_mut().zip(words.chunks_exact(2)) {
                        *x = box_muller(to_open_unit(words[0]), to_open_unit(words[1])) * std;
                    }
                }
            });
    }

    /// The unit-exponential number at `position`.
    #[inline]
    pub fn exponential_at(&self, position: u64) -> f32 {
        -self.uniform_at(position).ln()
    }

    /// A permutation of `0..n` (Fisher–Yates).
    pub fn permutation(&mut self, n: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..n as u32).collect();
        for i in (1..n).rev() {
            let j = self.below(i as u32 + 1) as usize;
            order.swap(i, j);
        }
        order
    }
}

/// Maps a word to the middle of one of 2²³ equal cells of (0, 1): neither 0 nor 1 can occur.
#[inline]
fn to_open_unit(w: u32) -> f32 {
    ((w >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0)
}

/// A standard normal number from two uniform ones.
#[inline]
fn box_muller(u: f32, v: f32) -> f32 {
    let (u, v) = (f64::from(u), f64::from(v));
    ((-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filling_draws_what_single_calls_draw() {
        // The second bound makes redraws likely, the odd start makes blocks begin between numbers.
        for (bound, skipped) in [(2.0, 0), (0.5, 0), (2.0, 1)] {
            let mut single = Stream::new(5, Purpose::Init, 3, 0);
            (0..skipped).for_each(|_| _ = single.next_u32());
            let mut filling = single.clone();
            for n in [10_001, 2 * FILLED_AT_ONCE, 7] {
                let mut got = vec![0.0; n];
                filling.fill_truncated_normal(&mut got, 0.3, bound);
                let want: Vec<f32> = (0..n)
                    .map(|_| single.truncated_normal(0.3, bound))
                    .collect();
                assert_eq!(got, want);
            }
        }
        assert!(box_muller(to_open_unit(0), to_open_unit(0)) <= LARGEST_NORMAL);
    }

    #[test]
    fn wide_truncated_normals_are_drawn_at_once_and_fill_the_bounds() {
        for std in [17.0f32, 1e3, -1e3, 1e30, f32::INFINITY] {
            let mut stream = Stream::new(3, Purpose::Test, 0, 0);
            let mut values = [0.0; 4000];
            stream.fill_truncated_normal(&mut values, std, 2.0);
            assert!(values.iter().all(|v| v.abs() <= 2.0));
            // Nearly even: variance 4/3.
            let mean = values.iter().sum::<f32>() / 4000.0;
            let square = values.iter().map(|v| v * v).sum::<f32>() / 4000.0;
            assert!(
                mean.abs() < 0.08 && (square - 4.0 / 3.0).abs() < 0.08,
                "{std}"
            );
            // Four words a number at most, where a hundred would be thrown away.
            assert!(stream.position < 5 * 4000, "{}", stream.position);
        }
    }

    #[test]
    fn philox_known_answers() {
        // Known-answer vectors published with the Random123 library.
        assert_eq!(
            philox4x32([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox4x32([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn sequential_and_addressed_draws_agree() {
        let mut s = Stream::new(7, Purpose::Test, 3, 9);
        let fixed = s.clone();
        for i in 0..100 {
            assert_eq!(s.next_u32(), fixed.word_at(i));
        }
    }

    #[test]
    fn streams_differ() {
        let base = Stream::new(1, Purpose::Test, 0, 0).block_at(0);
        for other in [
            Stream::new(2, Purpose::Test, 0, 0),
            Stream::new(1, Purpose::Init, 0, 0),
            Stream::new(1, Purpose::Test, 1, 0),
            Stream::new(1, Purpose::Test, 0, 1),
            Stream::new(1, Purpose::Test, 1 << 40, 0),
            Stream::new(1, Purpose::Test, 0, 1 << 40),
        ] {
            assert_ne!(base, other.block_at(0));
        }
    }

    #[test]
    fn moments_and_bounds() {
        let mut s = Stream::new(11, Purpose::Test, 0, 0);
        let n = 200_000;
        let (mut sum, mut sq) = (0.0f64, 0.0f64);
        for _ in 0..n {
            let x = f64::from(s.normal());
            sum += x;
            sq += x * x;
        }
        assert!((sum / n as f64).abs() < 0.01);
        assert!((sq / n as f64 - 1.0).abs() < 0.02);
        assert!((0..10_000).all(|_| s.truncated_normal(1.5, 2.0).abs() <= 2.0));
        assert!((0..10_000).all(|_| s.below(7) < 7));
        let mut p = s.permutation(1000);
        p.sort_unstable();
        assert!(p.iter().enumerate().all(|(i, &x)| i as u32 == x));
    }
}
