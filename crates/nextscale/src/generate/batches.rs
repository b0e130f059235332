//! Drawing batch after batch: on a GPU the whole loop over scales, decoder included, becomes one captured graph.

#[cfg(test)]
mod tests;

use super::sample::Numbers;
use super::{Noise, SampleOptions, Sampled, Sampler};
use crate::Result;
use nextscale_tensor::cuda::Graph;
use nextscale_tensor::ops::draw_params;
use nextscale_tensor::{DType, Tensor};

/// Draws batches with the same options. The images are those of [`Sampler::draw`].
///
/// On a GPU the first whole batch runs as it is, which loads kernels and chooses algorithms; the second is captured as a
/// graph, and that is replayed from then on: labels, seed and the number of the first image lie in memory that the graph
/// reads. A smaller batch is filled up and what is too much dropped. Given noise, a CPU, and a batch that comes only
/// once take the way of [`Sampler::draw`].
pub struct BatchSampler<'a> {
    sampler: Sampler<'a>,
    options: SampleOptions,
    batch: usize,
    state: State,
}

enum State {
    /// No whole batch was drawn.
    Cold,
    /// One was: nothing has to be loaded or chosen any more.
    Warm,
    Captured(Box<Captured>),
}

/// A graph with what it reads and writes.
struct Captured {
    graph: Graph,
    /// Labels of all rows.
    rows: Tensor,
    /// Seed and number of the first image.
    params: Tensor,
    out: Sampled,
}

impl<'a> BatchSampler<'a> {
    /// For batches of up to `batch` images.
    pub fn new(sampler: Sampler<'a>, options: SampleOptions, batch: usize) -> Self {
        Self {
            sampler,
            options,
            batch,
            state: State::Cold,
        }
    }

    /// Draws one image a label; `first` is the number of the first image.
    ///
    /// # Errors
    /// As [`Sampler::draw`].
    pub fn draw(&mut self, labels: &[i32], first: u64) -> Result<Sampled> {
        let (n, whole) = (labels.len(), self.batch);
        let on_gpu = self.sampler.var.device().is_async();
        let seed = match self.options.noise {
            Noise::Seed(seed) if on_gpu && n > 0 && n <= whole => seed,
            _ => return self.plain(labels, first),
        };
        if matches!(self.state, State::Cold) {
            let out = self.plain(labels, first)?;
            if n == whole {
                self.state = State::Warm;
            }
            return Ok(out);
        }
        let mut filled = labels.to_vec();
        filled.resize(whole, labels[n - 1]);
        let rows = self.sampler.rows(&filled, &self.options)?;
        if matches!(self.state, State::Warm) {
            let captured = Captured::new(&self.sampler, &self.options, rows.len())?;
            self.state = State::Captured(Box::new(captured));
        }
        let State::Captured(captured) = &mut self.state else {
            return self.plain(labels, first);
        };
        captured.rows.write_i32(&rows)?;
        captured.params.write_i32(&draw_params(seed, first))?;
        captured.graph.launch()?;
        // The next replay writes over what this one wrote.
        let own = |t: &Tensor| -> Result<Tensor> { Ok(t.narrow(0, n)?.copied()?) };
        let out = &captured.out;
        Ok(Sampled {
            images: own(&out.images)?,
            f_hat: own(&out.f_hat)?,
            tokens: out.tokens.iter().map(own).collect::<Result<_>>()?,
        })
    }

    fn plain(&self, labels: &[i32], first: u64) -> Result<Sampled> {
        self.sampler.draw(labels, first, &self.options, None, None)
    }

    /// Bytes that the graph keeps for itself; 0 without one.
    pub fn graph_bytes(&self) -> usize {
        match &self.state {
            State::Captured(c) => c.graph.bytes(),
            _ => 0,
        }
    }
}

impl Captured {
    fn new(sampler: &Sampler<'_>, options: &SampleOptions, rows: usize) -> Result<Self> {
        let device = sampler.var.device();
        let Some(gpu) = device.gpu()? else {
            return Err(crate::Error::failed("graphs are captured on a GPU"));
        };
        let zeros = |n: usize| Tensor::zeros_on(device, [n], DType::I32);
        let (rows, params) = (zeros(rows)?, zeros(4)?);
        let numbers = Numbers::Device(&params);
        let (graph, out) =
            gpu.capture(|| sampler.pass(&rows, numbers, options, None, None, &mut || Ok(())))?;
        Ok(Self {
            graph,
            rows,
            params,
            out,
        })
    }
}
