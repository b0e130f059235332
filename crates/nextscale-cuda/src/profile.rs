//! Which operator takes how long on a GPU.
//!
//! Every operator opens a scope where its work for the GPU begins and says what there is to do ([`Work`]); the scope ends with
//! the function. Outside [`Gpu::profile`] that costs one look at a number. Within it, the scope's ends are marked by events in
//! the stream; nothing waits for them before the end. An operator that calls another is one operator: only the outermost scope
//! counts, so that times add up. Scopes of other threads, of other GPUs and within the capture of a graph do nothing.
//!
//! On a dry GPU ([`crate::dry`]) a profile has the same rows without times: what there is to do, for a GPU that is not there.

use crate::dtype::Precision;
use crate::gpu::Gpu;
use crate::timing::Event;
use crate::work::Work;
use crate::{Error, Result};
use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Profiles under way in the process.
static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What the profile of this thread has seen.
    static RECORD: RefCell<Option<Record>> = const { RefCell::new(None) };
}

struct Record {
    gpu: &'static Gpu,
    spans: Vec<Span>,
    /// Whether the last span goes on.
    open: bool,
    failed: Option<Error>,
}

struct Span {
    name: &'static str,
    work: Work,
    from: Event,
    to: Option<Event>,
}

/// One operator's calls of the same sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The operator.
    pub name: &'static str,
    /// The sizes, where it says them.
    pub note: String,
    /// The arithmetic of its products.
    pub rate: Precision,
    /// Calls.
    pub calls: u64,
    /// Milliseconds of all calls.
    pub ms: f64,
    /// Useful multiplications and additions of all calls.
    pub flops: f64,
    /// The least bytes that all calls must move.
    pub bytes: f64,
}

/// What a run did, by operator.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Profile {
    /// By time, the longest first.
    pub rows: Vec<Row>,
    /// Milliseconds from the beginning to the end of the work in the stream.
    pub ms: f64,
}

impl Profile {
    /// Useful multiplications and additions of everything.
    pub fn flops(&self) -> f64 {
        self.rows.iter().map(|r| r.flops).sum()
    }

    /// The least bytes that all operators must move.
    pub fn bytes(&self) -> f64 {
        self.rows.iter().map(|r| r.bytes).sum()
    }

    /// Milliseconds outside every operator: copies to and from the host, gaps between kernels.
    pub fn other_ms(&self) -> f64 {
        (self.ms - self.rows.iter().map(|r| r.ms).sum::<f64>()).max(0.0)
    }

    /// Sums spans (name, work, milliseconds) by name, arithmetic and sizes.
    fn of_spans(spans: impl IntoIterator<Item = (&'static str, Work, f64)>, ms: f64) -> Self {
        let mut places: HashMap<(&'static str, Precision, String), usize> = HashMap::new();
        let mut rows: Vec<Row> = Vec::new();
        for (name, work, ms) in spans {
            let key = (name, work.rate, work.note.clone());
            let at = *places.entry(key).or_insert_with(|| {
                rows.push(Row {
                    name,
                    note: work.note,
                    rate: work.rate,
                    calls: 0,
                    ms: 0.0,
                    flops: 0.0,
                    bytes: 0.0,
                });
                rows.len() - 1
            });
            let row = &mut rows[at];
            row.calls += 1;
            row.ms += ms;
            row.flops += work.flops;
            row.bytes += work.bytes;
        }
        rows.sort_by(|a, b| b.ms.total_cmp(&a.ms));
        Self { rows, ms }
    }
}

/// An operator at work, until it is dropped.
#[derive(Debug)]
#[must_use]
pub struct Scope {
    /// The span that ends with it.
    span: Option<usize>,
    /// It ends in the thread that began it.
    _here: PhantomData<*const ()>,
}

impl Gpu {
    /// The operator `name` begins work on this GPU; `work` is asked only while a profile is taken.
    pub fn scope(&self, name: &'static str, work: impl FnOnce() -> Work) -> Scope {
        let span = match UNDER_WAY.load(Ordering::Relaxed) {
            0 => None,
            _ => self.open_span(name, work),
        };
        Scope {
            span,
            _here: PhantomData,
        }
    }

    fn open_span(&self, name: &'static str, work: impl FnOnce() -> Work) -> Option<usize> {
        RECORD.with_borrow_mut(|record| {
            let r = record.as_mut()?;
            if r.open || !std::ptr::eq(r.gpu, self) || self.captures() {
                return None;
            }
            match Event::now(r.gpu) {
                Ok(from) => {
                    r.open = true;
                    r.spans.push(Span {
                        name,
                        work: work(),
                        from,
                        to: None,
                    });
                    Some(r.spans.len() - 1)
                }
                Err(e) => {
                    r.failed.get_or_insert(e);
                    None
                }
            }
        })
    }

    /// Runs `run` and says which operator took how long; its work should not wait for the GPU, or the gaps count. To see the
    /// GPU at its own pace, put other work into the stream before, so that the CPU is ahead.
    ///
    /// # Errors
    /// When `run` fails, the driver refuses, or the calling thread takes a profile or captures a graph already.
    pub fn profile<T, E: From<Error>>(
        &'static self,
        run: impl FnOnce() -> Result<T, E>,
    ) -> Result<(Profile, T), E> {
        self.outside_capture("a profile")?;
        if RECORD.with_borrow(Option::is_some) {
            return Err(Error::Device("a profile within a profile".into()).into());
        }
        let begun = Event::now(self)?;
        let taking = Taking::begin(self);
        let out = run()?;
        let over = Event::now(self)?;
        let record = taking.end()?;
        let ms = begun.until(&over)?;
        let mut spans = Vec::with_capacity(record.spans.len());
        for span in record.spans {
            let Some(to) = span.to else {
                let what = format!("{} goes on after the profile", span.name);
                return Err(Error::Device(what).into());
            };
            spans.push((span.name, span.work, span.from.until(&to)?));
        }
        Ok((Profile::of_spans(spans, ms), out))
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        let Some(span) = self.span else { return };
        RECORD.with_borrow_mut(|record| {
            let Some(r) = record else { return };
            r.open = false;
            match Event::now(r.gpu) {
                Ok(to) => {
                    if let Some(s) = r.spans.get_mut(span) {
                        s.to = Some(to);
                    }
                }
                Err(e) => {
                    r.failed.get_or_insert(e);
                }
            }
        });
    }
}

/// The profile of this thread goes on until this is dropped.
struct Taking;

impl Taking {
    fn begin(gpu: &'static Gpu) -> Self {
        RECORD.set(Some(Record {
            gpu,
            spans: Vec::new(),
            open: false,
            failed: None,
        }));
        UNDER_WAY.fetch_add(1, Ordering::Relaxed);
        Self
    }

    fn end(self) -> Result<Record> {
        let Some(mut record) = RECORD.take() else {
            return Err(Error::Device("the profile is gone".into()));
        };
        match record.failed.take() {
            Some(e) => Err(e),
            None => Ok(record),
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
        drop(RECORD.take());
    }
}

#[cfg(test)]
mod tests;
