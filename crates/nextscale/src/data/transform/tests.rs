use super::*;
use crate::data::fixtures::{Expected, difference, input};
use crate::data::{LoadBuffers, decode_file};
use nextscale_tensor::rng::Purpose;

const PNG: [&str; 7] = [
    "synth_rgba.png",
    "synth_gray.png",
    "synth_palette.png",
    "synth_palette_transparent.png",
    "synth_la.png",
    "synth_wide.png",
    "photo_crop.png",
];
const JPEG: [&str; 6] = [
    "china.jpg",
    "flower.jpg",
    "synth_cmyk.jpg",
    "synth_exif_rotated.jpg",
    "photo_crop_420.jpg",
    "photo_crop_gray.jpg",
];

fn load(name: &str) -> RgbImage8 {
    let mut buffers = LoadBuffers::default();
    decode_file(&input(name), &mut buffers).unwrap();
    buffers.image
}

fn center(image: &RgbImage8, side: usize) -> Vec<u8> {
    let transform = Transform::new(side, 1.125, false).unwrap();
    let mut out = vec![0; transform.bytes()];
    transform
        .center(image, &mut Resizer::default(), &mut out)
        .unwrap();
    out
}

fn whole(image: &RgbImage8, side: usize) -> (usize, usize, Vec<u8>) {
    let (width, height) = Transform::new(side, 1.125, false)
        .unwrap()
        .resized(image.width(), image.height());
    let window = CropWindow {
        left: 0,
        top: 0,
        width,
        height,
    };
    let mut out = vec![0; 3 * width * height];
    Resizer::default()
        .resize_crop(image, (width, height), window, false, &mut out)
        .unwrap();
    (height, width, out)
}

#[test]
fn lossless_inputs_equal_the_reference() {
    let expected = Expected::open("transforms.safetensors");
    for name in PNG {
        let key = name.replace('.', "_");
        let image = load(name);
        let (.., want) = expected.get(&format!("{key}.R64")).unwrap();
        let d = difference(&center(&image, 64), &want);
        assert!(
            d.max <= 1 && d.equal >= 0.995,
            "{name}: {} {}",
            d.max,
            d.equal
        );
        if let Some((h, w, want)) = expected.get(&format!("{key}.R64.uncropped")) {
            let (height, width, got) = whole(&image, 64);
            assert_eq!((height, width), (h, w), "{name}");
            let d = difference(&got, &want);
            assert!(
                d.max <= 1 && d.equal >= 0.995,
                "{name}: {} {}",
                d.max,
                d.equal
            );
        }
    }
}

