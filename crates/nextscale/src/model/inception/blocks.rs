//! The blocks of Inception v3: several branches over one map, joined along their channels.

use crate::Result;
use crate::model::ForwardPass;
use crate::model::layers::Conv2d;
use nextscale_tensor::ops::{self, Conv, Window};
use nextscale_tensor::{Params, ParamsBuilder, Tensor};

/// A convolution, its batch norm folded in, and ReLU: `BasicConv2d` of the ports.
pub(super) struct ConvRelu {
    pub(super) name: String,
    conv: Conv2d,
}

impl ConvRelu {
    /// From `i` to `o` channels with a kernel of (height, width), so many zeros above and below, left and right.
    pub(super) fn new(
        b: &mut ParamsBuilder,
        name: &str,
        io: (usize, usize),
        kernel: (usize, usize),
        stride: usize,
        (down, right): (usize, usize),
    ) -> Self {
        let pad = [down, right, down, right];
        let layer = format!("{name}.conv");
        Self {
            name: name.to_owned(),
            conv: Conv2d::oblong(b, &layer, io, kernel, Conv { stride, pad }),
        }
    }

    pub(super) fn forward(&self, pass: &ForwardPass<'_>, p: &Params, x: &Tensor) -> Result<Tensor> {
        Ok(ops::relu(&pass.cx, &self.conv.forward(pass, p, x)?)?)
    }
}

/// What a branch does to the block's input before its convolutions.
#[derive(Clone, Copy)]
enum Pool {
    None,
    /// The mean of 3×3 pixels, those that are padded left out.
    Average,
    /// The largest of 3×3 pixels.
    Max,
    /// The same at every second pixel.
    Shrink,
}

/// Convolutions one after the other; the last ones, where there are several, side by side over what came before.
struct Branch {
    pool: Pool,
    convs: Vec<ConvRelu>,
    fork: Vec<ConvRelu>,
}

impl Branch {
    fn forward(&self, pass: &ForwardPass<'_>, p: &Params, x: &Tensor) -> Result<Vec<Tensor>> {
        let window = |stride, pad| Window {
            size: 3,
            stride,
            pad,
        };
        let mut x = match self.pool {
            Pool::None => x.clone(),
            Pool::Average => ops::avg_pool(&pass.cx, x, window(1, 1), false)?,
            Pool::Max => ops::max_pool(&pass.cx, x, window(1, 1))?,
            Pool::Shrink => ops::max_pool(&pass.cx, x, window(2, 0))?,
        };
        for conv in &self.convs {
            x = conv.forward(pass, p, &x)?;
        }
        match self.fork.is_empty() {
            true => Ok(vec![x]),
            false => self.fork.iter().map(|c| c.forward(pass, p, &x)).collect(),
        }
    }
}

/// A block.
pub(super) struct Block(Vec<Branch>);

/// Names of the parameters below a block's.
struct Names<'a> {
    b: &'a mut ParamsBuilder,
    block: &'a str,
}

impl Names<'_> {
    /// A convolution of a square kernel that keeps the sides.
    fn same(&mut self, name: &str, i: usize, o: usize, size: usize) -> ConvRelu {
        self.oblong(name, i, o, (size, size))
    }

    /// The same of an oblong kernel.
    fn oblong(&mut self, name: &str, i: usize, o: usize, (kh, kw): (usize, usize)) -> ConvRelu {
        let name = format!("{}.{name}", self.block);
        ConvRelu::new(self.b, &name, (i, o), (kh, kw), 1, (kh / 2, kw / 2))
    }

    /// One of 3×3 at every second pixel, without padding.
    fn shrink(&mut self, name: &str, i: usize, o: usize) -> ConvRelu {
        let name = format!("{}.{name}", self.block);
        ConvRelu::new(self.b, &name, (i, o), (3, 3), 2, (0, 0))
    }
}

fn branch(convs: Vec<ConvRelu>) -> Branch {
    pooled(Pool::None, convs)
}

fn pooled(pool: Pool, convs: Vec<ConvRelu>) -> Branch {
    Branch {
        pool,
        convs,
        fork: Vec::new(),
    }
}

impl Block {
    /// 35×35 pixels (`InceptionA`), from `i` channels; `pool` of those that come from the pooled branch.
    pub(super) fn a(b: &mut ParamsBuilder, block: &str, i: usize, pool: usize) -> Self {
        let n = &mut Names { b, block };
        Self(vec![
            branch(vec![n.same("branch1x1", i, 64, 1)]),
            branch(vec![
                n.same("branch5x5_1", i, 48, 1),
                n.same("branch5x5_2", 48, 64, 5),
            ]),
            branch(vec![
                n.same("branch3x3dbl_1", i, 64, 1),
                n.same("branch3x3dbl_2", 64, 96, 3),
                n.same("branch3x3dbl_3", 96, 96, 3),
            ]),
            pooled(Pool::Average, vec![n.same("branch_pool", i, pool, 1)]),
        ])
    }

