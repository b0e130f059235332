//! Weights and pictures by formulas that the recording script computes too, bit for bit.

/// FNV-1a of a name.
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |h, byte| {
        (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// SplitMix64 (Steele et al. 2014) at a place of its sequence.
fn splitmix64(place: u64) -> u64 {
    let z = place.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Numbers of a name, in \[−1, 1).
pub fn uniform(name: &str) -> impl Iterator<Item = f64> + use<> {
    let seed = hash(name);
    (0..).map(move |i| {
        let bits = splitmix64(seed.wrapping_add(i)) >> 40;
        bits as f64 / f64::from(1 << 23) - 1.0
    })
}

/// A tensor of the network; `fc` is the amplitude of the last layer's weights.
pub fn weight(name: &str, shape: &[usize], fc: f64) -> Vec<f32> {
    let inputs = shape.iter().skip(1).product::<usize>().max(1);
    let value = |u: f64| {
        if name.ends_with(".conv.weight") {
            u * (6.0 / inputs as f64).sqrt()
        } else if name == "fc.weight" {
            u * fc
        } else if name.ends_with(".bn.weight") {
            1.0 + 0.2 * u
        } else if name.ends_with(".bn.running_var") {
            1.0 + 0.5 * u
        } else {
            0.1 * u
        }
    };
    let numbers = uniform(name).take(shape.iter().product());
    numbers.map(|u| value(u) as f32).collect()
}

/// A picture `[height, width, 3]`: triangle waves of random slopes and lengths, with noise of weight `noisy` of 16.
pub fn picture(name: &str, (height, width): (usize, usize), noisy: i64) -> Vec<u8> {
    let seed = hash(name);
    let r = |k: u64| splitmix64(seed.wrapping_add(k));
    let below = |k: u64, n: u64| (r(k) % n) as i64;
    // Length, slopes and phase of each wave, and the levels of each channel.
    let waves: Vec<[i64; 4]> = (0..9)
        .map(|w| {
            let k = 12 * (w / 3) + 4 * (w % 3);
            [
                9 + below(k, 57),
                below(k + 1, 7),
                below(k + 2, 7),
                below(k + 3, 1000),
            ]
        })
        .collect();
    let levels: Vec<(i64, i64)> = (0..3)
        .map(|c| (below(48 + 2 * c, 160), 96 + below(49 + 2 * c, 160)))
        .collect();
    let mut out = Vec::with_capacity(height * width * 3);
    for i in 0..height * width * 3 {
        let (c, x, y) = (i % 3, (i / 3 % width) as i64, (i / 3 / width) as i64);
        let wave = |w: usize| {
            let [length, right, down, phase] = waves[3 * c + w];
            let at = (x * right + y * down + phase) % (2 * length);
            (at - length).abs() * 255 / length
        };
        let smooth = (2 * wave(0) + wave(1) + wave(2)) / 4;
        let (low, high) = levels[c];
        let smooth = match high >= low {
            true => low + (high - low) * smooth / 255,
            false => low - (low - high) * smooth / 255,
        };
        let noise = (r((1 << 32) + i as u64) >> 56) as i64;
        out.push((((16 - noisy) * smooth + noisy * noise) / 16) as u8);
    }
    out
}

/// Features that are mixed and correlated, `[rows, width]`, for the mathematics alone.
pub fn features(kind: &str, rows: usize, width: usize, (scale, shift): (f64, f64)) -> Vec<f32> {
    let u: Vec<f64> = uniform(&format!("formula/{kind}"))
        .take(rows * width)
        .collect();
    let mix: Vec<f64> = uniform("formula/mix").take(width * width).collect();
    let mut out = Vec::with_capacity(rows * width);
    for row in u.chunks_exact(width) {
        for k in 0..width {
            let mixed = row
                .iter()
                .enumerate()
                .fold(0.0, |sum, (j, u)| sum + u * mix[j * width + k]);
            out.push((mixed * scale + shift) as f32);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_definitions() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(splitmix64(0), 0xe220_a839_7b1d_cdaf);
        assert!(uniform("x").take(1000).all(|u| (-1.0..1.0).contains(&u)));
        assert_eq!(weight("a.bn.running_var", &[3], 1.0).len(), 3);
        let (plain, noisy) = (picture("p", (4, 6), 0), picture("p", (4, 6), 9));
        assert!(plain.len() == 72 && plain != noisy);
    }
}
