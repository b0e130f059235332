//! Convolutions: channels-last maps, weights [O, kh, kw, I], sums in float32.
//!
//! cuDNN's graph interface, where there is cuDNN, does most of them (`cudnn.rs`, `engine.rs`), bias and residual in the same
//! pass. On Hopper kernels of ours take, where they are faster, those with a multiple of 160 outputs, also behind a norm
//! (`tiles/`), and the weights' gradient for a multiple of 80 outputs (`weight_tiles/`). What there is no engine
//! for, what is narrow enough, and weights' gradients where that is faster are matrix products over patches (`columns.rs`).
//! Which path and which engine is fastest is measured once for a shape and kept on disk (`choose.rs`). Engines that add in
//! an order of their own each time are never taken, so that a run repeats bit for bit.

mod around;
mod choose;
mod columns;
mod cudnn;
mod describe;
mod engine;
#[cfg(test)]
mod tests;
pub mod tiles;
mod weight_tiles;

use crate::gpu::Gpu;
use crate::matmul::DevicePtr;
use crate::{DType, Error, Result};

pub(crate) use choose::Slot;

pub use around::MODULE;
pub use tiles::MODULE as TILES;
pub use weight_tiles::MODULE as WEIGHT_TILES;

/// A kind of convolution: everything but the operands' pointers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Convolution {
    /// Images.
    pub batch: usize,
    /// Height of x.
    pub h: usize,
    /// Width of x.
    pub w: usize,
    /// Channels of x.
    pub inputs: usize,
    /// Channels of y.
    pub outputs: usize,
    /// Height of the kernel.
    pub kh: usize,
    /// Width of the kernel.
    pub kw: usize,
    /// Step between output positions, on both axes.
    pub stride: usize,
    /// Zeros added: top, left, bottom, right.
    pub pad: [usize; 4],
    /// Type of x, y, the weights and the residual: a float.
    pub element: DType,
    /// Rounds float32 operands to TF32.
    pub tf32: bool,
}

/// What is computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Pass {
    /// y from x and the weights.
    Forward,
    /// The gradient of x from that of y and the weights.
    Data,
    /// The gradient of the weights from x and the gradient of y.
    Weights,
}

impl Convolution {
    /// Height and width of y.
    pub fn out(&self) -> (usize, usize) {
        let [top, left, bottom, right] = self.pad;
        let step = |extent: usize, kernel: usize| {
            (extent + 1)
                .checked_sub(kernel)
                .map_or(0, |n| n.div_ceil(self.stride.max(1)))
        };
        (
            step(self.h + top + bottom, self.kh),
            step(self.w + left + right, self.kw),
        )
    }

    /// Multiplications and additions of one pass.
    pub fn operations(&self) -> f64 {
        2.0 * (self.y_rows() * self.outputs * self.taps() * self.inputs) as f64
    }

    fn taps(&self) -> usize {
        self.kh * self.kw
    }

    /// Positions of x.
    fn x_rows(&self) -> usize {
        self.batch * self.h * self.w
    }

    /// Positions of y.
    fn y_rows(&self) -> usize {
        let (oh, ow) = self.out();
        self.batch * oh * ow
    }

    fn x_bytes(&self) -> usize {
        self.x_rows() * self.inputs * self.element.bytes()
    }

    fn y_bytes(&self) -> usize {
        self.y_rows() * self.outputs * self.element.bytes()
    }

    fn weights(&self) -> usize {
        self.outputs * self.taps() * self.inputs
    }

    /// Whether every position of y sees just its own position of x.
    fn pointwise(&self) -> bool {
        self.kh == 1 && self.kw == 1 && self.stride == 1 && self.pad == [0; 4]
    }

    fn check(&self) -> Result<()> {
        self.element.float("convolution")?;
        let far = self.pad.iter().any(|n| *n >= 1 << 30);
        let (oh, ow) = if far { (0, 0) } else { self.out() };
        let sizes = [
            self.batch,
            self.h,
            self.w,
            self.inputs,
            self.outputs,
            self.kh,
            self.kw,
            self.stride,
            oh,
            ow,
        ];
        if !sizes.iter().all(|n| (1..1 << 30).contains(n)) {
            let text = format!("convolution: {self:?} is empty or has an extent beyond 2^30");
            return Err(Error::Device(text));
        }
        // Sums of bytes that begin again at zero would pass for small ones.
        let countable = |extents: [usize; 4]| {
            let all = extents
                .iter()
                .try_fold(8usize, |all, n| all.checked_mul(*n));
            all.is_some_and(|bytes| bytes < 1 << 60)
        };
        let patch = [self.kh, self.kw, self.inputs];
        let weights = [self.outputs, patch[0], patch[1], patch[2]];
        let x = [self.batch, self.h, self.w, self.inputs];
        let y = [self.batch, oh, ow, self.outputs];
        if ![weights, x, y].into_iter().all(countable) {
            return Err(Error::Device(format!("convolution: {self:?} is too large")));
        }
        Ok(())
    }
}

/// The pointers of one call. What a pass writes is `y`, `x` or `w`, after [`Pass`].
#[derive(Clone, Copy, Debug)]
struct Call<'a> {
    x: DevicePtr<'a>,
    w: DevicePtr<'a>,
    y: DevicePtr<'a>,
    bias: Option<DevicePtr<'a>>,
    residual: Option<DevicePtr<'a>>,
}

