use super::*;
use crate::ops::{self, Activation, Bias};
use crate::params::Layout;
use crate::{ParamId, ParamsBuilder};
use nextscale_cuda as cuda;
use std::ops::Range;

/// Width of the layers: their ends fall between multiples of 16.
const WIDTH: usize = 5;

/// The CPU, and a GPU where there is one.
fn devices() -> Vec<Device> {
    let gpu = (cuda::count() > 0).then_some(Device::Cuda(0));
    std::iter::once(Device::Cpu).chain(gpu).collect()
}

/// Layers in a chain, each a part of its own.
struct Chain {
    params: Params,
    layers: Vec<(PartId, ParamId)>,
}

fn chain(layers: usize, device: Device, seed: f32) -> Chain {
    let mut b = ParamsBuilder::new();
    let layers = (0..layers)
        .map(|i| {
            let part = b.part();
            (part, b.add(format!("{i}"), [WIDTH, WIDTH], Layout::Same))
        })
        .collect();
    let mut params = b.build(true);
    for (i, w) in params.flat_mut().unwrap().iter_mut().enumerate() {
        *w = (seed * i as f32).sin();
    }
    params.to_device(device, None).unwrap();
    Chain { params, layers }
}

impl Chain {
    /// The layers applied to x, with marks for those that `marked` says.
    fn forward(&self, cx: &Cx<'_>, x: &Tensor, marked: impl Fn(usize) -> bool) -> Tensor {
        let mut x = x.clone();
        for (i, &(part, w)) in self.layers.iter().enumerate() {
            if marked(i) {
                cx.first_use(&self.params, part);
            }
            let w = self.params.get(w);
            x = ops::linear(cx, &x, &w, Bias::None, Activation::None).unwrap();
        }
        x
    }
}

fn input(device: Device) -> Tensor {
    let x = (0..2 * WIDTH).map(|i| i as f32 / 3.0 - 1.0).collect();
    Tensor::from_vec([2, WIDTH], x).to(device).unwrap()
}

fn loss(cx: &Cx<'_>, y: &Tensor) -> Tensor {
    let zeros = Tensor::zeros_on(y.device(), y.shape(), DType::F32).unwrap();
    ops::mse(cx, y, &zeros).unwrap()
}

fn one(device: Device) -> Tensor {
    Tensor::from_vec([1], vec![1.0]).to(device).unwrap()
}

/// What a sink was told: ranges with the sums of that moment.
type Told = Vec<(Range<usize>, Vec<f32>)>;

/// Runs backward and returns what was handed out, and all gradients at the end.
fn backward(tape: Tape, loss: &Tensor, params: &Params) -> (Told, Vec<f32>) {
    let (mut told, mut grads) = (Told::new(), params.buffer().unwrap());
    let mut sink = |mut part: CompletePart<'_>| {
        let sums = match params.device() {
            Device::Cpu => part.cpu_mut()?.to_vec(),
            Device::Cuda(_) => part.on_gpu()?.to(Device::Cpu)?.f32()?.to_vec(),
        };
        told.push((part.range(), sums));
        Ok(())
    };
    let target = (params, &mut grads);
    let seed = one(params.device());
    tape.backward_by_parts(loss, seed, target, &[], &mut sink)
        .unwrap();
    grads.to_device(Device::Cpu).unwrap();
    (told, grads.cpu().unwrap().to_vec())
}

/// Every part of the buffer was handed out once, with its final sums.
fn check_final(told: &Told, all: &[f32]) {
    for (range, sums) in told {
        assert_eq!(sums, &all[range.clone()], "{range:?}");
        assert!(sums.iter().any(|&g| g != 0.0), "{range:?} has no gradient");
    }
    let mut ranges: Vec<_> = told.iter().map(|(range, _)| range.clone()).collect();
    ranges.sort_by_key(|r| r.start);
    assert_eq!(ranges[0].start, 0);
    assert!(ranges.windows(2).all(|w| w[0].end == w[1].start));
    assert_eq!(ranges.last().unwrap().end, all.len());
}

fn order(told: &Told, params: &Params) -> Vec<usize> {
    let parts: Vec<_> = params.parts().collect();
    let place = |range| parts.iter().position(|p| p == range).unwrap();
    told.iter().map(|(range, _)| place(range)).collect()
}

