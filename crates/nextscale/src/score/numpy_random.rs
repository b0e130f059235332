//! The random order of numpy's `RandomState`, in which torch-fidelity deals images to the Inception score's splits.

/// MT19937 (Matsumoto and Nishimura 1998), seeded by one number.
struct MersenneTwister {
    state: [u32; N],
    at: usize,
}

const N: usize = 624;
const M: usize = 397;

impl MersenneTwister {
    fn new(seed: u32) -> Self {
        let mut state = [seed; N];
        for i in 1..N {
            let before = state[i - 1] ^ (state[i - 1] >> 30);
            state[i] = before.wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        Self { state, at: N }
    }

    fn next(&mut self) -> u32 {
        if self.at == N {
            for i in 0..N {
                let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
                let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
                self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
            }
            self.at = 0;
        }
        let mut y = self.state[self.at];
        self.at += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// A number from 0 to `most`: bits are drawn until they are no more than that.
    fn up_to(&mut self, most: u32) -> u32 {
        let mask = most.checked_next_power_of_two().map_or(u32::MAX, |p| p - 1) | most;
        loop {
            let drawn = self.next() & mask;
            if drawn <= most {
                return drawn;
            }
        }
    }
}

/// `numpy.random.RandomState(seed).permutation(count)`.
pub fn permutation(seed: u32, count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    let mut random = MersenneTwister::new(seed);
    for i in (1..count).rev() {
        let j = random.up_to(u32::try_from(i).unwrap_or(u32::MAX)) as usize;
        order.swap(i, j);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_authors() {
        let mut random = MersenneTwister::new(5489);
        assert_eq!(random.next(), 3_499_211_612);
        let ten_thousandth = (1..10_000).map(|_| random.next()).last();
        assert_eq!(ten_thousandth, Some(4_123_659_995));
    }

    #[test]
    fn orders_hold_every_place_once() {
        for count in [0, 1, 2, 3, 64, 65, 1000] {
            let mut order = permutation(2020, count);
            order.sort_unstable();
            assert_eq!(order, (0..count).collect::<Vec<_>>());
        }
    }
}
