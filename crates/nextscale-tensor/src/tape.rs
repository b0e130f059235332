//! The tape: what the backward pass needs, in the order in which the forward pass made it.
//!
//! Operators record a closure that holds what their gradient needs. Without a tape nothing is recorded and
//! nothing is kept. The backward pass takes the closures from the end, so saved memory is freed as it walks.

mod parts;
mod recompute;
#[cfg(test)]
mod tests;

pub use parts::CompletePart;

use crate::params::{GradBuffer, Params, PartId};
use crate::{DType, Device, Error, Math, Result, Tensor};
use parts::{Marks, Sink};
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// What a gradient belongs to.
#[derive(Clone, Debug)]
pub(crate) enum Origin {
    /// A value made on a tape, by its number.
    Node(u64),
    /// A parameter: its gradient lies in the flat buffer at the tensor's own offset. The token tells stores apart.
    Param(Arc<()>),
}

type Backward = Box<dyn FnOnce(&mut Grads<'_>) -> Result<()>>;

/// A record of one forward pass.
#[derive(Default)]
pub struct Tape {
    steps: RefCell<Vec<Backward>>,
    next: Cell<u64>,
    stashes: RefCell<HashMap<u64, Stash>>,
    marks: RefCell<Marks>,
}

/// A value that its rule needs and that a later operator's rule, which runs before it, can make again. That operator empties
/// the stash, so that the value need not be kept, and its rule fills it.
#[derive(Clone, Debug)]
pub(crate) struct Stash(Rc<RefCell<Option<Tensor>>>);

impl Stash {
    /// A stash that holds `x`.
    pub(crate) fn new(x: &Tensor) -> Self {
        Self(Rc::new(RefCell::new(Some(x.detach()))))
    }

    /// Takes the value out; `None` where it is not there.
    pub(crate) fn take(&self) -> Option<Tensor> {
        self.0.borrow_mut().take()
    }

    /// Puts the value back.
    pub(crate) fn put(&self, x: Tensor) {
        *self.0.borrow_mut() = Some(x.detach());
    }
}

/// How operators run: with a tape (training) or without, and how precisely products are computed on a GPU.
#[derive(Clone, Copy, Default)]
pub struct Cx<'t> {
    tape: Option<&'t Tape>,
    math: Math,
    wide: bool,
}

impl<'t> Cx<'t> {
    /// Records on `tape`.
    pub fn on(tape: &'t Tape) -> Self {
        Self {
            tape: Some(tape),
            ..Self::default()
        }
    }

    /// Records nothing: for inference.
    pub fn off() -> Self {
        Self::default()
    }

    /// The same with another arithmetic of products.
    pub fn with(self, math: Math) -> Self {
        Self { math, ..self }
    }

    /// The same with float32 operands (TF32 as it was): embeddings and the head.
    pub fn full(self) -> Self {
        let math = Math {
            operands: DType::F32,
            ..self.math
        };
        self.with(math)
    }

    /// The same with float32 results of products whatever their operands: modulation tables.
    pub fn wide(self) -> Self {
        Self { wide: true, ..self }
    }

    /// The arithmetic of products.
    pub fn math(&self) -> Math {
        self.math
    }

    /// The type of products' results.
    pub fn result(&self) -> DType {
        if self.wide {
            DType::F32
        } else {
            self.math.operands
        }
    }

    /// Whether an operator on these inputs has to record its gradient.
    pub fn records(&self, inputs: &[&Tensor]) -> bool {
        self.tape.is_some() && inputs.iter().any(|t| t.wants_grad())
    }

    /// Marks `y` as made on the tape and returns its key, with which the backward rule asks for y's gradient.
    ///
    /// # Panics
    /// Without a tape: operators ask [`Cx::records`] first.
    pub fn output(&self, y: &mut Tensor) -> Key {
        let tape = self.tape.expect("operators ask records() first");
        let id = tape.next.get();
        tape.next.set(id + 1);
        y.origin = Some(Origin::Node(id));
        Key(id)
    }

