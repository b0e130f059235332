//! The transformer: predicts the token map of every scale from all coarser ones (VAR paper, section 3.1; `VAR` in the
//! reference).

mod block;
mod config;
mod drop_path;
mod init;
pub mod state_dict;
mod trunk;

pub use block::Attend;
pub use config::VarConfig;
pub use drop_path::{Branch, DropPath};
pub use init::InitScales;

use super::layers::Linear;
use super::{ForwardPass, half_copy, to_device};
use crate::{Error, Result};
use block::SLOTS;
use nextscale_tensor::ops::{self, KvCache};
use nextscale_tensor::params::Layout;
use nextscale_tensor::{Cx, DType, Device, Math, ParamId, Params, ParamsBuilder, PartId, Tensor};
use std::sync::Arc;
use trunk::{Activated, Training, Trunk};

/// Added to variances in layer normalisation.
pub(crate) const EPS: f32 = 1e-6;

/// The transformer with its weights.
pub struct Var {
    /// What it was built from.
    pub config: VarConfig,
    /// All weights, under the reference's names, in the order of its parameters.
    pub params: Params,
    /// Arithmetic of products where no context is given: while sampling and evaluating.
    pub math: Math,
    /// In training, of so many blocks one keeps no more than what goes into it, and is run again for its gradients; 0: none.
    pub recompute: usize,
    /// What comes before the blocks.
    embeddings: PartId,
    pos_start: ParamId,
    pos: ParamId,
    word_embed: Linear,
    class_emb: ParamId,
    lvl_embed: ParamId,
    shared_ada_lin: Option<Linear>,
    trunk: Arc<Trunk>,
    /// The scale of every token.
    level_of: Vec<usize>,
}

/// Modulation tables of all blocks, then the head's, for one batch of conditions.
pub struct Conditions(Vec<Tensor>);

impl Var {
    /// A transformer with all weights zero: load them or call [`Var::init`].
    ///
    /// # Errors
    /// When the configuration can't be built.
    pub fn new(config: VarConfig, trainable: bool) -> Result<Self> {
        Self::on(config, trainable, Device::Cpu, Math::FULL)
    }

    /// The same on a device at once, where products are computed in `math`.
    ///
    /// # Errors
    /// When the configuration can't be built, the GPU can't be used, or its memory is full.
    pub fn on(config: VarConfig, trainable: bool, device: Device, math: Math) -> Result<Self> {
        config.check()?;
        let mut b = ParamsBuilder::new();
        let (c, first) = (config.width(), config.pyramid.len_of(0));
        let total = config.pyramid.total();
        // The reference's order of parameters, which fixes the order of optimizer states in its checkpoints: a module's
        // own parameters come before those of its children.
        let embeddings = b.part();
        let pos_start = b.add("pos_start", [1, first, c], Layout::Same);
        let pos = b.add("pos_1LC", [1, total, c], Layout::Same);
        let word_embed = Linear::new(&mut b, "word_embed", config.cvae, c);
        let class_emb = b.add("class_emb.weight", [config.classes + 1, c], Layout::Same);
        let lvl_embed = b.add(
            "lvl_embed.weight",
            [config.pyramid.count(), c],
            Layout::Same,
        );
        let shared_ada_lin = config
            .shared_aln
            .then(|| Linear::in_products(&mut b, "shared_ada_lin.1", c, SLOTS * c));
        let trunk = Trunk::new(&mut b, &config);
        let level_of = (0..config.pyramid.count())
            .flat_map(|k| std::iter::repeat_n(k, config.pyramid.len_of(k)))
            .collect();
        Ok(Self {
            params: b.build_on(trainable, device, half_copy(math))?,
            math,
            recompute: 0,
            embeddings,
            pos_start,
            pos,
            word_embed,
            class_emb,
            lvl_embed,
            shared_ada_lin,
            trunk: Arc::new(trunk),
            level_of,
            config,
        })
    }

    /// Draws initial weights.
    ///
    /// # Errors
    /// While a tensor still holds the weights.
    pub fn init(&mut self, scales: InitScales, seed: u64) -> Result<()> {
        init::init(&mut self.params, &self.config, scales, seed)
    }

