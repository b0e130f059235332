use super::*;
use crate::Error;
use crate::data::{LoadBuffers, ShapesSource, ShapesSplit};
use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Pictures of 9 × 12 pixels that tell their index; some are bad, one panics, some are slow.
struct Numbers {
    len: usize,
    bad: Vec<usize>,
    panics: Option<usize>,
    unreadable: Option<(usize, ErrorKind)>,
    slow: bool,
    loads: AtomicUsize,
    names: Vec<String>,
}

impl Numbers {
    fn new(len: usize) -> Self {
        Self {
            len,
            bad: Vec::new(),
            panics: None,
            unreadable: None,
            slow: false,
            loads: AtomicUsize::new(0),
            names: vec!["even".to_owned(), "odd".to_owned()],
        }
    }
}

impl ImageSource for Numbers {
    fn len(&self) -> usize {
        self.len
    }

    fn class_names(&self) -> &[String] {
        &self.names
    }

    fn label(&self, index: usize) -> u32 {
        (index % 2) as u32
    }

    fn name(&self, index: usize) -> String {
        format!("number {index}")
    }

    fn load(&self, index: usize, buffers: &mut LoadBuffers) -> Result<()> {
        let turn = self.loads.fetch_add(1, Ordering::Relaxed);
        if self.slow && turn.is_multiple_of(3) {
            std::thread::sleep(Duration::from_millis(2));
        }
        if self.bad.contains(&index) {
            return Err(Error::input(format!("number {index} is bad")));
        }
        if let Some((_, kind)) = self.unreadable.filter(|(i, _)| *i == index) {
            return Err(Error::io("number")(kind.into()));
        }
        assert_ne!(self.panics, Some(index), "made to panic");
        buffers.image.reset(12, 9).fill(index as u8);
        Ok(())
    }
}

fn config(workers: usize) -> LoaderConfig {
    LoaderConfig {
        workers,
        seed: 9,
        ..LoaderConfig::default()
    }
}

fn skipping(workers: usize) -> LoaderConfig {
    LoaderConfig {
        bad_images: BadImages::Skip,
        ..config(workers)
    }
}

fn train(
    source: &Arc<Numbers>,
    batch: usize,
    start: (u64, usize),
    config: LoaderConfig,
) -> TrainLoader {
    let transform = Transform::new(8, 1.0, true).unwrap();
    let sampler = TrainSampler::new(source.len, batch, Share::WHOLE, config.seed).unwrap();
    let source: Arc<dyn ImageSource> = source.clone();
    TrainLoader::new(source, transform, sampler, start, config).unwrap()
}

fn val(source: &Arc<Numbers>, batch: usize, config: LoaderConfig) -> ValLoader {
    let transform = Transform::new(8, 1.0, false).unwrap();
    let sampler = ValSampler::new(source.len, batch, Share::WHOLE).unwrap();
    let source: Arc<dyn ImageSource> = source.clone();
    ValLoader::new(source, transform, sampler, config).unwrap()
}

type Content = (u64, usize, Vec<u8>, Vec<u32>, Vec<u32>);

fn content(batch: &Batch) -> Content {
    (
        batch.epoch,
        batch.iteration,
        batch.images.clone(),
        batch.labels.clone(),
        batch.indices.clone(),
    )
}

#[test]
fn batches_do_not_depend_on_workers_or_start() {
    let shapes = |workers: usize, prefetch: usize, start, count: usize| {
        let source = Arc::new(ShapesSource::new(20, ShapesSplit::Train, 50, 0).unwrap());
        let sampler = TrainSampler::new(50, 8, Share::WHOLE, 9).unwrap();
        let transform = Transform::new(16, 1.125, true).unwrap();
        let config = LoaderConfig {
            prefetch,
            ..config(workers)
        };
        let mut loader = TrainLoader::new(source, transform, sampler, start, config).unwrap();
        (0..count)
            .map(|_| content(&loader.next_batch().unwrap()))
            .collect::<Vec<_>>()
    };
    let base = shapes(1, 0, (0, 0), 20);
    assert_eq!(base[7].0, 1); // 7 iterations an epoch
    assert_eq!(base[0].2.len(), 8 * 16 * 16 * 3);
    assert_eq!(base, shapes(2, 1, (0, 0), 20));
    assert_eq!(base, shapes(5, 7, (0, 0), 20));
    assert_eq!(base[9..], shapes(3, 0, (1, 2), 11));
    assert_eq!(base[7..], shapes(2, 0, (0, 7), 13));
    // Another epoch crops the same image otherwise.
    let crops = |epoch: usize| {
        let mut crops: Vec<(u32, Vec<u8>)> = base[7 * epoch..7 * epoch + 6]
            .iter()
            .flat_map(|b| b.4.iter().copied().zip(b.2.chunks(768).map(<[u8]>::to_vec)))
            .collect();
        crops.sort();
        crops
    };
    let (first, second) = (crops(0), crops(1));
    let both: Vec<_> = first
        .iter()
        .filter_map(|a| second.iter().find(|b| a.0 == b.0).map(|b| (a, b)))
        .collect();
    let same = both.iter().filter(|(a, b)| a == b).count();
    assert!(
        both.len() > 40 && same < both.len() / 2,
        "{same} of {}",
        both.len()
    );
}