    /// Records a backward rule. It runs once, after the rules of everything that used its outputs.
    pub fn record(&self, backward: impl FnOnce(&mut Grads<'_>) -> Result<()> + 'static) {
        if let Some(tape) = self.tape {
            tape.steps.borrow_mut().push(Box::new(backward));
        }
    }

    /// Says that nothing recorded so far uses this part of the parameters. In the backward pass its gradient is then complete when
    /// the walk comes back to here, and [`Tape::backward_by_parts`] hands it out. Of several such marks on a tape the first counts.
    pub fn first_use(&self, params: &Params, part: PartId) {
        let Some(tape) = self.tape else { return };
        let token = params.token();
        if tape.marks.borrow_mut().add(&token, part) {
            self.record(move |grads| grads.complete(&token, part));
        }
    }

    /// The common case of one output: marks it and records `backward`, which gets y's gradient in y's type and shape. The rule
    /// is skipped when no gradient reached y.
    pub fn record_one(
        &self,
        y: &mut Tensor,
        backward: impl FnOnce(Tensor, &mut Grads<'_>) -> Result<()> + 'static,
    ) {
        let (key, dtype, shape) = (self.output(y), y.dtype(), y.shape());
        self.record(move |grads| match grads.take(key) {
            // Gradients are kept by element: the value may have gone on under another shape.
            Some(g) => backward(g.cast(dtype)?.reshape(shape)?, grads),
            None => Ok(()),
        });
    }

    /// Keeps the value of `key` in a stash that operators on that value find.
    pub(crate) fn stash(&self, key: Key, x: &Tensor) -> Stash {
        let stash = Stash::new(x);
        if let Some(tape) = self.tape {
            tape.stashes.borrow_mut().insert(key.0, stash.clone());
        }
        stash
    }

    /// The stash of `x`, if the operator that made it on this tape left one.
    pub(crate) fn stash_of(&self, x: &Tensor) -> Option<Stash> {
        let (Some(tape), Some(Origin::Node(id))) = (self.tape, &x.origin) else {
            return None;
        };
        tape.stashes.borrow().get(id).cloned()
    }

    /// A leaf whose gradient is wanted (inputs in tests, features handed from one tape to another).
    ///
    /// # Panics
    /// Without a tape.
    pub fn leaf(&self, x: &Tensor) -> (Tensor, Key) {
        let mut y = x.detach();
        let key = self.output(&mut y);
        (y, key)
    }
}

/// The key of a value made on a tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key(u64);

/// Gradients during the backward pass: of values by key, of parameters in the flat buffer.
pub struct Grads<'p> {
    values: HashMap<u64, Tensor>,
    flat: Flat<'p>,
    store: Option<Arc<()>>,
    /// The next number that no value has.
    next: u64,
    /// Who is told of parts whose gradients are complete.
    sink: Option<Sink<'p>>,
}

/// The parameters' gradients, where they are wanted.
enum Flat<'p> {
    None,
    Cpu(&'p mut [f32]),
    /// The whole flat buffer, float32.
    Cuda(Tensor),
}

impl Grads<'_> {
    /// Takes the gradient of a value; `None` when none reached it.
    pub fn take(&mut self, key: Key) -> Option<Tensor> {
        self.values.remove(&key.0)
    }

    /// Whether a gradient for `x` is of use.
    pub fn wants(&self, x: &Tensor) -> bool {
        match &x.origin {
            Some(Origin::Node(_)) => true,
            Some(Origin::Param(token)) => self.owns(token),
            None => false,
        }
    }

    fn owns(&self, token: &Arc<()>) -> bool {
        self.store.as_ref().is_some_and(|s| Arc::ptr_eq(s, token))
    }

    /// Adds `g` to the gradient of `x` (by element: `g` may have any shape of the same count).
    ///
    /// # Errors
    /// When the element counts differ.
    pub fn add(&mut self, x: &Tensor, g: Tensor) -> Result<()> {
        if g.numel() != x.numel() {
            return Err(Error::shape(
                "gradient",
                format!("{} for a value of {}", g.shape(), x.shape()),
            ));
        }
        match &x.origin {
            None => Ok(()),
            Some(Origin::Node(id)) => {
                match (self.values.remove(id), g.device()) {
                    (None, _) => {
                        self.values.insert(*id, g);
                    }
                    (Some(mut sum), Device::Cpu) => {
                        crate::cpu::add_assign(sum.make_mut()?, g.f32()?);
                        self.values.insert(*id, sum);
                    }
                    (Some(sum), Device::Cuda(_)) => {
                        // The wider of the two takes the other in.
                        let (sum, other) = if sum.dtype() == DType::F32 || g.dtype() != DType::F32 {
                            (sum, g)
                        } else {
                            (g, sum)
                        };
                        let sum = sum.into_unique()?;
                        sum.add_in_place(&other)?;
                        self.values.insert(*id, sum);
                    }
                }
                Ok(())
            }
            Some(Origin::Param(_)) => match g.device() {
                Device::Cpu => {
                    if let Some(slot) = self.param(x) {
                        crate::cpu::add_assign(slot, g.f32()?);
                    }
                    Ok(())
                }
                Device::Cuda(_) => match self.sums(x)? {
                    Some(slot) => slot.add_in_place(&g),
                    None => Ok(()),
                },
            },
        }
    }

