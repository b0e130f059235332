use super::*;
use crate::ops::{self, Activation, Bias};
use crate::params::Layout;
use crate::{ParamId, ParamsBuilder};
use nextscale_cuda as cuda;
use std::ops::Range;

/// Width of the layers: their ends fall between multiples of 16.
const WIDTH: usize = 5;

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
    let devices = [Device::Cpu, Device::Cuda(0)];
    let there = if cuda::count() == 0 { 1 } else { 2 };
    for &device in &devices[..there] {
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
