//! The threads behind a loader.
//!
//! Batches in the making stand in a queue in their order. Workers take single images from the first batch that
//! has one left, so that all of them work on the batch that is needed soonest. The queue's length is bounded; a
//! worker starts a new batch when there is room.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nextscale_tensor::rng::{Purpose, Stream};

use super::bad::{BadList, how_to_go_on};
use super::kept::{Kept, cut};
use super::order::Order;
use super::{BadImage, BadImages, Batch, LoaderConfig};
use crate::data::{CropWindow, ImageSource, LoadBuffers, Resizer, RgbImage8, Transform};
use crate::{Error, Result};

/// Pictures that are so many times as large as a crop are not kept.
const LONG: usize = 8;

/// What is cut out of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Crops {
    /// One, drawn for the epoch.
    OfEpoch,
    /// The middle.
    Center,
    /// So many, drawn as for the epochs 0, 1, ….
    Drawn(usize),
}

impl Crops {
    /// How many there are of an image.
    fn count(self) -> usize {
        match self {
            Self::OfEpoch | Self::Center => 1,
            Self::Drawn(n) => n,
        }
    }
}

/// Buffers of batches that were used up.
#[derive(Debug)]
pub(super) struct Recycler {
    buffers: Mutex<Vec<Vec<u8>>>,
    kept: usize,
}

impl Recycler {
    pub(super) fn give(&self, buffer: Vec<u8>) {
        let mut buffers = lock(&self.buffers);
        if buffer.capacity() > 0 && buffers.len() < self.kept {
            buffers.push(buffer);
        }
    }

    fn take(&self, len: usize) -> Vec<u8> {
        let mut buffer = lock(&self.buffers).pop().unwrap_or_default();
        buffer.resize(len, 0);
        buffer
    }
}

/// A batch in the making.
#[derive(Debug)]
struct Slot {
    epoch: u64,
    iteration: usize,
    /// The images asked for.
    wanted: Vec<u32>,
    filled: Mutex<Filled>,
}

/// What workers have put into a batch.
#[derive(Debug)]
struct Filled {
    images: Vec<u8>,
    /// The image that stands at each place, with its label; `None` where it was left out.
    found: Vec<Option<(u32, u32)>>,
    /// The first place whose image could not be loaded, and why.
    error: Option<(usize, Error)>,
}

#[derive(Debug)]
struct Queued {
    slot: Arc<Slot>,
    /// Places handed out to workers, and places done.
    claimed: usize,
    done: usize,
}

#[derive(Debug)]
struct State {
    order: Order,
    queue: VecDeque<Queued>,
    /// The order has no batch left.
    exhausted: bool,
    stop: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// There may be something to do for workers.
    work: Condvar,
    /// The first batch may be done.
    ready: Condvar,
    recycler: Arc<Recycler>,
    bad: BadList,
    depth: usize,
    transform: Transform,
    crops: Crops,
    kept: Option<Kept>,
    config: LoaderConfig,
}

/// Worker threads that make the batches of an order.
#[derive(Debug)]
pub(super) struct Engine {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    waited: Duration,
}

impl Engine {
    pub(super) fn new(
        source: Arc<dyn ImageSource>,
        transform: Transform,
        order: Order,
        crops: Crops,
        config: LoaderConfig,
    ) -> Result<Self> {
        if order.dataset_len() != source.len() {
            return Err(Error::input(format!(
                "the sampler was made for another data set: this one has {} images",
                source.len()
            )));
        }
        let depth = config.depth(order.batch());
        // What is looked at once is not worth it.
        let keeps = config.keep > 0 && crops == Crops::OfEpoch;
        let shared = Arc::new(Shared {
            crops,
            kept: keeps.then(|| Kept::within(config.keep)),
            state: Mutex::new(State {
                order,
                queue: VecDeque::new(),
                exhausted: false,
                stop: false,
            }),
            work: Condvar::new(),
            ready: Condvar::new(),
            recycler: Arc::new(Recycler {
                buffers: Mutex::new(Vec::new()),
                kept: depth + 2,
            }),
            bad: BadList::default(),
            depth,
            transform,
            config,
        });
        // Made first, so that threads already running are ended should a later one fail to start.
        let mut engine = Self {
            shared,
            workers: Vec::new(),
            waited: Duration::ZERO,
        };
        for i in 0..config.threads() {
            let (shared, source) = (Arc::clone(&engine.shared), Arc::clone(&source));
            let worker = std::thread::Builder::new()
                .name(format!("loader-{i}"))
                .spawn(move || shared.work(source.as_ref()))
                .map_err(|e| Error::failed(format!("can't start a loader thread: {e}")))?;
            engine.workers.push(worker);
        }
        Ok(engine)
    }

