//! The blocks one after another, and the head.

use super::block::{self, Attend, Block};
use super::{DropPath, EPS, VarConfig};
use crate::model::ForwardPass;
use crate::model::layers::Linear;
use crate::{Error, Result};
use nextscale_tensor::ops::{self, KvCache, Modulation};
use nextscale_tensor::{Cx, Params, ParamsBuilder, PartId, Tensor};
use std::sync::Arc;

/// What the blocks and the head are made of.
pub(super) struct Trunk {
    blocks: Vec<Block>,
    /// What comes after them.
    end: PartId,
    head_ada_lin: Linear,
    head: Linear,
}

/// What modulation tables are made of.
#[derive(Clone)]
pub(super) struct Activated {
    /// SiLU of the conditions, \[B, C\].
    pub(super) cond: Tensor,
    /// The table that all blocks share, in models that have one.
    pub(super) shared: Option<Tensor>,
}

/// Where the trunk has modulation tables from.
#[derive(Clone, Copy)]
enum Modulations<'a> {
    /// Made before, as many scales use them.
    Made(&'a [Tensor]),
    /// Made one by one, each just before its first use. Backward, the gradient of a block's own layer is then complete with
    /// its block: it is a third of all weights.
    Fresh(&'a Activated),
}

/// What the trunk needs beside the embeddings when all tokens are there.
pub(super) struct Training<'a> {
    pub(super) activated: &'a Activated,
    /// Where scales end.
    pub(super) ends: &'a [usize],
    pub(super) drop_path: Option<&'a DropPath>,
    /// Of so many blocks one is run again for its gradients; 0: none.
    pub(super) recompute: usize,
}

/// What goes from block to block.
struct Stream {
    /// The residual stream \[B, L, C\].
    x: Tensor,
    /// Its norm in the modulation of the block to come.
    y: Tensor,
    /// The table of the block to come.
    table: Tensor,
}

impl Trunk {
    pub(super) fn new(b: &mut ParamsBuilder, config: &VarConfig) -> Self {
        let c = config.width();
        let blocks = (0..config.depth)
            .map(|i| Block::new(b, i, config))
            .collect();
        Self {
            blocks,
            end: b.part(),
            head_ada_lin: Linear::in_products(b, "head_nm.ada_lin.1", c, 2 * c),
            head: Linear::new(b, "head", c, config.vocab),
        }
    }

    /// Blocks.
    pub(super) fn depth(&self) -> usize {
        self.blocks.len()
    }

    /// The table of block `i`, \[B, 6, C\]; after the last block's comes the head's, \[B, 2, C\].
    pub(super) fn table(
        &self,
        cx: &Cx<'_>,
        p: &Params,
        from: &Activated,
        i: usize,
    ) -> Result<Tensor> {
        // Tables are few numbers with great influence: float32, products read half precision where the rest does.
        let cx = &cx.wide();
        match self.blocks.get(i) {
            Some(block) => block.table(cx, p, &from.cond, from.shared.as_ref()),
            None => {
                cx.first_use(p, self.end);
                let (b, c) = (from.cond.dims()[0], from.cond.shape().last());
                let table = self.head_ada_lin.forward(cx, p, &from.cond)?;
                Ok(table.reshape([b, 2, c])?)
            }
        }
    }