#[test]
fn images_labels_and_indices_belong_together() {
    let mut source = Numbers::new(23);
    source.slow = true;
    let source = Arc::new(source);
    let sampler = TrainSampler::new(23, 5, Share::WHOLE, 9).unwrap();
    let mut loader = train(&source, 5, (0, 0), config(4));
    for step in 0..15 {
        let batch = loader.next_batch().unwrap();
        let want = &sampler.epoch(step / 5)[5 * (step as usize % 5)..][..5];
        assert_eq!(batch.indices, want);
        for (i, &index) in batch.indices.iter().enumerate() {
            assert_eq!(batch.labels[i], index % 2);
            assert!(
                batch.images[i * 192..(i + 1) * 192]
                    .iter()
                    .all(|&v| v == index as u8)
            );
        }
    }
    assert!(loader.waited() > Duration::ZERO);
}

#[test]
fn validation_goes_once_through() {
    let source = Arc::new(Numbers::new(11));
    for workers in [1, 3] {
        let mut loader = val(&source, 4, config(workers));
        let mut seen = Vec::new();
        let mut sizes = Vec::new();
        while let Some(batch) = loader.next_batch().unwrap() {
            sizes.push(batch.len());
            seen.extend_from_slice(&batch.indices);
            assert_eq!(batch.images.len(), batch.len() * 192);
        }
        assert_eq!(sizes, [4, 4, 3]);
        assert_eq!(seen, (0..11).collect::<Vec<u32>>());
        assert!(loader.next_batch().unwrap().is_none());
    }
    // More ranks than images: some have none.
    let sampler = ValSampler::new(11, 4, Share { rank: 0, size: 20 }).unwrap();
    let transform = Transform::new(8, 1.0, false).unwrap();
    let mut none = ValLoader::new(source, transform, sampler, config(2)).unwrap();
    assert!(none.next_batch().unwrap().is_none());
}

#[test]
fn errors_come_with_their_batch() {
    let mut source = Numbers::new(12);
    source.bad = vec![6, 5];
    source.slow = true;
    let source = Arc::new(source);
    for workers in [1, 4] {
        let mut loader = val(&source, 4, config(workers));
        assert_eq!(loader.next_batch().unwrap().unwrap().indices, [0, 1, 2, 3]);
        let error = loader.next_batch().unwrap_err();
        assert_eq!(
            error.to_string(),
            "number 5 is bad, or give `bad_images`=skip"
        );
        assert_eq!(error.exit_code(), 2);
        assert_eq!(
            loader.next_batch().unwrap().unwrap().indices,
            [8, 9, 10, 11]
        );
        assert!(loader.next_batch().unwrap().is_none());
    }
}

#[test]
fn bad_images_are_replaced_or_left_out() {
    let mut source = Numbers::new(12);
    source.bad = vec![4, 5, 11];
    source.slow = true;
    let source = Arc::new(source);
    let replaced = |i: u32| match i {
        4 | 5 => 6,
        11 => 0,
        i => i,
    };
    let order = TrainSampler::new(12, 4, Share::WHOLE, 9).unwrap().epoch(0);
    let mut results = Vec::new();
    for workers in [1, 5] {
        let mut loader = train(&source, 4, (0, 0), skipping(workers));
        let mut all = Vec::new();
        for want in order.chunks(4) {
            let batch = loader.next_batch().unwrap();
            let want: Vec<u32> = want.iter().map(|&i| replaced(i)).collect();
            assert_eq!(batch.indices, want);
            assert_eq!(batch.labels, want.iter().map(|i| i % 2).collect::<Vec<_>>());
            all.push(content(&batch));
        }
        results.push(all);
        let bad = loader.bad_images();
        assert_eq!(bad.iter().map(|b| b.index).collect::<Vec<_>>(), [4, 5, 11]);
        assert_eq!(bad[0].reason, "number 4 is bad");
    }
    assert_eq!(results[0], results[1]);
    let mut loader = val(&source, 2, skipping(3));
    let mut batches = Vec::new();
    while let Some(batch) = loader.next_batch().unwrap() {
        for (image, &index) in batch.images.chunks(192).zip(&batch.indices) {
            assert!(image.iter().all(|&v| v == index as u8));
        }
        batches.push(batch.indices.clone());
    }
    // The pair 4, 5 is gone altogether.
    assert_eq!(
        batches,
        [vec![0, 1], vec![2, 3], vec![6, 7], vec![8, 9], vec![10]]
    );
    assert_eq!(loader.bad_images().len(), 3);
}

