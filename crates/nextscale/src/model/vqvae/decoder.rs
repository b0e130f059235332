//! The decoder: feature maps back to images; the encoder mirrored with one more residual block a level.

use super::attn_block::AttnBlock;
use super::encoder::{Level, Middle};
use super::resnet_block::ResnetBlock;
use super::{DropoutDraw, VqvaeConfig, norm};
use crate::Result;
use crate::model::ForwardPass;
use crate::model::layers::{Conv2d, GroupNorm};
use nextscale_tensor::{Params, ParamsBuilder, PartId, Tensor, ops};

/// `decoder.*` of the reference.
pub(super) struct Decoder {
    /// Up to the middle.
    start: PartId,
    conv_in: Conv2d,
    mid: Middle,
    /// Level 0 is the finest, as the keys count; they run from the last to the first.
    up: Vec<Level>,
    end: PartId,
    norm_out: GroupNorm,
    conv_out: Conv2d,
}

impl Decoder {
    pub(super) fn new(b: &mut ParamsBuilder, c: &VqvaeConfig) -> Self {
        let last = c.ch_mult.len() - 1;
        let widest = c.ch * c.ch_mult[last];
        let start = b.part();
        let conv_in = Conv2d::same(b, "decoder.conv_in", (c.cvae, widest), 3);
        let mid = Middle::new(b, "decoder", widest, c.dropout);
        let mut up = Vec::new();
        // Declared in the keys' order, finest first, although data flows the other way.
        for (i, mult) in c.ch_mult.iter().enumerate() {
            let out = c.ch * mult;
            let mut width = c.ch * c.ch_mult[(i + 1).min(last)];
            let name = format!("decoder.up.{i}");
            let part = b.part();
            let mut blocks = Vec::new();
            for j in 0..=c.num_res_blocks {
                let name = format!("{name}.block.{j}");
                blocks.push(ResnetBlock::new(b, &name, (width, out), c.dropout));
                width = out;
            }
            let attns = (0..if i == last { c.num_res_blocks + 1 } else { 0 })
                .map(|j| AttnBlock::new(b, &format!("{name}.attn.{j}"), out))
                .collect();
            let resample =
                (i != 0).then(|| Conv2d::same(b, &format!("{name}.upsample.conv"), (out, out), 3));
            up.push(Level {
                part,
                blocks,
                attns,
                resample,
            });
        }
        let finest = c.ch * c.ch_mult[0];
        Self {
            start,
            conv_in,
            mid,
            up,
            end: b.part(),
            norm_out: norm(b, "decoder.norm_out", finest),
            conv_out: Conv2d::same(b, "decoder.conv_out", (finest, 3), 3),
        }
    }

    pub(super) fn forward(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        z: &Tensor,
        drop: Option<DropoutDraw>,
    ) -> Result<Tensor> {
        pass.cx.first_use(p, self.start);
        let h = self.conv_in.forward(pass, p, z)?;
        pass.see(|| "dec.conv_in".into(), &h);
        let mut h = self.mid.forward(pass, p, &h, drop, "dec")?;
        for (i, level) in self.up.iter().enumerate().rev() {
            h = level.blocks(pass, p, h, drop)?;
            if let Some(conv) = &level.resample {
                let big = ops::upsample_nearest2x(&pass.cx, &h)?;
                h = conv.forward(pass, p, &big)?;
            }
            pass.see(|| format!("dec.level{i}"), &h);
        }
        pass.cx.first_use(p, self.end);
        let h = self.norm_out.forward(pass, p, &h, true)?;
        let h = self.conv_out.forward(&pass.full(), p, &h)?;
        pass.see(|| "dec.conv_out".into(), &h);
        Ok(h)
    }
}
