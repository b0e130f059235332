//! Bicubic resizing with antialiasing and without rounding to 8 bits, as clean-fid resizes (Parmar et al. 2022): Pillow's of
//! pictures of floats, a channel at a time.

/// Half the width of the kernel, in output pixels.
const SUPPORT: f64 = 2.0;

/// Keys' kernel with a = −0.5.
fn kernel(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Weights of the samples that make an output sample, from the first on.
struct Span {
    first: usize,
    weights: Vec<f64>,
}

fn spans(input: usize, output: usize) -> Vec<Span> {
    let scale = input as f64 / output as f64;
    let filter_scale = scale.max(1.0);
    let support = SUPPORT * filter_scale;
    (0..output)
        .map(|out| {
            let center = (out as f64 + 0.5) * scale;
            let first = (center - support + 0.5).max(0.0) as usize;
            let end = ((center + support + 0.5) as usize).min(input);
            let at = |i: usize| kernel((i as f64 - center + 0.5) / filter_scale);
            let mut weights: Vec<f64> = (first..end).map(at).collect();
            let sum: f64 = weights.iter().sum();
            weights.iter_mut().for_each(|w| *w /= sum);
            Span { first, weights }
        })
        .collect()
}

/// A picture of bytes `[height, width, 3]`, resized to `side` × `side`, from 0 to 255.
pub fn float_bicubic(pixels: &[u8], (height, width): (usize, usize), side: usize) -> Vec<f32> {
    let (across, down) = (spans(width, side), spans(height, side));
    let mut middle = Vec::with_capacity(height * side * 3);
    for row in pixels.chunks_exact((width * 3).max(1)) {
        for span in &across {
            let mut sums = [0.0; 3];
            let samples = row[3 * span.first..].as_chunks::<3>().0;
            for (sample, w) in samples.iter().zip(&span.weights) {
                for (sum, v) in sums.iter_mut().zip(sample) {
                    *sum += f64::from(*v) * w;
                }
            }
            middle.extend(sums.map(|sum| sum as f32));
        }
    }
    let mut out = Vec::with_capacity(side * side * 3);
    let mut sums = vec![0.0; side * 3];
    for span in &down {
        // Whole rows at a time.
        sums.fill(0.0);
        let rows = middle.chunks_exact(side * 3).skip(span.first);
        for (row, w) in rows.zip(&span.weights) {
            for (sum, v) in sums.iter_mut().zip(row) {
                *sum += f64::from(*v) * w;
            }
        }
        out.extend(sums.iter().map(|sum| (*sum as f32).clamp(0.0, 255.0)));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_the_size_stays_and_a_plain_picture_is_plain() {
        let pixels: Vec<u8> = (0..5 * 5 * 3).map(|i| (i * 37 % 256) as u8).collect();
        let same = float_bicubic(&pixels, (5, 5), 5);
        for (a, b) in same.iter().zip(&pixels) {
            assert!((a - f32::from(*b)).abs() < 1e-4);
        }
        for side in [2, 3, 7, 20] {
            let plain = float_bicubic(&[90; 6 * 4 * 3], (6, 4), side);
            assert_eq!(plain.len(), side * side * 3);
            assert!(plain.iter().all(|v| (v - 90.0).abs() < 1e-4));
        }
    }

    #[test]
    fn overshoot_is_cut_at_the_ends_of_the_range() {
        let edge: Vec<u8> = [0, 0, 255, 255]
            .iter()
            .flat_map(|v| [*v; 3])
            .collect::<Vec<_>>()
            .repeat(4);
        let large = float_bicubic(&edge, (4, 4), 16);
        assert!(large.iter().all(|v| (0.0..=255.0).contains(v)));
        assert!(large.contains(&0.0) && large.contains(&255.0));
    }
}
