use super::*;
use nextscale_tensor::rng::{Purpose, Stream};
use proptest::prelude::*;

/// Pillow's weights straight from the definition: first input sample and fixed-point weights.
fn plain_weights(input: usize, output: usize, out: usize) -> (usize, Vec<i32>) {
    let scale = input as f64 / output as f64;
    let widened = scale.max(1.0);
    let support = 3.0 * widened;
    let center = (out as f64 + 0.5) * scale;
    let first = ((center - support + 0.5) as i64).max(0);
    let end = ((center + support + 0.5) as i64).min(input as i64);
    let sinc = |x: f64| {
        let px = x * std::f64::consts::PI;
        if px == 0.0 { 1.0 } else { px.sin() / px }
    };
    let exact: Vec<f64> = (first..end)
        .map(|i| {
            let x = (i as f64 - center + 0.5) / widened;
            if (-3.0..3.0).contains(&x) {
                sinc(x) * sinc(x / 3.0)
            } else {
                0.0
            }
        })
        .collect();
    let sum: f64 = exact.iter().sum();
    let fixed = exact.iter().map(|w| {
        let scaled = w / sum * f64::from(1 << 22);
        (if scaled < 0.0 {
            scaled - 0.5
        } else {
            scaled + 0.5
        }) as i32
    });
    (first as usize, fixed.collect())
}

fn plain_sum(samples: impl Iterator<Item = u8>, weights: &[i32]) -> u8 {
    let sum: i64 = samples
        .zip(weights)
        .map(|(s, &w)| i64::from(s) * i64::from(w))
        .sum();
    ((sum + (1 << 21)) >> 22).clamp(0, 255) as u8
}

fn plain_across(source: &RgbImage8, width: usize) -> RgbImage8 {
    let (w, h) = (source.width(), source.height());
    let mut out = vec![0; 3 * width * h];
    for x in 0..width {
        let (first, weights) = plain_weights(w, width, x);
        for y in 0..h {
            for c in 0..3 {
                let taps = (first..).map(|i| source.row(y)[3 * i + c]);
                out[3 * (y * width + x) + c] = plain_sum(taps, &weights);
            }
        }
    }
    RgbImage8::new(width, h, out).unwrap()
}

fn plain_down(source: &RgbImage8, height: usize) -> RgbImage8 {
    let (w, h) = (source.width(), source.height());
    let mut out = vec![0; 3 * w * height];
    for y in 0..height {
        let (first, weights) = plain_weights(h, height, y);
        for x in 0..3 * w {
            let taps = (first..).map(|i| source.row(i)[x]);
            out[3 * y * w + x] = plain_sum(taps, &weights);
        }
    }
    RgbImage8::new(w, height, out).unwrap()
}

/// The whole resized picture, one sample at a time.
fn plain_resize(source: &RgbImage8, width: usize, height: usize) -> Vec<u8> {
    let shrink = |from: usize, to: usize| from as i64 - to as i64;
    let (dx, dy) = (
        shrink(source.width(), width),
        shrink(source.height(), height),
    );
    let result = if dy > 0 && dy > 2 * dx {
        plain_across(&plain_down(source, height), width)
    } else {
        plain_down(&plain_across(source, width), height)
    };
    result.into_data()
}

fn noise(width: usize, height: usize, seed: u64) -> RgbImage8 {
    let stream = Stream::new(seed, Purpose::Test, 0, 0);
    let data = (0..3 * width * height)
        .map(|i| (stream.word_at(i as u64) >> 24) as u8)
        .collect();
    RgbImage8::new(width, height, data).unwrap()
}

#[test]
fn weights_equal_the_definition() {
    for (input, output) in [
        (500, 384),
        (375, 288),
        (72, 288),
        (3000, 72),
        (1, 9),
        (7, 8),
        (4096, 64),
    ] {
        let mut weights = Weights::default();
        weights.compute(input, output, 0, output);
        for (out, span) in weights.spans.iter().enumerate() {
            let (first, want) = plain_weights(input, output, out);
            assert_eq!(span.first, first - first % 2);
            let odd = |at: usize| std::iter::repeat_n(0, at % 2);
            let end = first + want.len();
            let want: Vec<i32> = odd(first).chain(want).chain(odd(end)).collect();
            let pairs = weights.pairs_of(span);
            let pairs: Vec<i32> = pairs.iter().flat_map(|pair| pair.whole()).collect();
            assert_eq!(pairs, want, "{input} to {output} at {out}");
        }
    }
}