    /// Moves the weights to `device`, where products are computed in `math` from then on.
    ///
    /// # Errors
    /// When the GPU can't be used or its memory is full.
    pub fn to_device(&mut self, device: Device, math: Math) -> Result<()> {
        to_device(&mut self.params, device, half_copy(math))?;
        self.math = math;
        Ok(())
    }

    /// Where the weights are.
    pub fn device(&self) -> Device {
        self.params.device()
    }

    /// Labels \[B\] that a caller has at hand, checked and on the model's device.
    ///
    /// # Errors
    /// When a label is out of range, or the GPU refuses.
    pub fn labels(&self, labels: &[i32]) -> Result<Tensor> {
        self.check_labels(labels)?;
        Ok(Tensor::from_i32([labels.len()], labels.to_vec()).to(self.device())?)
    }

    /// Class embeddings \[B, C\] of labels \[B\] on the model's device; label `classes` means "no class". On a GPU they are the caller's
    /// to check ([`Var::check_labels`]).
    ///
    /// # Errors
    /// When shapes do not fit or, on a CPU, a label is out of range.
    pub fn condition(&self, cx: &Cx<'_>, labels: &Tensor) -> Result<Tensor> {
        let table = self.params.get(self.class_emb);
        Ok(ops::gather_rows(cx, &table, labels)?)
    }

    /// Conditions \[B, C\] between classes: those of `from` moved towards those of `to`, labels \[B\] on the model's device, by shares
    /// from 0 to 1 along a straight line. Made on the CPU.
    ///
    /// # Errors
    /// When shapes do not fit or, on a CPU, a label is out of range.
    pub fn blended_condition(&self, from: &Tensor, to: &Tensor, shares: &[f32]) -> Result<Tensor> {
        let here = |labels: &Tensor| -> Result<Tensor> {
            let rows = self.condition(&Cx::off().with(self.math).full(), labels)?;
            Ok(rows.to(Device::Cpu)?)
        };
        let (a, b) = (here(from)?, here(to)?);
        if a.dims() != b.dims() || a.dims()[0] != shares.len() {
            return Err(Error::failed("as many classes and shares are blended"));
        }
        let width = self.config.width();
        let pairs = a.f32()?.iter().zip(b.f32()?).enumerate();
        let mixed = pairs.map(|(i, (a, b))| {
            let share = shares[i / width];
            a * (1.0 - share) + b * share
        });
        Ok(Tensor::from_vec(a.shape(), mixed.collect()).to(self.device())?)
    }

