//! One block: attention and feed-forward, each after an adaptive norm and added through a gate (`AdaLNSelfAttn`).

use super::{Branch, DropPath, EPS, VarConfig};
use crate::Result;
use crate::model::ForwardPass;
use crate::model::layers::Linear;
use nextscale_tensor::ops::{self, Activation, Bias, FeedForward, Gate, KvCache, Modulation};
use nextscale_tensor::params::Layout;
use nextscale_tensor::{Cx, ParamId, Params, ParamsBuilder, PartId, Tensor};

/// Vectors in a block's modulation table: γ1, γ2, s1, s2, b1, b2.
pub(super) const SLOTS: usize = 6;

/// What queries see.
pub enum Attend<'a> {
    /// All tokens are there; each sees its own and coarser scales, whose ends these are.
    Levels(&'a [usize]),
    /// Tokens of one scale; keys and values of coarser scales are cached, one cache a block.
    Cached(&'a mut [KvCache]),
}

/// The modulation of the norm before a block's attention.
pub(super) fn before_attention(table: &Tensor) -> Modulation<'_> {
    Modulation {
        table,
        scale: 2,
        shift: 4,
    }
}

/// Where a block's modulation comes from.
enum AdaLn {
    /// Its own layer of the condition.
    Own(Linear),
    /// A table added to the layer that all blocks share.
    Shared(ParamId),
}

/// `blocks.i` of the reference.
pub(super) struct Block {
    index: usize,
    part: PartId,
    heads: usize,
    scale_mul: Option<ParamId>,
    q_bias: ParamId,
    v_bias: ParamId,
    mat_qkv: ParamId,
    proj: Linear,
    fc1: Linear,
    fc2: Linear,
    ada: AdaLn,
}

impl Block {
    pub(super) fn new(b: &mut ParamsBuilder, index: usize, config: &VarConfig) -> Self {
        let (c, h) = (config.width(), config.heads);
        let (name, part) = (format!("blocks.{index}"), b.part());
        // Own parameters before children: the shared table stands first, the block's own layer last.
        let shared = config
            .shared_aln
            .then(|| b.add(format!("{name}.ada_gss"), [1, 1, SLOTS, c], Layout::Same));
        let scale_mul = config.attn_l2_norm.then(|| {
            b.add(
                format!("{name}.attn.scale_mul_1H11"),
                [1, h, 1, 1],
                Layout::Same,
            )
        });
        let q_bias = b.add(format!("{name}.attn.q_bias"), [c], Layout::Same);
        let v_bias = b.add(format!("{name}.attn.v_bias"), [c], Layout::Same);
        let mat_qkv = b.add_operand(format!("{name}.attn.mat_qkv.weight"), [3 * c, c]);
        let mut linear = |part: &str, i, o| Linear::in_products(b, &format!("{name}.{part}"), i, o);
        let proj = linear("attn.proj", c, c);
        let fc1 = linear("ffn.fc1", c, config.hidden());
        let fc2 = linear("ffn.fc2", config.hidden(), c);
        let ada = match shared {
            Some(table) => AdaLn::Shared(table),
            None => AdaLn::Own(linear("ada_lin.1", c, SLOTS * c)),
        };
        Self {
            index,
            part,
            heads: h,
            scale_mul,
            q_bias,
            v_bias,
            mat_qkv,
            proj,
            fc1,
            fc2,
            ada,
        }
    }

    /// The block's modulation \[B, 6, C\] for activated conditions \[B, C\].
    pub(super) fn table(
        &self,
        cx: &Cx<'_>,
        p: &Params,
        activated: &Tensor,
        shared: Option<&Tensor>,
    ) -> Result<Tensor> {
        cx.first_use(p, self.part);
        match (&self.ada, shared) {
            (AdaLn::Own(lin), _) => {
                let (b, c) = (activated.dims()[0], activated.shape().last());
                Ok(lin.forward(cx, p, activated)?.reshape([b, SLOTS, c])?)
            }
            (AdaLn::Shared(own), Some(shared)) => Ok(ops::add_table(cx, shared, &p.get(*own))?),
            (AdaLn::Shared(_), None) => Err(crate::Error::failed(
                "a block with shared modulation was given no shared table",
            )),
        }
    }

    /// From the stream x and its modulated norm y (both \[B, L, C\]) to the stream with the attention branch in it, and the
    /// feed-forward branch, which [`Block::join`] adds.
    pub(super) fn forward(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        (x, y): (Tensor, Tensor),
        table: &Tensor,
        attend: &mut Attend<'_>,
        drop_path: Option<&DropPath>,
    ) -> Result<(Tensor, Tensor)> {
        let cx = &pass.cx;
        let i = self.index;
        let (q, v) = (p.get(self.q_bias), p.get(self.v_bias));
        let bias = Bias::QkV { q: &q, v: &v };
        let qkv = ops::linear(cx, &y, &p.get(self.mat_qkv), bias, Activation::None)?;
        let scale_mul = self.scale_mul.map(|id| p.get(id));
        let h = match attend {
            Attend::Levels(ends) => ops::attention(cx, qkv, scale_mul.as_ref(), self.heads, ends)?,
            Attend::Cached(caches) => {
                ops::attention_cached(&qkv, scale_mul.as_ref(), self.heads, &mut caches[i])?
            }
        };
        let a = self.proj.forward(cx, p, &h)?;
        pass.see(|| format!("block.{i}.attn"), &a);
        let middle = Modulation {
            table,
            scale: 3,
            shift: 5,
        };
        let gate = Gate { table, slot: 0 };
        let keep = drop_path.map(|d| d.of(i, Branch::Attention)).transpose()?;
        let (x, y) = ops::gated_residual_norm(cx, &x, &a, &gate, keep.as_ref(), &middle, EPS)?;
        let (w1, b1) = self.fc1.params(p);
        let (w2, b2) = self.fc2.params(p);
        let weights = FeedForward {
            w1: &w1,
            b1: &b1,
            w2: &w2,
            b2: &b2,
        };
        let f = ops::feed_forward(cx, &y, &weights)?;
        pass.see(|| format!("block.{i}.ffn"), &f);
        Ok((x, f))
    }

    /// From the two of [`Block::forward`] to the stream after the block and its norm in the `next` modulation, of the type that
    /// products in the context `into` read.
    pub(super) fn join(
        &self,
        into: &Cx<'_>,
        (x, f): (Tensor, Tensor),
        table: &Tensor,
        next: &Modulation<'_>,
        drop_path: Option<&DropPath>,
    ) -> Result<(Tensor, Tensor)> {
        let gate = Gate { table, slot: 1 };
        let keep = drop_path.map(|d| d.of(self.index, Branch::FeedForward));
        let keep = keep.transpose()?;
        Ok(ops::gated_residual_norm(
            into,
            &x,
            &f,
            &gate,
            keep.as_ref(),
            next,
            EPS,
        )?)
    }
}