/// Sizes from and to, and the checksum of what Pillow 13 makes of noise.
#[test]
fn every_size_gives_the_pixels_of_pillow() {
    let text = std::fs::read_to_string(crate::data::fixtures::folder().join("resize.txt")).unwrap();
    let (mut lines, mut first_down) = (0, 0);
    let mut resizer = Resizer::default();
    for line in text.lines() {
        let parts: Vec<&str> = line.split(' ').collect();
        let side = |i: usize| parts[i].parse::<usize>().unwrap();
        let (w, h, width, height) = (side(0), side(1), side(2), side(3));
        let mut state = lines;
        let bytes = (0..3 * w * h).map(|_| {
            state = u32::wrapping_add(1_013_904_223, u32::wrapping_mul(1_664_525, state));
            (state >> 24) as u8
        });
        let source = RgbImage8::new(w, h, bytes.collect()).unwrap();
        let window = CropWindow {
            left: 0,
            top: 0,
            width,
            height,
        };
        let mut out = vec![0; 3 * width * height];
        resizer
            .resize_crop(&source, (width, height), window, false, &mut out)
            .unwrap();
        let mut crc = flate2::Crc::new();
        crc.update(&out);
        assert_eq!(format!("{:08x}", crc.sum()), parts[4], "{line}");
        first_down += u32::from(vertical_first((w, h), (width, height)));
        lines += 1;
    }
    assert_eq!(lines, 450);
    assert!(first_down > 100, "{first_down}");
}

#[test]
fn wrong_calls_are_refused() {
    let image = noise(8, 8, 1);
    let window = |left, top, width, height| CropWindow {
        left,
        top,
        width,
        height,
    };
    let mut resizer = Resizer::default();
    let mut out = vec![0; 300];
    for bad in [
        window(0, 0, 0, 10),
        window(7, 0, 10, 10),
        window(0, 7, 10, 10),
        window(usize::MAX, 0, 10, 10),
        window(0, 0, 9, 10),
    ] {
        let result = resizer.resize_crop(&image, (16, 16), bad, false, &mut out);
        assert_eq!(result.unwrap_err().exit_code(), 2);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn any_crop_equals_the_plain_filter(
        (w, h) in (1usize..40, 1usize..90),
        (width, height) in (1usize..50, 1usize..50),
        corner in any::<(u16, u16)>(),
        part in any::<(u16, u16)>(),
        flip in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let source = noise(w, h, seed);
        let within = |value: u16, range: usize| usize::from(value) % range;
        let (left, top) = (within(corner.0, width), within(corner.1, height));
        let window = CropWindow {
            left,
            top,
            width: 1 + within(part.0, width - left),
            height: 1 + within(part.1, height - top),
        };
        let mut out = vec![0; 3 * window.width * window.height];
        // A used resizer must give what a fresh one gives.
        let mut resizer = Resizer::default();
        resizer.resize_crop(&noise(50, 31, 3), (64, 40), CropWindow { left: 3, top: 2, width: 1, height: 1 },
            true, &mut [0; 3]).unwrap();
        resizer.resize_crop(&source, (width, height), window, flip, &mut out).unwrap();
        let mirrored: Vec<u8> = (0..h)
            .flat_map(|y| source.row(y).chunks_exact(3).rev().flatten().copied())
            .collect();
        let mirrored = RgbImage8::new(w, h, mirrored).unwrap();
        let whole = plain_resize(if flip { &mirrored } else { &source }, width, height);
        for y in 0..window.height {
            let from = 3 * ((window.top + y) * width + window.left);
            let row = 3 * window.width;
            prop_assert_eq!(&out[y * row..(y + 1) * row], &whole[from..from + row]);
        }
    }
}
