use super::*;
use crate::data::{KnnClassifier, RgbImage8};

fn source(side: usize, split: ShapesSplit, len: usize) -> ShapesSource {
    ShapesSource::new(side, split, len, 0).unwrap()
}

fn pixels(source: &ShapesSource) -> (Vec<u8>, Vec<u32>) {
    let images = (0..source.len()).flat_map(|i| source.image(i).unwrap().into_data());
    (
        images.collect(),
        (0..source.len()).map(|i| source.label(i)).collect(),
    )
}

#[test]
fn names_are_distinct_sorted_and_well_formed() {
    let names = source(32, ShapesSplit::Train, 24).names;
    assert_eq!(names.len(), 12);
    assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
    assert!(names.iter().all(|n| n.split('-').count() == 3));
    assert!(names.contains(&"red-circle-plain".to_owned()));
}

#[test]
fn the_same_picture_is_drawn_again() {
    let a = source(48, ShapesSplit::Train, 30);
    let b = source(48, ShapesSplit::Train, 40);
    for i in 0..30 {
        assert_eq!(a.image(i).unwrap(), b.image(i).unwrap());
    }
    // Another index, split or seed is another picture.
    let picture = a.image(5).unwrap();
    assert_ne!(picture, a.image(17).unwrap());
    assert_ne!(
        picture,
        source(48, ShapesSplit::HeldOut, 30).image(5).unwrap()
    );
    let seeded = ShapesSource::new(48, ShapesSplit::Train, 30, 1).unwrap();
    assert_ne!(picture, seeded.image(5).unwrap());
}

#[test]
fn labels_are_balanced_and_bounds_kept() {
    let (train, held_out) = ShapesSource::splits(32, 0).unwrap();
    assert_eq!((train.len(), held_out.len()), (12_000, 1_200));
    for class in 0..12 {
        assert_eq!(
            (0..1200).filter(|&i| held_out.label(i) == class).count(),
            100
        );
    }
    assert_eq!(train.image(12_000).unwrap_err().exit_code(), 2);
    for (side, len) in [(0, 5), (7, 5), (5000, 5), (32, 0)] {
        let made = ShapesSource::new(side, ShapesSplit::Train, len, 0);
        assert_eq!(made.unwrap_err().exit_code(), 2);
    }
}

/// The mean over squares of `n` × `n` pixels.
fn shrink(image: &RgbImage8, n: usize) -> Vec<f64> {
    let side = image.width() / n;
    let mut out = vec![0.0; 3 * side * side];
    for y in 0..image.height() {
        for (x, v) in image.row(y).iter().enumerate() {
            out[3 * ((y / n) * side + x / 3 / n) + x % 3] += f64::from(*v) / (n * n) as f64;
        }
    }
    out
}

#[test]
fn a_picture_is_the_same_at_every_resolution_and_smooth() {
    let (small, large) = (
        source(32, ShapesSplit::Train, 24),
        source(256, ShapesSplit::Train, 24),
    );
    for i in 0..24 {
        let (a, b) = (small.image(i).unwrap(), shrink(&large.image(i).unwrap(), 8));
        let off: Vec<f64> = a
            .data()
            .iter()
            .zip(&b)
            .map(|(&a, b)| (f64::from(a) - b).abs())
            .collect();
        let mean = off.iter().sum::<f64>() / off.len() as f64;
        let max = off.iter().fold(0.0f64, |m, &d| m.max(d));
        assert!(mean < 1.5 && max < 60.0, "{}: {mean} {max}", small.name(i));
    }
}

#[test]
fn a_shape_covers_a_good_part_and_stays_inside() {
    // Against the same scene without its shape, by the class colour's distance from gray.
    let source = source(64, ShapesSplit::Train, 240);
    for i in 0..240 {
        let image = source.image(i).unwrap();
        let corner = |x: usize, y: usize| image.row(y)[3 * x..3 * x + 3].to_vec();
        for (x, y) in [(0, 0), (63, 0), (0, 63), (63, 63)] {
            assert!(corner(x, y).iter().all(|&v| v < 120), "{}", source.name(i));
        }
        let rgb = classes()[source.label(i) as usize].rgb;
        let near = image.data().chunks_exact(3).filter(|pixel| {
            (0..3).all(|c| {
                let (v, want) = (f32::from(pixel[c]) / 255.0, rgb[c]);
                v >= 0.8 * want - 0.03 && v <= want + 0.03
            })
        });
        let share = near.count() as f64 / 4096.0;
        assert!((0.03..0.5).contains(&share), "{}: {share}", source.name(i));
    }
}

#[test]
fn nearest_neighbours_name_unseen_pictures() {
    let (images, labels) = pixels(&source(32, ShapesSplit::Train, 2000));
    let (unseen, truth) = pixels(&source(32, ShapesSplit::HeldOut, 600));
    for k in [1, 5] {
        let knn = KnnClassifier::fit(images.clone(), labels.clone(), 3 * 32 * 32, k).unwrap();
        let named = knn.predict(&unseen).unwrap();
        let right = named.iter().zip(&truth).filter(|(a, b)| a == b).count();
        let rate = right as f64 / truth.len() as f64;
        println!("k={k}: {rate:.4}");
        for class in 0..12 {
            let of = |l: &[u32]| {
                l.iter()
                    .zip(&truth)
                    .filter(|&(&a, &t)| t == class && a == t)
                    .count()
            };
            println!("  {}: {}/50", classes()[class as usize].name(), of(&named));
        }
        assert!(rate >= 0.97, "{rate}");
    }
}