#[test]
fn decoded_jpeg_pixels_resize_to_the_reference() {
    let expected = Expected::open("transforms.safetensors");
    let mut seen = 0;
    for name in JPEG {
        let key = name.replace('.', "_");
        let Some((h, w, pixels)) = expected.get(&format!("{key}.decoded")) else {
            continue;
        };
        let image = RgbImage8::new(w, h, pixels).unwrap();
        let (.., want) = expected.get(&format!("{key}.R64")).unwrap();
        let d = difference(&center(&image, 64), &want);
        assert!(
            d.max <= 1 && d.equal >= 0.995,
            "{name}: {} {}",
            d.max,
            d.equal
        );
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn jpeg_inputs_equal_the_reference() {
    let expected = Expected::open("transforms.safetensors");
    for name in JPEG {
        let key = name.replace('.', "_");
        let image = load(name);
        if let Some((h, w, want)) = expected.get(&format!("{key}.decoded")) {
            assert_eq!((image.height(), image.width()), (h, w));
            let d = difference(image.data(), &want);
            println!(
                "{name} decoded: max {} mean {:.4} equal {:.4}",
                d.max, d.mean, d.equal
            );
            assert_eq!(d.max, 0, "{name}");
        }
        for side in [64, 256] {
            let Some((.., want)) = expected.get(&format!("{key}.R{side}")) else {
                continue;
            };
            let d = difference(&center(&image, side), &want);
            println!(
                "{name} R{side}: max {} mean {:.4} equal {:.4}",
                d.max, d.mean, d.equal
            );
            assert_eq!(d.max, 0, "{name} {side}");
        }
    }
}

#[test]
fn sizes_and_offsets_follow_the_fixtures_list() {
    let text = std::fs::read_to_string(input("../meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for (name, file) in meta.as_object().unwrap() {
        let (Some(width), Some(height)) = (file["width"].as_u64(), file["height"].as_u64()) else {
            continue;
        };
        for (side, resized) in file["resized"].as_object().unwrap() {
            let transform = Transform::new(side.parse().unwrap(), 1.125, false).unwrap();
            let (w, h) = transform.resized(width as usize, height as usize);
            assert_eq!(
                resized["short_edge"].as_u64().unwrap(),
                transform.short as u64
            );
            assert_eq!(
                resized["resized_hw"][0].as_u64().unwrap(),
                h as u64,
                "{name}"
            );
            assert_eq!(
                resized["resized_hw"][1].as_u64().unwrap(),
                w as u64,
                "{name}"
            );
            seen += 1;
        }
    }
    assert!(seen >= 13);
}

#[test]
fn every_random_crop_is_a_part_of_the_whole() {
    let image = load("photo_crop.png");
    let transform = Transform::new(64, 1.125, false).unwrap();
    let (_, width, whole) = whole(&image, 64);
    let mut resizer = Resizer::default();
    let (mut tops, mut lefts) = (vec![0; 9], vec![0; 29]);
    for lane in 0..400 {
        let mut out = vec![0; transform.bytes()];
        let mut stream = Stream::new(5, Purpose::Augment, 0, lane);
        transform
            .random(&image, &mut stream, &mut resizer, &mut out)
            .unwrap();
        let found = (0..9)
            .flat_map(|t| (0..29).map(move |l| (t, l)))
            .find(|&(top, left)| {
                (0..64).all(|y| {
                    let from = 3 * ((top + y) * width + left);
                    whole[from..from + 192] == out[192 * y..192 * (y + 1)]
                })
            });
        let (top, left) = found.expect("not a crop of the resized picture");
        tops[top] += 1;
        lefts[left] += 1;
    }
    // Every offset from the first to the last occurs.
    assert!(tops.iter().all(|&n| n > 10) && lefts.iter().all(|&n| n > 0));
}

#[test]
fn mirroring_equals_mirroring_the_source() {
    let image = load("photo_crop.png");
    let mirrored: Vec<u8> = (0..image.height())
        .flat_map(|y| image.row(y).chunks_exact(3).rev().flatten().copied())
        .collect();
    let mirrored = RgbImage8::new(image.width(), image.height(), mirrored).unwrap();
    let plain = Transform::new(64, 1.125, false).unwrap();
    let flipping = Transform::new(64, 1.125, true).unwrap();
    let mut resizer = Resizer::default();
    let mut flips = 0;
    for lane in 0..64 {
        let mut run = |t: &Transform, image: &RgbImage8| {
            let mut out = vec![0; t.bytes()];
            let mut stream = Stream::new(5, Purpose::Augment, 0, lane);
            t.random(image, &mut stream, &mut resizer, &mut out)
                .unwrap();
            out
        };
        let got = run(&flipping, &image);
        if got != run(&plain, &image) {
            assert_eq!(got, run(&plain, &mirrored));
            flips += 1;
        }
    }
    assert!((16..48).contains(&flips), "{flips}");
}

#[test]
fn rounding_is_to_even_and_bad_settings_are_refused() {
    assert_eq!(Transform::new(20, 1.125, false).unwrap().short, 22);
    assert_eq!(Transform::new(28, 1.125, false).unwrap().short, 32);
    assert_eq!(Transform::new(64, 1.0, false).unwrap().short, 64);
    for (side, mid) in [
        (0, 1.125),
        (64, 0.9),
        (64, f64::NAN),
        (20_000, 1.0),
        (64, 1e9),
    ] {
        assert_eq!(Transform::new(side, mid, false).unwrap_err().exit_code(), 2);
    }
}

#[test]
fn extreme_shapes_are_handled() {
    let transform = Transform::new(32, 1.125, true).unwrap();
    let mut resizer = Resizer::default();
    for (w, h) in [
        (1, 1),
        (1, 30_000),
        (30_000, 1),
        (2, 3),
        (36, 36),
        (36, 400),
        (700, 36),
    ] {
        let image = RgbImage8::new(w, h, vec![77; 3 * w * h]).unwrap();
        let mut out = vec![0; transform.bytes()];
        transform.center(&image, &mut resizer, &mut out).unwrap();
        assert!(out.iter().all(|&v| v == 77), "{w}x{h}");
        out.fill(0);
        let mut stream = Stream::new(1, Purpose::Augment, 0, 0);
        transform
            .random(&image, &mut stream, &mut resizer, &mut out)
            .unwrap();
        assert!(out.iter().all(|&v| v == 77), "{w}x{h}");
    }
    let empty = RgbImage8::default();
    let mut out = vec![0; transform.bytes()];
    assert!(transform.center(&empty, &mut resizer, &mut out).is_err());
    let image = RgbImage8::new(40, 40, vec![0; 4800]).unwrap();
    assert!(
        transform
            .center(&image, &mut resizer, &mut out[1..])
            .is_err()
    );
}