    /// The modulation of the norm before block `i`, or before the head, by its table.
    fn entry<'a>(&self, i: usize, table: &'a Tensor) -> Modulation<'a> {
        if i < self.depth() {
            return block::before_attention(table);
        }
        Modulation {
            table,
            scale: 0,
            shift: 1,
        }
    }

    /// The context that what comes after `i` blocks runs in: the head and the norm before it are in float32 whatever the blocks are in.
    fn into<'t>(&self, cx: &Cx<'t>, i: usize) -> Cx<'t> {
        if i < self.depth() { *cx } else { cx.full() }
    }

    fn table_of(
        &self,
        cx: &Cx<'_>,
        p: &Params,
        modulations: Modulations<'_>,
        i: usize,
    ) -> Result<Tensor> {
        match modulations {
            Modulations::Made(tables) => Ok(tables[i].clone()),
            Modulations::Fresh(activated) => self.table(cx, p, activated, i),
        }
    }

    /// What goes into the first block, from embeddings.
    fn begin(
        &self,
        cx: &Cx<'_>,
        p: &Params,
        x: Tensor,
        modulations: Modulations<'_>,
    ) -> Result<Stream> {
        let table = self.table_of(cx, p, modulations, 0)?;
        let y = ops::adaptive_norm(&self.into(cx, 0), &x, &self.entry(0, &table), EPS)?;
        Ok(Stream { x, y, table })
    }

    /// Block `i`.
    fn step(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        i: usize,
        Stream { x, y, table }: Stream,
        (modulations, drop_path): (Modulations<'_>, Option<&DropPath>),
        attend: &mut Attend<'_>,
    ) -> Result<Stream> {
        let cx = &pass.cx;
        let block = &self.blocks[i];
        let branches = block.forward(pass, p, (x, y), &table, attend, drop_path)?;
        // No sooner: backward, its rule follows the one of the last operator that reads it.
        let next_table = self.table_of(cx, p, modulations, i + 1)?;
        let (into, next) = (self.into(cx, i + 1), self.entry(i + 1, &next_table));
        let (x, y) = block.join(&into, branches, &table, &next, drop_path)?;
        Ok(Stream {
            x,
            y,
            table: next_table,
        })
    }

    /// Block `i`, of which nothing is kept but what goes into it.
    fn step_again(
        self: &Arc<Self>,
        cx: &Cx<'_>,
        p: &Params,
        i: usize,
        stream: Stream,
        t: &Training<'_>,
    ) -> Result<Stream> {
        let mut inputs = vec![stream.x, stream.y, stream.table, t.activated.cond.clone()];
        inputs.extend(t.activated.shared.clone());
        let (trunk, params) = (Arc::clone(self), p.handle());
        let (ends, drop_path) = (t.ends.to_vec(), t.drop_path.cloned());
        let outputs = cx.recomputed(inputs, move |cx, inputs| {
            let [x, y, table, cond, shared @ ..] = inputs else {
                unreachable!("as many as were given");
            };
            let activated = Activated {
                cond: cond.clone(),
                shared: shared.first().cloned(),
            };
            let stream = Stream {
                x: x.clone(),
                y: y.clone(),
                table: table.clone(),
            };
            let how = (Modulations::Fresh(&activated), drop_path.as_ref());
            let mut attend = Attend::Levels(&ends);
            let pass = ForwardPass::on(*cx);
            let out = trunk.step(&pass, &params, i, stream, how, &mut attend);
            let Stream { x, y, table } = out.map_err(Error::into_tensor)?;
            Ok(vec![x, y, table])
        })?;
        let [x, y, table] = <[Tensor; 3]>::try_from(outputs)
            .map_err(|_| Error::failed("a block hands three tensors on"))?;
        Ok(Stream { x, y, table })
    }

    /// Logits \[B, L, V\] of embeddings x \[B, L, C\] when all tokens are there.
    pub(super) fn forward(
        self: &Arc<Self>,
        pass: &ForwardPass<'_>,
        p: &Params,
        x: Tensor,
        t: &Training<'_>,
    ) -> Result<Tensor> {
        let modulations = Modulations::Fresh(t.activated);
        let mut stream = self.begin(&pass.cx, p, x, modulations)?;
        for i in 0..self.depth() {
            stream = if t.recompute > 0 && i.is_multiple_of(t.recompute) {
                self.step_again(&pass.cx, p, i, stream, t)?
            } else {
                let mut attend = Attend::Levels(t.ends);
                let how = (modulations, t.drop_path);
                self.step(pass, p, i, stream, how, &mut attend)?
            };
            pass.see(|| format!("block.{i}"), &stream.x);
        }
        self.end(pass, p, &stream)
    }

    /// The same of the tokens of one scale; keys and values of coarser scales are in `caches`, one a block, and tables are made.
    pub(super) fn forward_cached(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        x: Tensor,
        tables: &[Tensor],
        caches: &mut [KvCache],
    ) -> Result<Tensor> {
        let modulations = Modulations::Made(tables);
        let mut stream = self.begin(&pass.cx, p, x, modulations)?;
        let mut attend = Attend::Cached(caches);
        for i in 0..self.depth() {
            stream = self.step(pass, p, i, stream, (modulations, None), &mut attend)?;
            pass.see(|| format!("block.{i}"), &stream.x);
        }
        self.end(pass, p, &stream)
    }

    /// The head.
    fn end(&self, pass: &ForwardPass<'_>, p: &Params, stream: &Stream) -> Result<Tensor> {
        pass.see(|| "head_nm".into(), &stream.y);
        let logits = self.head.forward(&pass.cx.full(), p, &stream.y)?;
        pass.see(|| "logits".into(), &logits);
        Ok(logits)
    }
}
