use super::*;
use nextscale_tensor::rng::{Purpose, Stream};

#[test]
fn agrees_with_sorting_all_distances() {
    let mut stream = Stream::new(3, Purpose::Test, 0, 0);
    let (n, m, pixels, k) = (60, 23, 70_001, 7);
    let mut noise = |count: usize| {
        (0..count)
            .map(|_| stream.next_u32() as u8)
            .collect::<Vec<_>>()
    };
    let (known, asked) = (noise(n * pixels), noise(m * pixels));
    let labels: Vec<u32> = (0..n as u32).map(|i| i * 7 % 5).collect();
    let knn = KnnClassifier::fit(known.clone(), labels.clone(), pixels, k).unwrap();
    let got = knn.predict(&asked).unwrap();
    for (image, got) in asked.chunks(pixels).zip(got) {
        let mut order: Vec<(u64, usize)> = known
            .chunks(pixels)
            .map(|other| {
                image
                    .iter()
                    .zip(other)
                    .map(|(&a, &b)| u64::from(a.abs_diff(b)).pow(2))
                    .sum()
            })
            .zip(0..)
            .collect();
        order.sort_unstable();
        let near: Vec<u32> = order[..k].iter().map(|&(_, i)| labels[i]).collect();
        let votes = |label: u32| near.iter().filter(|&&l| l == label).count();
        let most = near.iter().map(|&l| votes(l)).max().unwrap();
        let want = near.iter().copied().find(|&l| votes(l) == most).unwrap();
        assert_eq!(got, want);
    }
}

#[test]
fn ties_are_settled_by_order() {
    // Distances to 10: 0 and 20 equal; the first given is closer.
    let knn = |labels: Vec<u32>, k| KnnClassifier::fit(vec![0, 20, 40, 50], labels, 1, k).unwrap();
    assert_eq!(knn(vec![4, 3, 1, 1], 1).predict(&[10]).unwrap(), [4]);
    assert_eq!(knn(vec![4, 3, 1, 1], 2).predict(&[10]).unwrap(), [4]);
    assert_eq!(knn(vec![4, 3, 1, 1], 4).predict(&[10]).unwrap(), [1]);
    assert_eq!(knn(vec![4, 3, 3, 4], 4).predict(&[16]).unwrap(), [3]);
    assert!(knn(vec![1, 2, 3, 4], 1).predict(&[]).unwrap().is_empty());
}

#[test]
fn misfits_are_refused() {
    for (bytes, labels, pixels, k) in [
        (4, 4, 2, 1),
        (0, 0, 1, 1),
        (4, 4, 1, 0),
        (4, 4, 1, 5),
        (0, 4, 0, 1),
    ] {
        let fitted = KnnClassifier::fit(vec![0; bytes], vec![0; labels], pixels, k);
        assert_eq!(fitted.unwrap_err().exit_code(), 2);
    }
    let knn = KnnClassifier::fit(vec![0; 4], vec![0; 2], 2, 1).unwrap();
    assert!(knn.predict(&[1, 2, 3]).is_err());
}