#[test]
fn a_set_without_a_good_image_is_an_error_not_a_loop() {
    let mut source = Numbers::new(5);
    source.bad = (0..5).collect();
    let source = Arc::new(source);
    let mut loader = train(&source, 2, (0, 0), skipping(2));
    let error = loader.next_batch().unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("none of the 5 images"));
    assert!(val(&source, 2, skipping(2)).next_batch().unwrap().is_none());
}

#[test]
fn failing_disks_and_threads_are_reported() {
    let mut source = Numbers::new(6);
    source.unreadable = Some((2, ErrorKind::Other));
    let mut loader = val(&Arc::new(source), 6, skipping(2));
    assert_eq!(loader.next_batch().unwrap_err().exit_code(), 1);
    // A file that is gone or locked up is the file's fault.
    for kind in [ErrorKind::NotFound, ErrorKind::PermissionDenied] {
        let mut source = Numbers::new(6);
        source.unreadable = Some((2, kind));
        let mut loader = val(&Arc::new(source), 6, skipping(2));
        assert_eq!(loader.next_batch().unwrap().unwrap().indices.len(), 5);
        assert_eq!(loader.bad_images()[0].index, 2);
    }
    let mut source = Numbers::new(6);
    source.panics = Some(4);
    let mut loader = val(&Arc::new(source), 3, config(2));
    assert!(loader.next_batch().unwrap().is_some());
    let error = loader.next_batch().unwrap_err();
    assert!(error.to_string().contains("number 4"), "{error}");
    assert!(loader.next_batch().unwrap().is_none());
}

#[test]
fn dropping_ends_the_threads() {
    for (workers, taken) in [(1, 0), (4, 0), (3, 2), (8, 1)] {
        let mut source = Numbers::new(40);
        source.slow = true;
        let source = Arc::new(source);
        let mut loader = train(&source, 4, (0, 0), config(workers));
        let kept: Vec<Batch> = (0..taken).map(|_| loader.next_batch().unwrap()).collect();
        drop(loader);
        // Every thread held the source.
        assert_eq!(Arc::strong_count(&source), 1);
        // Batches outlive their loader.
        assert!(kept.iter().all(|b| b.len() == 4));
    }
}

#[test]
fn memory_is_bounded_and_reused() {
    let source = Arc::new(Numbers::new(64));
    let limited = LoaderConfig {
        prefetch: 2,
        ..config(3)
    };
    let mut loader = train(&source, 8, (0, 0), limited);
    std::thread::sleep(Duration::from_millis(100));
    // Nobody takes a batch: two are made, no more.
    assert_eq!(source.loads.load(Ordering::Relaxed), 16);
    let mut places = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let batch = loader.next_batch().unwrap();
        places.insert(batch.images.as_ptr().addr());
    }
    assert!(places.len() <= 5, "{} buffers for 50 batches", places.len());
}

#[test]
fn a_sampler_of_another_set_is_refused() {
    let source = Arc::new(Numbers::new(10));
    let transform = Transform::new(8, 1.0, false).unwrap();
    let sampler = TrainSampler::new(11, 4, Share::WHOLE, 0).unwrap();
    let made = TrainLoader::new(source, transform, sampler, (0, 0), config(1));
    assert_eq!(made.unwrap_err().exit_code(), 2);
}

#[test]
fn kept_pictures_give_the_same_crops_and_are_decoded_once() {
    let shapes = |keep: usize, side: usize| {
        let source = Arc::new(ShapesSource::new(20, ShapesSplit::Train, 50, 0).unwrap());
        let sampler = TrainSampler::new(50, 8, Share::WHOLE, 9).unwrap();
        let transform = Transform::new(side, 1.125, true).unwrap();
        let config = LoaderConfig { keep, ..config(3) };
        let mut loader = TrainLoader::new(source, transform, sampler, (0, 0), config).unwrap();
        (0..28)
            .map(|_| content(&loader.next_batch().unwrap()))
            .collect::<Vec<_>>()
    };
    // Shrunk and enlarged; room for all, for some, for none.
    for side in [7, 16, 33] {
        let base = shapes(0, side);
        for keep in [1 << 30, 20_000, 1] {
            assert!(shapes(keep, side) == base, "{side} {keep}");
        }
    }
    let loads = |keep: usize| {
        let mut source = Numbers::new(20);
        source.bad = vec![3];
        let source = Arc::new(source);
        let config = LoaderConfig {
            keep,
            ..skipping(2)
        };
        let mut loader = train(&source, 5, (0, 0), config);
        let seen: Vec<_> = (0..40)
            .map(|_| content(&loader.next_batch().unwrap()))
            .collect();
        (seen, source.loads.load(Ordering::Relaxed))
    };
    let (without, all) = loads(0);
    let (with, few) = loads(1 << 20);
    assert!(with == without);
    // Ten epochs: each of 19 pictures as it is and mirrored, and what stands in for the bad one.
    assert!(all >= 200 && few < 80, "{all} {few}");
}
