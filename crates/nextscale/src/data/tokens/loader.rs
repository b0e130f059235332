//! Batches of rows of a token file, read ahead of the trainer.
//!
//! Threads take turns: of `n` the first reads batches 0, n, 2n, …, so what a batch holds and the order of batches do not depend
//! on timing.

use super::TokenFile;
use crate::data::loader::order::Order;
use crate::data::{LoaderConfig, TrainSampler};
use crate::{Error, Result};
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Threads that read where none are asked for: enough to hide a disk's latency.
const AUTO_READERS: usize = 4;
/// Batches of every thread that wait to be used.
const AHEAD: usize = 2;

/// Rows of tokens with their labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenBatch {
    /// The tokens \[B, L\].
    pub tokens: Vec<i32>,
    /// The classes \[B\].
    pub labels: Vec<i32>,
}

/// Batches of a token file in the order of a run.
#[derive(Debug)]
pub struct TokenLoader {
    // Each yields every n-th batch.
    readers: Vec<Reader>,
    next: usize,
    waited: Duration,
}

impl TokenLoader {
    /// Training batches without end from (epoch, iteration) `start` on: the images that a loader of images with this
    /// configuration takes. Epoch e sees crop e modulo the number of crops. Every token is checked against `vocab`; 0 workers are chosen.
    ///
    /// # Errors
    /// When the file can't be opened again or threads can't be started.
    pub fn train(
        file: &TokenFile,
        (batch, vocab): (usize, usize),
        start: (u64, usize),
        config: LoaderConfig,
    ) -> Result<Self> {
        let sampler = TrainSampler::new(file.len(), batch, config.share, config.seed)?;
        Self::start(file, vocab, config.workers, || {
            Order::train(sampler.clone(), start)
        })
    }

    /// One pass over all images in order, the first crop of each.
    ///
    /// # Errors
    /// As [`TokenLoader::train`].
    pub fn val(
        file: &TokenFile,
        (batch, vocab): (usize, usize),
        config: LoaderConfig,
    ) -> Result<Self> {
        let sampler = config.pass_over(file.len(), batch)?;
        Self::start(file, vocab, config.workers, || Order::val(sampler.clone()))
    }

    fn start(
        file: &TokenFile,
        vocab: usize,
        readers: usize,
        order: impl Fn() -> Order,
    ) -> Result<Self> {
        let count = if readers == 0 { AUTO_READERS } else { readers };
        let mut loader = Self {
            readers: Vec::new(),
            next: 0,
            waited: Duration::ZERO,
        };
        for i in 0..count {
            let (give, take) = sync_channel(AHEAD);
            let (mut file, mut order) = (file.again()?, order());
            let work = move || {
                let mut turn = 0;
                while let Some((epoch, _, images)) = order.advance() {
                    let own = turn == i;
                    turn = (turn + 1) % count;
                    if own && give.send(batch(&mut file, epoch, &images, vocab)).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new()
                .name(format!("tokens-{i}"))
                .spawn(work)
                .map_err(|e| Error::failed(format!("can't start a reading thread: {e}")))?;
            loader.readers.push(Reader {
                take: Some(take),
                thread: Some(thread),
            });
        }
        Ok(loader)
    }

    /// The next batch, `None` after the last of a pass; waits until it is read.
    ///
    /// # Errors
    /// When a token is outside the codebook or reading fails.
    pub fn next_batch(&mut self) -> Result<Option<TokenBatch>> {
        let begun = Instant::now();
        let count = self.readers.len();
        let reader = &mut self.readers[self.next];
        let got = reader.take.as_ref().and_then(|t| t.recv().ok());
        self.waited += begun.elapsed();
        self.next = (self.next + 1) % count;
        if got.is_none()
            && let Some(thread) = reader.thread.take()
            && thread.join().is_err()
        {
            return Err(Error::failed("a thread that reads tokens failed"));
        }
        got.transpose()
    }

    /// How long callers have waited for batches in all.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for TokenLoader {
    fn drop(&mut self) {
        for reader in &mut self.readers {
            reader.take = None;
        }
        for reader in &mut self.readers {
            if let Some(thread) = reader.thread.take() {
                let _ = thread.join();
            }
        }
    }
}

/// A thread and what it hands over; none once it has ended.
#[derive(Debug)]
struct Reader {
    take: Option<Receiver<Result<TokenBatch>>>,
    thread: Option<JoinHandle<()>>,
}

fn batch(file: &mut TokenFile, epoch: u64, images: &[u32], vocab: usize) -> Result<TokenBatch> {
    let crop = (epoch % file.crops() as u64) as usize;
    let mut tokens = Vec::with_capacity(images.len() * file.pyramid().total());
    let mut labels = Vec::with_capacity(images.len());
    for &image in images {
        file.read(image as usize, crop, vocab, &mut tokens)?;
        labels.push(file.label(image as usize));
    }
    Ok(TokenBatch { tokens, labels })
}