#[test]
fn parts_are_handed_out_when_their_gradients_are_complete() {
    for device in devices() {
        let c = chain(3, device, 0.7);
        let tape = Tape::new();
        let cx = Cx::on(&tape);
        let y = c.forward(&cx, &input(device), |_| true);
        let loss = loss(&cx, &y);
        let (told, all) = backward(tape, &loss, &c.params);
        check_final(&told, &all);
        assert_eq!(order(&told, &c.params), [2, 1, 0]);
    }
}

#[test]
fn of_marks_of_one_part_the_first_counts() {
    let c = chain(3, Device::Cpu, 0.7);
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    // All layers twice: the walk comes to the second pass first, after which nothing is complete yet.
    let y = c.forward(&cx, &input(Device::Cpu), |_| true);
    let y = c.forward(&cx, &y, |_| true);
    let loss = loss(&cx, &y);
    let (told, all) = backward(tape, &loss, &c.params);
    check_final(&told, &all);
    assert_eq!(order(&told, &c.params), [2, 1, 0]);
}

#[test]
fn parts_without_a_mark_come_at_the_end_and_other_stores_never() {
    let (c, other) = (chain(4, Device::Cpu, 0.7), chain(4, Device::Cpu, 0.3));
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let y = other.forward(&cx, &input(Device::Cpu), |_| true);
    let y = c.forward(&cx, &y, |i| i == 3 || i == 1);
    let y = other.forward(&cx, &y, |_| true);
    let loss = loss(&cx, &y);
    let (told, all) = backward(tape, &loss, &c.params);
    check_final(&told, &all);
    assert_eq!(order(&told, &c.params), [3, 1, 0, 2]);
}

#[test]
fn a_sink_may_change_its_part_and_end_the_walk() {
    let c = chain(2, Device::Cpu, 0.7);
    let run = |sink: &mut dyn FnMut(CompletePart<'_>) -> Result<()>| {
        let tape = Tape::new();
        let cx = Cx::on(&tape);
        let y = c.forward(&cx, &input(Device::Cpu), |_| true);
        let mut grads = c.params.buffer().unwrap();
        let target = (&c.params, &mut grads);
        let loss = loss(&cx, &y);
        let ended = tape.backward_by_parts(&loss, one(Device::Cpu), target, &[], sink);
        ended.map(|_| grads.cpu().unwrap().to_vec())
    };
    let plain = run(&mut |_| Ok(())).unwrap();
    let doubled = run(&mut |mut part| {
        part.cpu_mut()?.iter_mut().for_each(|g| *g *= 2.0);
        Ok(())
    });
    let twice: Vec<f32> = plain.iter().map(|g| 2.0 * g).collect();
    assert_eq!(doubled.unwrap(), twice);
    let mut calls = 0;
    let refused = run(&mut |part| {
        calls += 1;
        part.on_gpu().map(|_| ())
    });
    assert!(refused.is_err());
    assert_eq!(calls, 1);
}

/// How [`doubled`] runs.
#[derive(Clone, Copy, PartialEq)]
enum Kept {
    All,
    /// Each layer is run again.
    Layer,
    /// All together are, and each layer within.
    Nested,
}

/// Layers that each hand two values on, both of which depend on both.
fn doubled(chain: &Rc<Chain>, cx: &Cx<'_>, x: &[Tensor], kept: Kept) -> Result<Vec<Tensor>> {
    if kept == Kept::Nested {
        let chain = Rc::clone(chain);
        return cx.recomputed(x.to_vec(), move |cx, x| doubled(&chain, cx, x, Kept::Layer));
    }
    let mut x = x.to_vec();
    for i in 0..chain.layers.len() {
        let layer = {
            let chain = Rc::clone(chain);
            move |cx: &Cx<'_>, x: &[Tensor]| {
                let (part, w) = chain.layers[i];
                cx.first_use(&chain.params, part);
                let w = chain.params.get(w);
                let y = ops::linear(cx, &x[0], &w, Bias::None, Activation::None)?;
                let z = ops::linear(cx, &x[1], &w, Bias::None, Activation::Gelu)?;
                Ok(vec![z, ops::silu(cx, &y)?])
            }
        };
        x = match kept {
            Kept::All => layer(cx, &x)?,
            _ => cx.recomputed(x, layer)?,
        };
    }
    Ok(x)
}

