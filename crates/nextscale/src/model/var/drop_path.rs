//! Stochastic depth (Huang et al. 2016): in training, branches of blocks are left out at random, sample by sample, and those that
//! stay weigh more.

use super::VarConfig;
use crate::Result;
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Tensor, expect_dims};

/// The two branches of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Branch {
    /// Attention.
    Attention = 0,
    /// Feed-forward.
    FeedForward = 1,
}

/// The two branches in the order in which they come.
const BRANCHES: [Branch; 2] = [Branch::Attention, Branch::FeedForward];

/// The factor of every branch and sample in one step, on the model's device: 0 where the branch is left out, 1/(1 − rate) where it
/// stays.
#[derive(Clone, Debug)]
pub struct DropPath(Tensor);

impl DropPath {
    /// Draws the factors \[2·depth, B\] of one step for samples `first` to `first + batch` of the batch of all processes; `None` when
    /// no block leaves anything out.
    pub fn draw(
        config: &VarConfig,
        batch: usize,
        seed: u64,
        step: u64,
        first: u64,
    ) -> Option<Vec<f32>> {
        let rates = || (0..config.depth).map(|i| config.drop_path_of(i));
        if rates().all(|rate| rate <= 0.0) {
            return None;
        }
        let mut factors = Vec::with_capacity(2 * config.depth * batch);
        for (i, rate) in rates().enumerate() {
            for branch in BRANCHES {
                if rate <= 0.0 {
                    factors.extend(std::iter::repeat_n(1.0, batch));
                    continue;
                }
                let lane = row(i, branch) as u64;
                let s = Stream::new(seed, Purpose::DropPath, step, lane);
                let keep = 1.0 - rate;
                factors.extend((first..first + batch as u64).map(|b| {
                    let kept = f64::from(s.uniform_at(b)) < keep;
                    if kept { (1.0 / keep) as f32 } else { 0.0 }
                }));
            }
        }
        Some(factors)
    }

    /// Of factors \[2·depth, B\]: by block, attention before feed-forward.
    ///
    /// # Errors
    /// When there are not two rows a block.
    pub fn new(config: &VarConfig, factors: Tensor) -> Result<Self> {
        let samples = factors.shape().last();
        expect_dims(
            "drop path",
            "factors",
            &factors,
            &[2 * config.depth, samples],
        )?;
        Ok(Self(factors))
    }

    /// The factors \[B\] of one branch.
    pub(super) fn of(&self, block: usize, branch: Branch) -> Result<Tensor> {
        let row = self.0.narrow(row(block, branch), 1)?;
        Ok(row.reshape([self.0.shape().last()])?)
    }
}

/// Where the factors of a branch are.
fn row(block: usize, branch: Branch) -> usize {
    2 * block + branch as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pyramid;

    #[test]
    fn factors_are_drawn_by_block_branch_and_sample() {
        let pyramid = Pyramid::square(&[1, 2]).unwrap();
        let config = VarConfig {
            drop_path: 0.4,
            ..VarConfig::of_depth(3, 10, pyramid)
        };
        let (b, seed, step, first) = (500, 7, 3, 1000);
        let drawn = DropPath::draw(&config, b, seed, step, first).unwrap();
        let all = DropPath::new(&config, Tensor::from_slice([6, b], &drawn)).unwrap();
        for (i, rate) in [0.0, 0.2, 0.4].into_iter().enumerate() {
            for branch in BRANCHES {
                let factors = all.of(i, branch).unwrap();
                let factors = factors.f32().unwrap();
                let lane = (2 * i + branch as usize) as u64;
                let s = Stream::new(seed, Purpose::DropPath, step, lane);
                for (b, &factor) in factors.iter().enumerate() {
                    let stays = f64::from(s.uniform_at(first + b as u64)) < 1.0 - rate;
                    let want = if stays { 1.0 / (1.0 - rate) } else { 0.0 };
                    assert_eq!(factor, want as f32, "block {i}, {branch:?}, sample {b}");
                }
                let dropped = factors.iter().filter(|&&f| f == 0.0).count();
                assert_eq!(dropped > 0, rate > 0.0);
            }
        }
        let never = VarConfig {
            drop_path: 0.0,
            ..config.clone()
        };
        assert!(DropPath::draw(&never, b, seed, step, first).is_none());
        let short = Tensor::from_slice([5, b], &drawn[..5 * b]);
        assert!(DropPath::new(&config, short).is_err());
    }
}
