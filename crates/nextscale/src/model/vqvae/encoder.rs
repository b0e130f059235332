//! The encoder: images to feature maps a patch a position.

use super::attn_block::AttnBlock;
use super::resnet_block::ResnetBlock;
use super::{DropoutDraw, VqvaeConfig, norm};
use crate::Result;
use crate::model::ForwardPass;
use crate::model::layers::{Conv2d, GroupNorm};
use nextscale_tensor::ops::Conv;
use nextscale_tensor::{Params, ParamsBuilder, PartId, Tensor};

/// Residual and attention blocks of one resolution, then a change of resolution.
pub(super) struct Level {
    pub(super) part: PartId,
    pub(super) blocks: Vec<ResnetBlock>,
    /// One after each residual block on the coarsest level, none elsewhere.
    pub(super) attns: Vec<AttnBlock>,
    pub(super) resample: Option<Conv2d>,
}

impl Level {
    pub(super) fn blocks(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        mut h: Tensor,
        drop: Option<DropoutDraw>,
    ) -> Result<Tensor> {
        pass.cx.first_use(p, self.part);
        for (i, block) in self.blocks.iter().enumerate() {
            h = block.forward(pass, p, &h, drop)?;
            if let Some(attn) = self.attns.get(i) {
                h = attn.forward(pass, p, &h)?;
            }
        }
        Ok(h)
    }
}

/// The blocks between the levels and the end: residual, attention, residual.
pub(super) struct Middle {
    block_1: ResnetBlock,
    attn_1: AttnBlock,
    block_2: ResnetBlock,
}

impl Middle {
    pub(super) fn new(b: &mut ParamsBuilder, side: &str, c: usize, dropout: f32) -> Self {
        Self {
            block_1: ResnetBlock::new(b, &format!("{side}.mid.block_1"), (c, c), dropout),
            attn_1: AttnBlock::new(b, &format!("{side}.mid.attn_1"), c),
            block_2: ResnetBlock::new(b, &format!("{side}.mid.block_2"), (c, c), dropout),
        }
    }

    pub(super) fn forward(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        h: &Tensor,
        drop: Option<DropoutDraw>,
        label: &str,
    ) -> Result<Tensor> {
        let h = self.block_1.forward(pass, p, h, drop)?;
        pass.see(|| format!("{label}.mid.block_1"), &h);
        let h = self.attn_1.forward(pass, p, &h)?;
        pass.see(|| format!("{label}.mid.attn_1"), &h);
        let h = self.block_2.forward(pass, p, &h, drop)?;
        pass.see(|| format!("{label}.mid.block_2"), &h);
        Ok(h)
    }
}

/// `encoder.*` of the reference.
pub(super) struct Encoder {
    start: PartId,
    conv_in: Conv2d,
    down: Vec<Level>,
    /// From the middle on.
    end: PartId,
    mid: Middle,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Encoder {
    pub(super) fn new(b: &mut ParamsBuilder, c: &VqvaeConfig) -> Self {
        let start = b.part();
        let conv_in = Conv2d::same(b, "encoder.conv_in", (3, c.ch), 3);
        let last = c.ch_mult.len() - 1;
        let mut width = c.ch;
        let mut down = Vec::new();
        for (i, mult) in c.ch_mult.iter().enumerate() {
            let out = c.ch * mult;
            let name = format!("encoder.down.{i}");
            let part = b.part();
            let mut blocks = Vec::new();
            for j in 0..c.num_res_blocks {
                let name = format!("{name}.block.{j}");
                blocks.push(ResnetBlock::new(b, &name, (width, out), c.dropout));
                width = out;
            }
            let attns = (0..if i == last { c.num_res_blocks } else { 0 })
                .map(|j| AttnBlock::new(b, &format!("{name}.attn.{j}"), width))
                .collect();
            let resample = (i != last).then(|| {
                let name = format!("{name}.downsample.conv");
                Conv2d::new(b, &name, (width, width), 3, Conv::halve())
            });
            down.push(Level {
                part,
                blocks,
                attns,
                resample,
            });
        }
        Self {
            start,
            conv_in,
            down,
            end: b.part(),
            mid: Middle::new(b, "encoder", width, c.dropout),
            norm_out: norm(b, "encoder.norm_out", width),
            conv_out: Conv2d::same(b, "encoder.conv_out", (width, c.cvae), 3),
        }
    }

    pub(super) fn forward(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        image: &Tensor,
        drop: Option<DropoutDraw>,
    ) -> Result<Tensor> {
        pass.cx.first_use(p, self.start);
        let mut h = self.conv_in.forward(pass, p, image)?;
        pass.see(|| "enc.conv_in".into(), &h);
        for (i, level) in self.down.iter().enumerate() {
            h = level.blocks(pass, p, h, drop)?;
            if let Some(conv) = &level.resample {
                h = conv.forward(pass, p, &h)?;
            }
            pass.see(|| format!("enc.level{i}"), &h);
        }
        pass.cx.first_use(p, self.end);
        let h = self.mid.forward(pass, p, &h, drop, "enc")?;
        let h = self.norm_out.forward(pass, p, &h, true)?;
        let h = self.conv_out.forward(&pass.full(), p, &h)?;
        pass.see(|| "enc.conv_out".into(), &h);
        Ok(h)
    }
}