    /// The modulation of every block and of the head for conditions \[B, C\].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn conditions(&self, pass: &ForwardPass<'_>, cond: &Tensor) -> Result<Conditions> {
        let activated = self.activate(pass, cond)?;
        let all = 0..=self.trunk.depth();
        let tables = all.map(|i| self.trunk.table(&pass.cx, &self.params, &activated, i));
        Ok(Conditions(tables.collect::<Result<_>>()?))
    }

    /// What tables are made of, from conditions \[B, C\].
    fn activate(&self, pass: &ForwardPass<'_>, cond: &Tensor) -> Result<Activated> {
        let (b, c) = (cond.dims()[0], self.config.width());
        let cond = ops::silu(&pass.cx.full(), cond)?;
        let shared = match &self.shared_ada_lin {
            Some(lin) => {
                let table = lin.forward(&pass.cx.wide(), &self.params, &cond)?;
                let table = table.reshape([b, SLOTS, c])?;
                pass.see(|| "shared_ada_lin".into(), &table);
                Some(table)
            }
            None => None,
        };
        Ok(Activated { cond, shared })
    }

    /// Training and evaluation: logits \[B, L′, V\] of the first `active` scales.
    ///
    /// `labels` \[B\], on the model's device, are used as they are (class dropout is the caller's, and so is their check:
    /// [`Var::labels`]); `input` \[B, L′ − first, Cvae\] is that of teacher forcing, `None` when only the first scale is active.
    ///
    /// # Errors
    /// When shapes do not fit or, on a CPU, a label is out of range.
    pub fn forward(
        &self,
        pass: &ForwardPass<'_>,
        labels: &Tensor,
        input: Option<&Tensor>,
        active: usize,
        drop_path: Option<&DropPath>,
    ) -> Result<Tensor> {
        let (full, p) = (pass.cx.full(), &self.params);
        let cx = &full;
        let ends = &self.config.pyramid.ends()[..active];
        let total = ends.last().copied().unwrap_or(0);
        let first = self.config.pyramid.len_of(0);
        cx.first_use(p, self.embeddings);
        let cond = self.condition(cx, labels)?;
        let activated = self.activate(pass, &cond)?;
        let embeddings = input
            .map(|x| self.word_embed.forward(cx, p, x))
            .transpose()?;
        let x = ops::token_embedding(
            cx,
            &cond,
            embeddings.as_ref(),
            &p.get(self.pos_start),
            &p.get(self.pos),
            &p.get(self.lvl_embed),
            &self.level_of[..total],
            first,
        )?;
        pass.see(|| "x_embed".into(), &x);
        let training = Training {
            activated: &activated,
            ends,
            drop_path,
            recompute: self.recompute,
        };
        self.trunk.forward(pass, p, x, &training)
    }

    /// Sampling: logits \[B, l, V\] of scale `k` whose input embeddings are `x` \[B, l, C\]; keys and values are
    /// appended to `caches`, one a block.
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn forward_scale(
        &self,
        pass: &ForwardPass<'_>,
        x: Tensor,
        conditions: &Conditions,
        caches: &mut [KvCache],
    ) -> Result<Tensor> {
        self.trunk
            .forward_cached(pass, &self.params, x, &conditions.0, caches)
    }

    /// Input embeddings of the first scale while sampling: \[B, first, C\] from conditions \[B, C\].
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn embed_first(&self, cond: &Tensor) -> Result<Tensor> {
        let (p, first) = (&self.params, self.config.pyramid.len_of(0));
        Ok(ops::token_embedding(
            &Cx::off().with(self.math).full(),
            cond,
            None,
            &p.get(self.pos_start),
            &p.get(self.pos),
            &p.get(self.lvl_embed),
            &self.level_of[..first],
            first,
        )?)
    }

    /// Input embeddings of scale `k` while sampling: \[copies·B, l, C\] from features \[B, l, Cvae\], the same in every copy
    /// (2 with guidance).
    ///
    /// # Errors
    /// When shapes do not fit.
    pub fn embed_scale(&self, features: &Tensor, k: usize, copies: usize) -> Result<Tensor> {
        let (cx, p) = (Cx::off().with(self.math).full(), &self.params);
        let embeddings = self.word_embed.forward(&cx, p, features)?;
        let start = self.config.pyramid.range(k).start;
        Ok(ops::scale_embedding(
            &embeddings,
            &p.get(self.pos),
            &p.get(self.lvl_embed),
            k,
            start,
            copies,
        )?)
    }

    /// Empty caches for a batch of `b` rows (twice the images with guidance), in the type of the blocks' products.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn caches(&self, b: usize) -> Result<Vec<KvCache>> {
        let (h, l) = (self.config.heads, self.config.pyramid.total());
        let dtype = match self.device() {
            Device::Cpu => DType::F32,
            _ => self.math.operands,
        };
        let extents = [b, h, l, self.config.width() / h];
        (0..self.config.depth)
            .map(|_| Ok(KvCache::on(self.device(), dtype, extents)?))
            .collect()
    }

    /// Label that stands for "no class".
    pub fn no_class(&self) -> i32 {
        self.config.classes as i32
    }

    /// Checks class labels that a user gave.
    ///
    /// # Errors
    /// When one is not below the number of classes (the "no class" label is allowed).
    pub fn check_labels(&self, labels: &[i32]) -> Result<()> {
        match labels.iter().find(|&&l| l < 0 || l > self.no_class()) {
            Some(l) => Err(Error::input(format!(
                "class {l}: the model has classes 0 to {}",
                self.config.classes.saturating_sub(1)
            ))),
            None => Ok(()),
        }
    }
}