    /// The next batch that holds an image; `None` after the last.
    pub(super) fn next_batch(&mut self) -> Result<Option<Batch>> {
        loop {
            let begun = Instant::now();
            let slot = self.shared.wait_for_first();
            self.waited += begun.elapsed();
            let Some(slot) = slot else {
                return Ok(None);
            };
            let batch = self.shared.finish(&slot)?;
            if !batch.is_empty() {
                return Ok(Some(batch));
            }
        }
    }

    pub(super) fn waited(&self) -> Duration {
        self.waited
    }

    pub(super) fn bad_images(&self) -> Vec<BadImage> {
        self.shared.bad.list()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch panics; there is nothing left to report here.
            let _ = worker.join();
        }
    }
}

/// What one worker keeps from image to image.
#[derive(Default)]
struct Worker {
    buffers: LoadBuffers,
    resizer: Resizer,
    pixels: Vec<u8>,
}

impl Shared {
    /// Bytes of all crops of an image.
    fn bytes(&self) -> usize {
        self.crops.count() * self.transform.bytes()
    }

    /// A worker's life.
    fn work(&self, source: &dyn ImageSource) {
        let mut worker = Worker {
            pixels: vec![0; self.bytes()],
            ..Worker::default()
        };
        while let Some((slot, place)) = self.claim() {
            // A panic must not leave the trainer waiting for ever.
            let made = catch_unwind(AssertUnwindSafe(|| {
                self.make(source, &slot, place, &mut worker)
            }))
            .unwrap_or_else(|_| {
                let index = slot.wanted[place] as usize;
                Err(Error::failed(format!(
                    "{}: a loader thread failed on it",
                    source.name(index)
                )))
            });
            worker.buffers.let_go();
            slot.put(place, made, &worker.pixels);
            self.done(&slot);
        }
    }