#[test]
fn what_is_run_again_has_the_same_gradients() {
    for device in devices() {
        let chain = Rc::new(chain(4, device, 0.7));
        let run = |kept| {
            let tape = Tape::new();
            let cx = Cx::on(&tape);
            let (a, key) = cx.leaf(&input(device));
            // The second input wants no gradient.
            let out = doubled(&chain, &cx, &[a, input(device)], kept).unwrap();
            let first = loss(&cx, &out[0]);
            // Another use of an output adds to its gradient.
            let both = [
                (first, 1.0),
                (loss(&cx, &out[0]), 0.5),
                (loss(&cx, &out[1]), 2.0),
            ];
            let loss = ops::weighted_sum(&cx, &both).unwrap();
            drop((out, both));
            let (mut told, mut grads) = (Vec::new(), chain.params.buffer().unwrap());
            let mut sink = |part: CompletePart<'_>| {
                told.push(part.range());
                Ok(())
            };
            let target = (&chain.params, &mut grads);
            let input = tape
                .backward_by_parts(&loss, one(device), target, &[key], &mut sink)
                .unwrap();
            grads.to_device(Device::Cpu).unwrap();
            let input = input[0].as_ref().unwrap().to(Device::Cpu).unwrap();
            let grads = grads.cpu().unwrap().to_vec();
            (input.f32().unwrap().to_vec(), grads, told)
        };
        let want = run(Kept::All);
        assert!(want.0.iter().chain(&want.1).filter(|g| **g != 0.0).count() > 50);
        assert_eq!(want.2.len(), 4);
        for kept in [Kept::Layer, Kept::Nested] {
            assert!(run(kept) == want);
        }
    }
}

#[test]
fn of_what_is_run_again_only_the_inputs_are_kept() {
    let chain = Rc::new(chain(1, Device::Cpu, 0.7));
    let runs = Rc::new(Cell::new(0));
    let (seen, inner) = (Rc::clone(&runs), Rc::clone(&chain));
    let between = Rc::new(RefCell::new(std::sync::Weak::new()));
    let made = Rc::clone(&between);
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let x = cx
        .recomputed(vec![input(Device::Cpu)], move |cx, x| {
            seen.set(seen.get() + 1);
            let w = inner.params.get(inner.layers[0].1);
            let y = ops::linear(cx, &x[0], &w, Bias::None, Activation::None)?;
            if let crate::tensor::Storage::CpuF32(buffer) = &y.storage {
                *made.borrow_mut() = Arc::downgrade(buffer);
            }
            Ok(vec![ops::silu(cx, &y)?])
        })
        .unwrap();
    assert!(between.borrow().upgrade().is_none());
    let loss = loss(&cx, &x[0]);
    assert_eq!(runs.get(), 1);
    let mut grads = chain.params.buffer().unwrap();
    tape.backward(&loss, 1.0, Some((&chain.params, &mut grads)), &[])
        .unwrap();
    assert_eq!(runs.get(), 2);
    assert!(grads.cpu().unwrap().iter().any(|g| *g != 0.0));
    // Without a tape it is run once, as anything else.
    let plain = Cx::off().recomputed(vec![input(Device::Cpu)], |cx, x| {
        Ok(vec![ops::silu(cx, &x[0])?])
    });
    assert!(!plain.unwrap()[0].wants_grad());
}

#[test]
fn what_has_no_gradient_is_not_run_again() {
    let runs = Rc::new(Cell::new(0));
    let seen = Rc::clone(&runs);
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let (x, key) = cx.leaf(&input(Device::Cpu));
    let _unused = cx
        .recomputed(vec![x.clone()], move |cx, x| {
            seen.set(seen.get() + 1);
            Ok(vec![ops::silu(cx, &x[0])?])
        })
        .unwrap();
    let loss = loss(&cx, &x);
    let got = tape.backward(&loss, 1.0, None, &[key]).unwrap();
    assert!(got[0].is_some());
    assert_eq!(runs.get(), 1);
}

#[test]
fn parts_cut_the_whole_buffer() {
    let mut b = ParamsBuilder::new();
    let first = b.part();
    assert_eq!(first, b.part(), "a part without parameters is none");
    b.add("a", [3], Layout::Same);
    let second = b.part();
    assert_ne!(first, second);
    b.add("b", [16], Layout::Same);
    b.add("c", [2], Layout::Same);
    let last = b.part();
    b.add("d", [1], Layout::Same);
    let p = b.build(true);
    let parts: Vec<_> = p.parts().collect();
    assert_eq!(parts, [0..16, 16..48, 48..49]);
    assert_eq!((first.0, second.0, last.0), (0, 1, 2));
}
