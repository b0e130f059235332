use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn ranks_share_an_epoch(
        len in 1usize..400, batch in 1usize..40, world in 1usize..9, seed in any::<u64>(), epoch in any::<u64>(),
    ) {
        let samplers: Vec<TrainSampler> =
            (0..world).map(|r| TrainSampler::new(len, batch, r, world, seed).unwrap()).collect();
        let iterations = samplers[0].iterations();
        prop_assert_eq!(iterations, len.div_ceil(batch * world));
        let parts: Vec<Vec<u32>> = samplers.iter().map(|s| s.epoch(epoch)).collect();
        for part in &parts {
            prop_assert_eq!(part.len(), iterations * batch);
        }
        let all = parts.concat();
        // The first `len` are a permutation, the rest repeat it from its start.
        let mut first = all[..len].to_vec();
        first.sort_unstable();
        prop_assert!(first.iter().enumerate().all(|(i, &x)| i as u32 == x));
        for i in len..all.len() {
            prop_assert_eq!(all[i], all[i - len]);
        }
        // Another number of ranks sees the same order.
        let alone = TrainSampler::new(len, batch * world, 0, 1, seed).unwrap();
        prop_assert_eq!(alone.epoch(epoch), all);
    }

    #[test]
    fn validation_sees_every_image_once(len in 1usize..500, batch in 1usize..40, world in 1usize..9) {
        let mut seen = Vec::new();
        for rank in 0..world {
            let sampler = ValSampler::new(len, batch, rank, world).unwrap();
            let before = seen.len();
            for iteration in 0..sampler.iterations() {
                let indices = sampler.indices(iteration);
                prop_assert!(!indices.is_empty() && indices.len() <= batch);
                seen.extend(indices);
            }
            prop_assert_eq!(seen.len() - before, sampler.images());
            prop_assert!(sampler.images().abs_diff(len / world) <= 1);
            prop_assert!(sampler.indices(sampler.iterations()).is_empty());
        }
        prop_assert_eq!(seen, (0..len).collect::<Vec<_>>());
    }
}

#[test]
fn epochs_and_seeds_give_other_orders() {
    let sampler = |seed| TrainSampler::new(1000, 10, 0, 1, seed).unwrap();
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
    for (len, batch, rank, world) in [
        (0, 1, 0, 1),
        (5, 0, 0, 1),
        (5, 1, 1, 1),
        (5, 1, 0, 0),
        (5, usize::MAX, 0, 2),
    ] {
        let error = TrainSampler::new(len, batch, rank, world, 0).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(ValSampler::new(len, batch, rank, world).is_err());
    }
}
