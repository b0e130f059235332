//! Parts of a forward pass that are run again for their gradients (Chen and others 2016), so that nothing between their inputs and
//! outputs has to be kept.

use super::{Cx, Grads, Origin, Tape};
use crate::{Result, Tensor};

impl Cx<'_> {
    /// Runs `f` on `inputs`. On a tape only these are kept: the backward pass runs `f` again, with a tape of its own, before it goes
    /// through the rules of what `f` did. `f` has to do the same both times, and gets a context and inputs like these; what it
    /// captures, parameters say, it reads and does not change. Within it parts of the parameters may be marked
    /// ([`Cx::first_use`]).
    ///
    /// # Errors
    /// Those of `f`.
    pub fn recomputed(
        &self,
        inputs: Vec<Tensor>,
        f: impl Fn(&Cx<'_>, &[Tensor]) -> Result<Vec<Tensor>> + 'static,
    ) -> Result<Vec<Tensor>> {
        if self.tape.is_none() {
            return f(self, &inputs);
        }
        let off = Self {
            tape: None,
            ..*self
        };
        let mut outputs = f(&off, &inputs)?;
        let keys: Vec<_> = outputs.iter_mut().map(|y| self.output(y)).collect();
        let (math, wide) = (self.math, self.wide);
        self.record(move |grads| {
            let seeds: Vec<_> = keys.iter().map(|key| grads.take(*key)).collect();
            if seeds.iter().all(Option::is_none) {
                return Ok(());
            }
            let inner = grads.tape();
            let cx = Cx {
                tape: Some(&inner),
                math,
                wide,
            };
            let leaf = |x: &Tensor| match &x.origin {
                Some(Origin::Node(_)) => {
                    let (leaf, key) = cx.leaf(x);
                    (leaf, Some(key))
                }
                _ => (x.clone(), None),
            };
            let (leaves, leaf_keys): (Vec<_>, Vec<_>) = inputs.iter().map(leaf).unzip();
            let outputs = f(&cx, &leaves)?;
            drop(leaves);
            for (output, seed) in outputs.iter().zip(seeds) {
                if let Some(seed) = seed {
                    grads.add(output, seed.cast(output.dtype())?)?;
                }
            }
            drop(outputs);
            grads.walk(inner)?;
            for (input, key) in inputs.iter().zip(leaf_keys) {
                if let Some(g) = key.and_then(|key| grads.take(key)) {
                    grads.add(input, g)?;
                }
            }
            Ok(())
        });
        Ok(outputs)
    }
}

impl Grads<'_> {
    /// A tape within the backward pass, whose values have numbers of their own.
    fn tape(&self) -> Tape {
        let tape = Tape::new();
        tape.next.set(self.next);
        tape
    }

    /// Goes through the rules of a tape, the last first.
    pub(super) fn walk(&mut self, tape: Tape) -> Result<()> {
        self.next = self.next.max(tape.next.get());
        let mut steps = tape.steps.into_inner();
        while let Some(step) = steps.pop() {
            step(self)?;
        }
        Ok(())
    }
}