    /// The next image to make; `None` when it is time to end.
    fn claim(&self) -> Option<(Arc<Slot>, usize)> {
        let mut state = lock(&self.state);
        loop {
            if state.stop {
                return None;
            }
            let open = state
                .queue
                .iter_mut()
                .find(|q| q.claimed < q.slot.wanted.len());
            if let Some(queued) = open {
                queued.claimed += 1;
                return Some((Arc::clone(&queued.slot), queued.claimed - 1));
            }
            if !state.exhausted && state.queue.len() < self.depth {
                match state.order.advance() {
                    Some(next) => {
                        let slot = self.open(next);
                        state.queue.push_back(slot);
                        self.work.notify_all();
                    }
                    None => {
                        state.exhausted = true;
                        self.ready.notify_all();
                    }
                }
                continue;
            }
            state = self
                .work
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn open(&self, (epoch, iteration, wanted): (u64, usize, Vec<u32>)) -> Queued {
        let images = self.recycler.take(wanted.len() * self.bytes());
        let filled = Filled {
            images,
            found: vec![None; wanted.len()],
            error: None,
        };
        Queued {
            slot: Arc::new(Slot {
                epoch,
                iteration,
                wanted,
                filled: Mutex::new(filled),
            }),
            claimed: 0,
            done: 0,
        }
    }

    /// Makes the image for one place in `worker.pixels`: its index and label, or `None` if it is left out.
    fn make(
        &self,
        source: &dyn ImageSource,
        slot: &Slot,
        place: usize,
        worker: &mut Worker,
    ) -> Result<Option<(u32, u32)>> {
        let wanted = slot.wanted[place] as usize;
        let pixels = &mut worker.pixels;
        if let Some(index) = self.crop_kept(source.len(), slot.epoch, wanted, pixels) {
            return Ok(Some((index as u32, source.label(index))));
        }
        let buffers = &mut worker.buffers;
        let index = match (self.config.bad_images, self.crops == Crops::OfEpoch) {
            (BadImages::Stop, _) => {
                source.load(wanted, buffers).map_err(how_to_go_on)?;
                wanted
            }
            (BadImages::Skip, true) => self.bad.load_next(source, wanted, buffers)?,
            (BadImages::Skip, false) => {
                if !self.bad.try_load(source, wanted, buffers)? {
                    return Ok(None);
                }
                wanted
            }
        };
        let (image, out) = (&buffers.image, &mut worker.pixels);
        let each = out.chunks_exact_mut(self.transform.bytes());
        for (number, out) in (0u64..).zip(each) {
            let resizer = &mut worker.resizer;
            match self.crops {
                Crops::Center => self.transform.center(image, resizer, out)?,
                Crops::OfEpoch => self.crop_once(slot.epoch, (index, image), resizer, out)?,
                Crops::Drawn(_) => {
                    let mut stream = self.stream(number, index);
                    self.transform.random(image, &mut stream, resizer, out)?;
                }
            }
        }
        Ok(Some((index as u32, source.label(index))))
    }

    /// What is random about an image in an epoch.
    fn stream(&self, epoch: u64, index: usize) -> Stream {
        Stream::new(self.config.seed, Purpose::Augment, epoch, index as u64)
    }

    /// The crop of an epoch of an image of `len`, or of what stands in for it, where that was kept; which one it was.
    fn crop_kept(&self, len: usize, epoch: u64, wanted: usize, out: &mut [u8]) -> Option<usize> {
        let kept = self.kept.as_ref()?;
        let index = self.bad.stand_in(wanted, len);
        let mut stream = self.stream(epoch, index);
        let mirrored = self.transform.mirrors(&mut stream);
        let picture = kept.get(index, mirrored)?;
        let size = (picture.width(), picture.height());
        cut(&picture, self.transform.anywhere(size, &mut stream), out);
        Some(index)
    }

    /// The crop of an epoch of an image that was decoded, which is kept resized where there is room.
    fn crop_once(
        &self,
        epoch: u64,
        (index, image): (usize, &RgbImage8),
        resizer: &mut Resizer,
        out: &mut [u8],
    ) -> Result<()> {
        let mut stream = self.stream(epoch, index);
        let (width, height) = self.transform.resized(image.width(), image.height());
        // A very long picture takes more work than its crops.
        let is_long = 3 * width * height > LONG * self.transform.bytes();
        let kept = self.kept.as_ref().filter(|_| !is_long);
        let size = (width, height);
        let Some(kept) = kept.filter(|kept| kept.claim(size)) else {
            return self.transform.random(image, &mut stream, resizer, out);
        };
        let mirrored = self.transform.mirrors(&mut stream);
        let mut pixels = vec![0; 3 * width * height];
        let whole = CropWindow {
            left: 0,
            top: 0,
            width,
            height,
        };
        let resized = resizer.resize_crop(image, size, whole, mirrored, &mut pixels);
        let picture = resized.and_then(|()| RgbImage8::new(width, height, pixels));
        let picture = picture.inspect_err(|_| kept.give_back(size))?;
        let picture = kept.put(index, mirrored, picture);
        let window = self.transform.anywhere(size, &mut stream);
        cut(&picture, window, out);
        Ok(())
    }

    /// Counts one place of a batch as done.
    fn done(&self, slot: &Arc<Slot>) {
        let mut state = lock(&self.state);
        let Some(queued) = state.queue.iter_mut().find(|q| Arc::ptr_eq(&q.slot, slot)) else {
            return;
        };
        queued.done += 1;
        if queued.done == queued.slot.wanted.len() {
            self.ready.notify_all();
        }
    }

    /// Waits for the first batch of the queue and takes it out; `None` if there is none left.
    fn wait_for_first(&self) -> Option<Arc<Slot>> {
        let mut state = lock(&self.state);
        loop {
            match state.queue.front() {
                Some(first) if first.done == first.slot.wanted.len() => break,
                None if state.exhausted => return None,
                _ => {}
            }
            state = self
                .ready
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let first = state.queue.pop_front();
        self.work.notify_all();
        first.map(|queued| queued.slot)
    }

    /// Makes a batch of what the workers left in a slot, closing the gaps of images left out.
    fn finish(&self, slot: &Slot) -> Result<Batch> {
        let mut filled = lock(&slot.filled);
        let mut batch = Batch {
            images: std::mem::take(&mut filled.images),
            labels: Vec::with_capacity(filled.found.len()),
            indices: Vec::with_capacity(filled.found.len()),
            epoch: slot.epoch,
            iteration: slot.iteration,
            recycler: Arc::clone(&self.recycler),
        };
        if let Some((_, error)) = filled.error.take() {
            return Err(error);
        }
        let bytes = self.bytes();
        for (place, found) in filled.found.iter().enumerate() {
            if let Some((index, label)) = *found {
                let to = batch.labels.len();
                if to != place {
                    let from = place * bytes..(place + 1) * bytes;
                    batch.images.copy_within(from, to * bytes);
                }
                batch.labels.push(label);
                batch.indices.push(index);
            }
        }
        batch.images.truncate(batch.labels.len() * bytes);
        Ok(batch)
    }
}

impl Slot {
    fn put(&self, place: usize, made: Result<Option<(u32, u32)>>, pixels: &[u8]) {
        let mut filled = lock(&self.filled);
        match made {
            Ok(found) => {
                filled.found[place] = found;
                if found.is_some() {
                    let from = place * pixels.len();
                    filled.images[from..from + pixels.len()].copy_from_slice(pixels);
                }
            }
            // Which image is reported must not depend on timing.
            Err(error) if filled.error.as_ref().is_none_or(|(at, _)| place < *at) => {
                filled.error = Some((place, error));
            }
            Err(_) => {}
        }
    }
}

/// Locks; a panic elsewhere does not matter, as nothing is left half done under these locks.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