impl Call<'_> {
    /// Whether the operands of a forward pass are there as a whole.
    fn check_forward(&self, gpu: &Gpu, c: &Convolution) -> Result<()> {
        c.check()?;
        holds(gpu, self.x, "x", c.x_bytes())?;
        holds(gpu, self.w, "the weight", c.weights() * c.element.bytes())?;
        holds(gpu, self.y, "y", c.y_bytes())?;
        if let Some(b) = self.bias {
            holds(gpu, b, "the bias", c.outputs * 4)?;
        }
        self.residual
            .map_or(Ok(()), |r| holds(gpu, r, "the residual", c.y_bytes()))
    }
}

fn holds(gpu: &Gpu, ptr: DevicePtr<'_>, what: &str, bytes: usize) -> Result<()> {
    let what = format!("convolution: {what}");
    ptr.holds(gpu, &what, bytes).map(|_| ())
}

impl Gpu {
    /// y = conv(x, w) (+ bias) (+ residual) into the stream. The bias is float32, and rounded to the element type where the
    /// fastest engine takes it so; the rest are of the convolution's element type.
    ///
    /// # Errors
    /// When an operand does not fit, or a library is missing.
    pub fn conv_forward(
        &'static self,
        c: &Convolution,
        x: DevicePtr<'_>,
        w: DevicePtr<'_>,
        bias: Option<DevicePtr<'_>>,
        residual: Option<DevicePtr<'_>>,
        y: DevicePtr<'_>,
    ) -> Result<()> {
        let call = Call {
            x,
            w,
            y,
            bias,
            residual,
        };
        call.check_forward(self, c)?;
        choose::run(self, c, Pass::Forward, &call)
    }

    /// Whether [`Gpu::conv_forward_normed`] takes a convolution.
    pub fn conv_takes_norm(&self, c: &Convolution) -> bool {
        tiles::fit(self, c, Pass::Forward)
    }

    /// y = conv(norm(x), w) + bias (+ residual) into the stream, for what [`Gpu::conv_takes_norm`] says; operands as those of
    /// [`Gpu::conv_forward`], each beginning at a multiple of 16 bytes.
    ///
    /// # Errors
    /// As [`Gpu::conv_forward`], and where the kernel does not take the convolution or its operands' pointers.
    pub fn conv_forward_normed(
        &'static self,
        c: &Convolution,
        norm: &tiles::TileNorm,
        (x, w): (DevicePtr<'_>, DevicePtr<'_>),
        bias: DevicePtr<'_>,
        residual: Option<DevicePtr<'_>>,
        y: DevicePtr<'_>,
    ) -> Result<()> {
        let call = Call {
            x,
            w,
            y,
            bias: Some(bias),
            residual,
        };
        call.check_forward(self, c)?;
        let even = |p: DevicePtr<'_>| p.alignment() >= 16;
        let pointers = [Some(x), Some(w), Some(y), Some(bias), residual];
        if !self.conv_takes_norm(c) || !pointers.into_iter().flatten().all(even) {
            return Err(Error::Device(format!(
                "convolution: {c:?} behind a norm is not for this kernel"
            )));
        }
        tiles::run(self, c, Pass::Forward, Some(norm), &call)
    }

    /// dx from dy and w, into the stream; all of the convolution's element type.
    ///
    /// # Errors
    /// As [`Gpu::conv_forward`].
    pub fn conv_data_gradient(
        &'static self,
        c: &Convolution,
        dy: DevicePtr<'_>,
        w: DevicePtr<'_>,
        dx: DevicePtr<'_>,
    ) -> Result<()> {
        c.check()?;
        holds(self, dy, "the gradient of y", c.y_bytes())?;
        holds(self, w, "the weight", c.weights() * c.element.bytes())?;
        holds(self, dx, "the gradient of x", c.x_bytes())?;
        let call = Call {
            x: dx,
            w,
            y: dy,
            bias: None,
            residual: None,
        };
        choose::run(self, c, Pass::Data, &call)
    }

    /// Adds the weights' gradient, from x and dy, to the float32 numbers at `dw`.
    ///
    /// # Errors
    /// As [`Gpu::conv_forward`].
    pub fn conv_weight_gradient(
        &'static self,
        c: &Convolution,
        x: DevicePtr<'_>,
        dy: DevicePtr<'_>,
        dw: DevicePtr<'_>,
    ) -> Result<()> {
        c.check()?;
        holds(self, x, "x", c.x_bytes())?;
        holds(self, dy, "the gradient of y", c.y_bytes())?;
        holds(self, dw, "the gradient of the weight", c.weights() * 4)?;
        let call = Call {
            x,
            w: dw,
            y: dy,
            bias: None,
            residual: None,
        };
        choose::run(self, c, Pass::Weights, &call)
    }

    /// Adds the sums of the rows of x, `rows` by `columns`, to the float32 numbers at `y`: the gradient of a bias.
    ///
    /// # Errors
    /// When an operand does not fit.
    pub fn add_row_sums(
        &'static self,
        x: DevicePtr<'_>,
        element: DType,
        rows: usize,
        columns: usize,
        y: DevicePtr<'_>,
    ) -> Result<()> {
        element.float("sums of rows")?;
        let numbers = rows.saturating_mul(columns);
        let bytes = numbers.saturating_mul(element.bytes());
        holds(self, x, "what is summed", bytes)?;
        holds(self, y, "the sums", columns.saturating_mul(4))?;
        around::add_row_sums(self, x, element, rows, columns, y)
    }
}
