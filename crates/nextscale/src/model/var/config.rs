//! What a transformer is built from.

use crate::model::Pyramid;
use crate::{Error, Result};

/// Hyper-parameters of the transformer.
#[derive(Clone, Debug, PartialEq)]
pub struct VarConfig {
    /// Number of blocks d.
    pub depth: usize,
    /// Number of attention heads H.
    pub heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Number of classes; class embeddings have one more row.
    pub classes: usize,
    /// Codebook size V.
    pub vocab: usize,
    /// Code width.
    pub cvae: usize,
    /// The scales.
    pub pyramid: Pyramid,
    /// One modulation layer for all blocks instead of one each.
    pub shared_aln: bool,
    /// L2-normalised queries and keys.
    pub attn_l2_norm: bool,
    /// Width of the feed-forward layer as a multiple of C.
    pub mlp_ratio: f64,
    /// Stochastic depth of the last block; rises linearly from 0 at the first.
    pub drop_path: f64,
    /// Probability that a label becomes "no class" in training.
    pub class_drop: f64,
}

impl VarConfig {
    /// The reference's family: d heads of 64 and C = 64·d, stochastic depth 0.1·d/24, class dropout 0.1.
    pub fn of_depth(depth: usize, classes: usize, pyramid: Pyramid) -> Self {
        Self {
            depth,
            heads: depth,
            head_dim: 64,
            classes,
            vocab: 4096,
            cvae: 32,
            pyramid,
            shared_aln: false,
            attn_l2_norm: true,
            mlp_ratio: 4.0,
            drop_path: 0.1 * depth as f64 / 24.0,
            class_drop: 0.1,
        }
    }

    /// Width C.
    pub fn width(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of the feed-forward layer.
    pub fn hidden(&self) -> usize {
        (self.width() as f64 * self.mlp_ratio).round_ties_even() as usize
    }

    /// Probability that block `i`'s branches are dropped for a sample.
    pub fn drop_path_of(&self, i: usize) -> f64 {
        if self.depth < 2 {
            return 0.0;
        }
        self.drop_path * i as f64 / (self.depth - 1) as f64
    }

    /// Says in one line what can't be built.
    ///
    /// # Errors
    /// When a value is out of range.
    pub fn check(&self) -> Result<()> {
        let bad = |text: String| Err(Error::input(format!("transformer: {text}")));
        if self.depth == 0 || self.heads == 0 || self.head_dim == 0 {
            return bad(format!(
                "depth {}, {} heads of {}: each must be at least 1",
                self.depth, self.heads, self.head_dim
            ));
        }
        if self.vocab == 0 || self.cvae == 0 || self.hidden() == 0 {
            return bad("vocabulary, code width and feed-forward width must be at least 1".into());
        }
        if !(0.0..1.0).contains(&self.drop_path) || !(0.0..=1.0).contains(&self.class_drop) {
            return bad(format!(
                "stochastic depth {} and class dropout {}: expected [0, 1)",
                self.drop_path, self.class_drop
            ));
        }
        Ok(())
    }
}