    /// On a GPU: the float32 sums that belong to `w`, for a kernel to add to (a parameter's place in the flat buffer, or
    /// the value's gradient, zeros at first). `None` when no gradient is wanted.
    ///
    /// # Errors
    /// When the GPU's memory is full.
    pub fn sums(&mut self, w: &Tensor) -> Result<Option<Tensor>> {
        match (&w.origin, &self.flat) {
            (Some(Origin::Param(token)), Flat::Cuda(flat)) if self.owns(token) => {
                let mut view = flat.detach();
                view.shape = w.shape();
                view.offset = w.offset;
                Ok(Some(view))
            }
            (Some(Origin::Node(id)), _) => {
                let sum = match self.values.remove(id) {
                    Some(sum) => sum.into_dtype(DType::F32)?.into_unique()?,
                    None => Tensor::zeros_on(w.device(), w.shape(), DType::F32)?,
                };
                // Both handles see what is added: the order of the stream keeps it sound.
                self.values.insert(*id, sum.clone());
                Ok(Some(sum))
            }
            _ => Ok(None),
        }
    }

    /// On the CPU: the gradient of the parameter `w` in the flat buffer, to add to; `None` when it is not wanted.
    pub fn param(&mut self, w: &Tensor) -> Option<&mut [f32]> {
        match (&w.origin, &mut self.flat) {
            (Some(Origin::Param(token)), Flat::Cpu(flat))
                if self.store.as_ref().is_some_and(|s| Arc::ptr_eq(s, token)) =>
            {
                Some(&mut flat[w.offset..w.offset + w.numel()])
            }
            _ => None,
        }
    }

    /// On the CPU: adds into the gradient of `w`, parameter or value, through `fill`, which gets the target to add to.
    /// Does nothing when the gradient is not wanted.
    ///
    /// # Errors
    /// What `fill` returns.
    pub fn accumulate(
        &mut self,
        w: &Tensor,
        fill: impl FnOnce(&mut [f32]) -> Result<()>,
    ) -> Result<()> {
        if !self.wants(w) {
            return Ok(());
        }
        if let Some(slot) = self.param(w) {
            return fill(slot);
        }
        let Some(Origin::Node(id)) = w.origin else {
            return Ok(());
        };
        let sum = self
            .values
            .entry(id)
            .or_insert_with(|| Tensor::zeros(w.shape()));
        fill(sum.make_mut()?)
    }
}

impl Tape {
    /// An empty tape.
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs the backward pass from the scalar `loss` with the given seed (1, divided by the accumulation
    /// steps). Parameter gradients are added to `grads` of the store that `params` belongs to; the gradients of the
    /// `wanted` leaves come back in order.
    ///
    /// # Errors
    /// When `loss` was not made on this tape, or a rule fails.
    pub fn backward(
        self,
        loss: &Tensor,
        seed: f32,
        target: Option<(&Params, &mut GradBuffer)>,
        wanted: &[Key],
    ) -> Result<Vec<Option<Tensor>>> {
        let seed = Tensor::from_vec(loss.shape(), vec![seed]).to(loss.device())?;
        self.backward_from(loss, seed, target, wanted)
    }

    /// [`Tape::backward`] with the seed as a tensor beside the loss: a loss scale that stays on the GPU.
    ///
    /// # Errors
    /// As [`Tape::backward`].
    pub fn backward_from(
        self,
        loss: &Tensor,
        seed: Tensor,
        target: Option<(&Params, &mut GradBuffer)>,
        wanted: &[Key],
    ) -> Result<Vec<Option<Tensor>>> {
        self.walk(loss, seed, target, wanted, None)
    }

    /// [`Tape::backward_from`], which hands the gradients of the parameters to `sink` part by part ([`Params::parts`]), each once and
    /// as soon as nothing more is added to it: at its mark ([`Cx::first_use`]), and at the end those without one, in order.
    ///
    /// # Errors
    /// As [`Tape::backward`], and those of `sink`, which so ends it.
    pub fn backward_by_parts(
        self,
        loss: &Tensor,
        seed: Tensor,
        target: (&Params, &mut GradBuffer),
        wanted: &[Key],
        sink: &mut dyn FnMut(CompletePart<'_>) -> Result<()>,
    ) -> Result<Vec<Option<Tensor>>> {
        let sink = Sink::new(target.0, sink);
        self.walk(loss, seed, Some(target), wanted, Some(sink))
    }

    fn walk<'p>(
        self,
        loss: &Tensor,
        seed: Tensor,
        target: Option<(&Params, &'p mut GradBuffer)>,
        wanted: &[Key],
        sink: Option<Sink<'p>>,
    ) -> Result<Vec<Option<Tensor>>> {
        let Some(Origin::Node(id)) = loss.origin else {
            return Err(Error::shape("backward", "the loss was not made on a tape"));
        };
        let (flat, store) = match target {
            Some((params, grads)) => {
                let token = Some(params.token());
                match grads.device() {
                    Device::Cpu => (Flat::Cpu(grads.cpu_mut()?), token),
                    Device::Cuda(_) => (Flat::Cuda(grads.tensor()?), token),
                }
            }
            None => (Flat::None, None),
        };
        let mut grads = Grads {
            values: HashMap::from([(id, seed)]),
            flat,
            store,
            next: 0,
            sink,
        };
        grads.walk(self)?;
        grads.complete_rest()?;
        Ok(wanted.iter().map(|k| grads.take(*k)).collect())
    }
}