    /// From 35×35 to 17×17 pixels (`InceptionB`).
    pub(super) fn b(b: &mut ParamsBuilder, block: &str, i: usize) -> Self {
        let n = &mut Names { b, block };
        Self(vec![
            branch(vec![n.shrink("branch3x3", i, 384)]),
            branch(vec![
                n.same("branch3x3dbl_1", i, 64, 1),
                n.same("branch3x3dbl_2", 64, 96, 3),
                n.shrink("branch3x3dbl_3", 96, 96),
            ]),
            pooled(Pool::Shrink, vec![]),
        ])
    }

    /// 17×17 pixels (`InceptionC`), with `c` channels inside the branches of seven pixels.
    pub(super) fn c(b: &mut ParamsBuilder, block: &str, c: usize) -> Self {
        let n = &mut Names { b, block };
        let (i, wide, high) = (768, (1, 7), (7, 1));
        Self(vec![
            branch(vec![n.same("branch1x1", i, 192, 1)]),
            branch(vec![
                n.same("branch7x7_1", i, c, 1),
                n.oblong("branch7x7_2", c, c, wide),
                n.oblong("branch7x7_3", c, 192, high),
            ]),
            branch(vec![
                n.same("branch7x7dbl_1", i, c, 1),
                n.oblong("branch7x7dbl_2", c, c, high),
                n.oblong("branch7x7dbl_3", c, c, wide),
                n.oblong("branch7x7dbl_4", c, c, high),
                n.oblong("branch7x7dbl_5", c, 192, wide),
            ]),
            pooled(Pool::Average, vec![n.same("branch_pool", i, 192, 1)]),
        ])
    }

    /// From 17×17 to 8×8 pixels (`InceptionD`).
    pub(super) fn d(b: &mut ParamsBuilder, block: &str) -> Self {
        let n = &mut Names { b, block };
        let i = 768;
        Self(vec![
            branch(vec![
                n.same("branch3x3_1", i, 192, 1),
                n.shrink("branch3x3_2", 192, 320),
            ]),
            branch(vec![
                n.same("branch7x7x3_1", i, 192, 1),
                n.oblong("branch7x7x3_2", 192, 192, (1, 7)),
                n.oblong("branch7x7x3_3", 192, 192, (7, 1)),
                n.shrink("branch7x7x3_4", 192, 192),
            ]),
            pooled(Pool::Shrink, vec![]),
        ])
    }

    /// 8×8 pixels (`InceptionE`), from `i` channels; `max` where the pooled branch takes the largest (the last block).
    pub(super) fn e(b: &mut ParamsBuilder, block: &str, i: usize, max: bool) -> Self {
        let n = &mut Names { b, block };
        let (wide, high) = ((1, 3), (3, 1));
        let pool = if max { Pool::Max } else { Pool::Average };
        Self(vec![
            branch(vec![n.same("branch1x1", i, 320, 1)]),
            Branch {
                pool: Pool::None,
                convs: vec![n.same("branch3x3_1", i, 384, 1)],
                fork: vec![
                    n.oblong("branch3x3_2a", 384, 384, wide),
                    n.oblong("branch3x3_2b", 384, 384, high),
                ],
            },
            Branch {
                pool: Pool::None,
                convs: vec![
                    n.same("branch3x3dbl_1", i, 448, 1),
                    n.same("branch3x3dbl_2", 448, 384, 3),
                ],
                fork: vec![
                    n.oblong("branch3x3dbl_3a", 384, 384, wide),
                    n.oblong("branch3x3dbl_3b", 384, 384, high),
                ],
            },
            pooled(pool, vec![n.same("branch_pool", i, 192, 1)]),
        ])
    }

    /// x \[B, H, W, C\] through all branches.
    pub(super) fn forward(
        &self,
        pass: &ForwardPass<'_>,
        p: &Params,
        x: &Tensor,
    ) -> Result<(Tensor, Tensor)> {
        let mut parts = Vec::new();
        for branch in &self.0 {
            parts.extend(branch.forward(pass, p, x)?);
        }
        let y = ops::concat_channels(&pass.cx, &parts.iter().collect::<Vec<_>>())?;
        Ok((y, parts.swap_remove(0)))
    }
}
