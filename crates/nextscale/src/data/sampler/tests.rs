use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn processes_share_every_iteration(
        len in 1usize..400, batch in 1usize..40, size in 1usize..9, seed in any::<u64>(), epoch in any::<u64>(),
    ) {
        let alone = TrainSampler::new(len, batch * size, Share::WHOLE, seed).unwrap();
        let whole = alone.epoch(epoch);
        let parts: Vec<Vec<u32>> = (0..size).map(|rank| {
            let sampler = TrainSampler::new(len, batch, Share { rank, size }, seed).unwrap();
            assert_eq!(sampler.iterations(), len.div_ceil(batch * size));
            sampler.epoch(epoch)
        }).collect();
        // Together they see in each iteration what one process would, in its order.
        let iterations = alone.iterations();
        let together: Vec<u32> = (0..iterations)
            .flat_map(|it| parts.iter().flat_map(move |part| &part[it * batch..(it + 1) * batch]))
            .copied()
            .collect();
        prop_assert_eq!(&together, &whole);
        prop_assert!(parts.iter().all(|part| part.len() == iterations * batch));
        // The first `len` are a permutation, the rest repeat it from its start.
        let mut first = whole[..len].to_vec();
        first.sort_unstable();
        prop_assert!(first.iter().enumerate().all(|(i, &x)| i as u32 == x));
        for i in len..whole.len() {
            prop_assert_eq!(whole[i], whole[i - len]);
        }
    }

    #[test]
    fn validation_sees_every_image_once(len in 1usize..500, batch in 1usize..40, size in 1usize..9) {
        let mut seen = Vec::new();
        for rank in 0..size {
            let sampler = ValSampler::new(len, batch, Share { rank, size }).unwrap();
            let before = seen.len();
            for iteration in 0..sampler.iterations() {
                let indices = sampler.indices(iteration);
                prop_assert!(!indices.is_empty() && indices.len() <= batch);
                seen.extend(indices);
            }
            prop_assert_eq!(seen.len() - before, sampler.images());
            prop_assert!(sampler.images().abs_diff(len / size) <= 1);
            prop_assert!(sampler.indices(sampler.iterations()).is_empty());
        }
        prop_assert_eq!(seen, (0..len).collect::<Vec<_>>());
    }

    #[test]
    fn batches_in_turn_are_those_of_one_process(len in 1usize..500, batch in 1usize..40, size in 1usize..9) {
        let alone = ValSampler::new(len, batch, Share::WHOLE).unwrap();
        let all: Vec<_> = (0..alone.iterations()).map(|i| alone.indices(i)).collect();
        let mut seen = 0;
        for rank in 0..size {
            let sampler = ValSampler::in_turn(len, batch, Share { rank, size }).unwrap();
            let own: Vec<_> = (0..sampler.iterations()).map(|i| sampler.indices(i)).collect();
            let want: Vec<_> = all.iter().skip(rank).step_by(size).cloned().collect();
            prop_assert_eq!(&own, &want);
            prop_assert_eq!(sampler.images(), own.iter().map(ExactSizeIterator::len).sum::<usize>());
            prop_assert!(sampler.indices(sampler.iterations()).is_empty());
            seen += sampler.images();
        }
        prop_assert_eq!(seen, len);
    }
}

#[test]
fn epochs_and_seeds_give_other_orders() {
    let sampler = |seed| TrainSampler::new(1000, 10, Share::WHOLE, seed).unwrap();
    let base = sampler(1).epoch(0);
    assert_eq!(base, sampler(1).epoch(0));
    assert_ne!(base, sampler(1).epoch(1));
    assert_ne!(base, sampler(2).epoch(0));
    let kept = base
        .iter()
        .enumerate()
        .filter(|&(i, &x)| i as u32 == x)
        .count();
    assert!(kept < 15, "{kept} images stayed in place");
}

#[test]
fn impossible_settings_are_refused() {
    for (len, batch, rank, size) in [
        (0, 1, 0, 1),
        (5, 0, 0, 1),
        (5, 1, 1, 1),
        (5, 1, 0, 0),
        (5, usize::MAX, 0, 2),
    ] {
        let share = Share { rank, size };
        let error = TrainSampler::new(len, batch, share, 0).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(ValSampler::new(len, batch, share).is_err());
    }
}
