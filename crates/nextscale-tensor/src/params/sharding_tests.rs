use super::*;
use crate::ops::optimizer::is_within;
use crate::ops::testing::{self, gpu};
use crate::ops::{AdamW, Decay, Moments, Scaling, Steps, StepsProgress, average};
use crate::params::Layout;
use crate::{Cx, DType, GradBuffer, Params, ParamsBuilder, Tape, ops};
use std::sync::{Barrier, Mutex};

/// Standard normal numbers; `lane` names the sequence.
fn random(n: usize, lane: u64) -> Vec<f32> {
    testing::random([n], lane).f32().unwrap().to_vec()
}

/// Processes as threads, which exchange by way of the CPU's memory.
#[derive(Debug)]
struct Thread {
    rank: usize,
    meeting: Arc<Meeting>,
}

#[derive(Debug)]
struct Meeting {
    size: usize,
    barrier: Barrier,
    brought: Mutex<Vec<Vec<f32>>>,
    doubles: Mutex<Vec<f64>>,
}

impl Meeting {
    fn new(size: usize) -> Arc<Self> {
        Arc::new(Self {
            size,
            barrier: Barrier::new(size),
            brought: Mutex::new(vec![Vec::new(); size]),
            doubles: Mutex::new(vec![0.0; size]),
        })
    }
}

impl Thread {
    /// What all bring, by rank.
    fn all(&self, own: Vec<f32>) -> Vec<Vec<f32>> {
        let m = &self.meeting;
        m.brought.lock().unwrap()[self.rank] = own;
        m.barrier.wait();
        let all = m.brought.lock().unwrap().clone();
        m.barrier.wait();
        all
    }

    /// A move of a range of one array.
    fn make(&self, one: &Move, range: impl Fn(Range<usize>) -> Vec<f32>) -> (usize, Vec<f32>) {
        let (from, each, size) = match one {
            Move::Sum(r) => (r.start, r.len(), 1),
            Move::SumShares { from, each } | Move::GatherShares { from, each } => {
                (*from, *each, self.meeting.size)
            }
        };
        let all = self.all(range(from..from + size * each));
        let sum = |at: usize| {
            let mut of = all.iter().map(|x| x[at]);
            let first = of.next().unwrap();
            of.fold(first, |a, b| a + b)
        };
        match one {
            Move::Sum(_) => (from, (0..each).map(sum).collect()),
            Move::SumShares { .. } => {
                // Others' shares are spoilt, as they may be.
                let own = self.rank * each..(self.rank + 1) * each;
                let spoilt = |at| if own.contains(&at) { sum(at) } else { f32::NAN };
                (from, (0..size * each).map(spoilt).collect())
            }
            Move::GatherShares { .. } => {
                let of = |rank: usize| all[rank][rank * each..][..each].to_vec();
                (from, (0..size).flat_map(of).collect())
            }
        }
    }
}

impl Exchange for Thread {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.meeting.size
    }

    fn exchange(&self, values: Values<'_>, moves: &[Move]) -> Result<()> {
        match values {
            Values::Cpu(values) => {
                for one in moves {
                    let (at, got) = self.make(one, |r| values[r].to_vec());
                    values[at..at + got.len()].copy_from_slice(&got);
                }
            }
            Values::Gpu(values) => {
                for one in moves {
                    let part = |r: Range<usize>| values.narrow(r.start, r.len()).unwrap();
                    let read = |r| part(r).to(Device::Cpu).unwrap().f32().unwrap().to_vec();
                    let (at, got) = self.make(one, read);
                    let there = Tensor::from_slice([got.len()], &got).to(values.device())?;
                    copy(&there.cast(values.dtype())?, &part(at..at + got.len()))?;
                }
            }
        }
        Ok(())
    }

    fn join(&self) -> Result<()> {
        Ok(())
    }

    fn sum(&self, number: Number<'_>) -> Result<()> {
        let words = |x: f64| {
            let bits = x.to_bits();
            vec![bits as u32 as i32, (bits >> 32) as u32 as i32]
        };
        let own = match &number {
            Number::Cpu(x) => **x,
            Number::Gpu(t) => {
                let here = t.to(Device::Cpu)?;
                let w = here.i32()?;
                f64::from_bits(u64::from(w[0] as u32) | u64::from(w[1] as u32) << 32)
            }
        };
        let m = &self.meeting;
        m.doubles.lock().unwrap()[self.rank] = own;
        m.barrier.wait();
        let sum = m.doubles.lock().unwrap().iter().sum();
        m.barrier.wait();
        match number {
            Number::Cpu(x) => *x = sum,
            Number::Gpu(t) => t.write_i32(&words(sum))?,
        }
        Ok(())
    }
}

/// Runs `body` in as many threads as there are to be processes.
fn in_threads<T: Send>(size: usize, body: impl Fn(Arc<dyn Exchange>) -> T + Sync) -> Vec<T> {
    let meeting = Meeting::new(size);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..size)
            .map(|rank| {
                let meeting = Arc::clone(&meeting);
                let body = &body;
                scope.spawn(move || body(Arc::new(Thread { rank, meeting })))
            })
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    })
}

/// Parameters of every kind: small, a matrix of products, large with a rest, a large convolution.
fn params(device: Device, half: Option<DType>) -> Params {
    let mut b = ParamsBuilder::new();
    b.part();
    b.add("small", [5], Layout::Same);
    // Two in one run: a share ends within one of them.
    b.add_operand("matrix", [160, 128]);
    b.add_operand("second", [144, 128]);
    b.add("tiny", [3], Layout::Same);
    b.part();
    b.add("large", [20_003], Layout::Same);
    b.add("larger", [16_500], Layout::Same);
    b.add("last", [33], Layout::Same);
    b.part();
    b.add("conv", [64, 32, 3, 3], Layout::Conv);
    let mut params = b.build(true);
    for (i, info) in params.infos().to_vec().into_iter().enumerate() {
        let values = random(info.shape.numel(), i as u64);
        params.import(&info.name, &values).unwrap();
    }
    params.to_device(device, half).unwrap();
    params
}

/// The gradients of one process in one step.
fn gradients(params: &Params, rank: usize, step: usize) -> GradBuffer {
    let mut grads = params.buffer().unwrap();
    for (i, info) in params.infos().iter().enumerate() {
        let values = random(info.shape.numel(), (1000 * step + 100 * rank + i) as u64);
        grads.import(info, &values).unwrap();
    }
    grads
}

fn hyper(clip: Option<f64>) -> AdamW {
    AdamW {
        lr: 0.01,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.1,
        clip,
    }
}

/// All numbers after some steps: weights, both moments, the average; the norms; and the copy in half precision.
#[derive(Debug, Default)]
struct After {
    all: Vec<(String, Vec<f32>)>,
    norms: Vec<f64>,
    half: Vec<f32>,
}

const STEPS: usize = 3;

/// Trains as one of the processes, or without `exchange` as one that has the sums of `size`.
fn train(
    (device, half): (Device, Option<DType>),
    clip: Option<f64>,
    size: usize,
    exchange: Option<Arc<dyn Exchange>>,
) -> After {
    let mut params = params(device, half);
    if let Some(exchange) = &exchange {
        params.share_out(Arc::clone(exchange)).unwrap();
    }
    let mut decayed: Vec<Decay> = params
        .infos()
        .iter()
        .map(|i| (i.range(), if i.shape.dims().len() > 1 { 1.0 } else { 0.0 }))
        .collect();
    decayed.sort_by_key(|(range, _)| range.start);
    let scaling = (half == Some(DType::F16)).then(|| Scaling {
        scale: 2.0,
        ..Scaling::default()
    });
    let progress = StepsProgress {
        updates: 0,
        scaling,
    };
    let mut steps = Steps::new(&params, decayed, progress).unwrap();
    let mut m = params.update_buffer().unwrap();
    let mut v = params.update_buffer().unwrap();
    let mut kept = params.update_buffer().unwrap();
    let mut after = After::default();
    for step in 0..STEPS {
        let mut grads = match &exchange {
            Some(exchange) => {
                let mut grads = gradients(&params, exchange.rank(), step);
                let sharding = params.sharding().unwrap();
                for part in params.parts() {
                    let moves = sharding.sums(part);
                    let values = match device {
                        Device::Cpu => Values::Cpu(grads.cpu_mut().unwrap()),
                        Device::Cuda(_) => Values::Gpu(&grads.on_gpu().unwrap()),
                    };
                    exchange.exchange(values, &moves).unwrap();
                }
                grads
            }
            None => {
                let mut sum = gradients(&params, 0, step);
                for info in params.infos() {
                    let mut total = sum.export(info).unwrap();
                    for rank in 1..size {
                        let more = gradients(&params, rank, step).export(info).unwrap();
                        total.iter_mut().zip(more).for_each(|(a, b)| *a += b);
                    }
                    sum.import(info, &total).unwrap();
                }
                sum
            }
        };
        let mut buffers = Moments {
            grads: &mut grads,
            exp_avg: &mut m,
            exp_avg_sq: &mut v,
        };
        let numbers = steps.step(&mut params, &mut buffers, &hyper(clip)).unwrap();
        average(&mut kept, &params, if step == 0 { 0.0 } else { 0.5 }).unwrap();
        after.norms.push(numbers.read().unwrap().norm);
        for info in params.infos() {
            let zero = grads.export(info).unwrap();
            assert!(zero.iter().all(|g| *g == 0.0), "{}", info.name);
        }
    }
    for round in ["", "exchanged ", "back "] {
        for info in params.infos() {
            let mut push = |what: &str, values| {
                after
                    .all
                    .push((format!("{round}{what}{}", info.name), values));
            };
            push("", params.export(&info.name).unwrap());
            push("m ", m.export(info).unwrap());
            push("v ", v.export(info).unwrap());
            push("average ", kept.export(info).unwrap());
        }
        if let Some(half) = params.half() {
            let half = half.to(Device::Cpu).unwrap();
            for info in params.infos() {
                let part = half.narrow(info.offset, info.shape.numel()).unwrap();
                after.half.extend_from_slice(part.f32().unwrap());
            }
        }
        params.swap(&mut kept).unwrap();
    }
    after
}

fn kinds() -> Vec<(Device, Option<DType>)> {
    let mut all = Vec::new();
    all.push((Device::Cpu, None));
    if let Some(gpu) = gpu() {
        let halves = [None, Some(DType::Bf16), Some(DType::F16)];
        all.extend(halves.map(|half| (gpu, half)));
    }
    all
}

#[test]
fn processes_with_shares_train_as_one() {
    for kind in kinds() {
        for size in [1, 2, 3] {
            for clip in [None, Some(3.0)] {
                let want = train(kind, clip, size, None);
                for got in in_threads(size, |e| train(kind, clip, size, Some(e))) {
                    assert_eq!(got.all.len(), want.all.len());
                    for (a, b) in got.norms.iter().zip(&want.norms) {
                        assert!((a / b - 1.0).abs() < 1e-7, "{a} {b}");
                    }
                    for ((name, got), (_, want)) in got.all.iter().zip(&want.all) {
                        let same = got.iter().zip(want).all(|(a, b)| match clip {
                            None => a.to_bits() == b.to_bits(),
                            Some(_) => (a - b).abs() <= 1e-6 * b.abs().max(1e-3),
                        });
                        assert!(same, "{kind:?} {size} {clip:?} {name}");
                    }
                    if clip.is_none() {
                        assert_eq!(got.half, want.half, "{kind:?} {size}");
                    }
                }
            }
        }
    }
}

#[test]
fn what_is_loaded_comes_out_again() {
    for kind in kinds() {
        in_threads(3, |exchange| {
            let mut params = params(kind.0, kind.1);
            params.share_out(exchange).unwrap();
            let mut moments = params.update_buffer().unwrap();
            for (i, info) in params.infos().to_vec().into_iter().enumerate() {
                let values = random(info.shape.numel(), 50 + i as u64);
                params.import(&info.name, &values).unwrap();
                moments.import(&info, &values).unwrap();
                assert_eq!(params.export(&info.name).unwrap(), values);
                assert_eq!(moments.export(&info).unwrap(), values);
                if let Some(half) = params.half() {
                    let part = half.narrow(info.offset, values.len()).unwrap();
                    let flat = order_of(&info, &values);
                    let want = Tensor::from_vec([values.len()], flat).to(kind.0).unwrap();
                    let want = want.cast(kind.1.unwrap()).unwrap().to(Device::Cpu).unwrap();
                    let got = part.to(Device::Cpu).unwrap();
                    assert_eq!(got.f32().unwrap(), want.f32().unwrap(), "{}", info.name);
                }
            }
            assert!(params.to_device(Device::Cpu, None).is_err());
        });
    }
}

fn order_of(info: &ParamInfo, values: &[f32]) -> Vec<f32> {
    super::super::order::as_flat(info, values)
        .unwrap()
        .into_owned()
}

#[test]
fn a_matrix_of_products_works_without_its_float32_numbers() {
    for (device, half) in kinds() {
        let Some(half) = half else { continue };
        in_threads(2, |exchange| {
            let build = || {
                let mut b = ParamsBuilder::new();
                let w = b.add_operand("w", [128, 160]);
                let bias = b.add("b", [128], Layout::Same);
                let mut p = b.build(true);
                p.import("w", &random(128 * 160, 1)).unwrap();
                p.to_device(device, Some(half)).unwrap();
                (p, w, bias)
            };
            let math = crate::Math {
                operands: half,
                tf32: true,
            };
            let pass = |(p, w, bias): &(Params, _, _)| {
                let x = Tensor::from_vec([3, 160], random(480, 2))
                    .to(device)
                    .unwrap();
                let tape = Tape::new();
                let cx = Cx::on(&tape).with(math);
                let y = ops::linear(
                    &cx,
                    &x.cast(half).unwrap(),
                    &p.get(*w),
                    ops::Bias::Full(&p.get(*bias)),
                    ops::Activation::None,
                )
                .unwrap();
                let got = y.to(Device::Cpu).unwrap().f32().unwrap().to_vec();
                let mut grads = p.buffer().unwrap();
                let seed = Tensor::from_vec([3, 128], random(384, 3))
                    .to(device)
                    .unwrap();
                let seed = seed.cast(half).unwrap();
                tape.backward_from(&y, seed, Some((p, &mut grads)), &[])
                    .unwrap();
                (got, grads.export(&p.infos()[0]).unwrap())
            };
            let want = pass(&build());
            let mut model = build();
            model.0.share_out(exchange).unwrap();
            assert_eq!(model.0.get(model.1).dtype(), half);
            assert_eq!(pass(&model), want);
            assert!(want.1.iter().any(|g| *g != 0.0));
        });
    }
}

#[test]
fn shares_are_even_and_everything_is_counted_once() {
    for size in [1, 2, 3, 7, 64] {
        let meeting = Meeting::new(size);
        let (mut counted, mut moved) = (Vec::new(), Vec::new());
        for rank in 0..size {
            let meeting = Arc::clone(&meeting);
            let mut params = params(Device::Cpu, None);
            params
                .share_out(Arc::new(Thread { rank, meeting }))
                .unwrap();
            let s = params.sharding().unwrap();
            counted.resize(params.flat_len(), 0);
            s.counted()
                .into_iter()
                .flatten()
                .for_each(|at| counted[at] += 1);
            // By parameter, as the optimizer's factors say it.
            let mut by_parameter = vec![0; params.flat_len()];
            for own in s.updated() {
                for info in params.infos() {
                    let both = common(&own, &info.range());
                    if !both.is_empty() && is_within(&both, &s.counted()) {
                        both.for_each(|at| by_parameter[at] += 1);
                    }
                }
            }
            for info in params.infos() {
                for at in info.range() {
                    let is_counted = s.counted().iter().any(|c| c.contains(&at));
                    assert_eq!(by_parameter[at] == 1, is_counted, "{} {at}", info.name);
                }
            }
            let updated: usize = s.updated().iter().map(Range::len).sum();
            let rests = 3 * 16 * size;
            assert!(updated <= params.flat_len() / size + rests + 60, "{size}");
            assert!(s.updated().iter().all(|r| r.start.is_multiple_of(16)));
            moved = params.parts().flat_map(|part| s.sums(part)).collect();
            // Everything is moved once as well.
            let mut touched = vec![0; params.flat_len()];
            for one in &moved {
                let range = match one {
                    Move::Sum(range) => range.clone(),
                    Move::SumShares { from, each } | Move::GatherShares { from, each } => {
                        *from..from + size * each
                    }
                };
                range.for_each(|at| touched[at] += 1);
            }
            for info in params.infos() {
                let once = touched[info.range()].iter().all(|n| *n == 1);
                assert!(once, "{}", info.name);
            }
            if rank + 1 == size {
                for info in params.infos() {
                    let once = counted[info.range()].iter().all(|n| *n == 1);
                    assert!(once, "{}", info.name);
                }
            }
        }
        assert!(moved.len() <= 9);
    }
}

#[test]
fn a_part_is_laid_out_by_how_it_is_shared() {
    let mut b = ParamsBuilder::new();
    let all: Vec<_> = ["a", "b", "c"]
        .into_iter()
        .flat_map(|part| {
            b.part();
            [
                b.add_operand(format!("{part}.m"), [128, 128]),
                b.add(format!("{part}.s"), [3], Layout::Same),
                b.add(format!("{part}.l"), [20_000], Layout::Same),
                b.add_operand(format!("{part}.n"), [128, 129]),
            ]
        })
        .collect();
    let mut params = b.build(true);
    let before: Vec<_> = params.parts().collect();
    for (i, info) in params.infos().to_vec().into_iter().enumerate() {
        let values = random(info.shape.numel(), i as u64);
        params.import(&info.name, &values).unwrap();
    }
    let parts: Vec<_> = params.parts().collect();
    for (half, order) in [(true, ["s", "l", "m", "n"]), (false, ["s", "m", "l", "n"])] {
        let (offsets, len) = lay_out(params.infos(), &parts, half);
        for (part, name) in ["a", "b", "c"].into_iter().enumerate() {
            let mut inside: Vec<_> = (0..12).filter(|i| i / 4 == part).collect();
            inside.sort_by_key(|&i| offsets[i]);
            let names = inside.iter().map(|&i| &params.infos()[i].name);
            assert!(
                names.eq(order.map(|n| format!("{name}.{n}")).iter()),
                "{half}"
            );
            assert!(inside.iter().all(|&i| parts[part].contains(&offsets[i])));
        }
        assert!(len.abs_diff(params.flat_len()) < 16);
    }
    let meeting = Meeting::new(1);
    params
        .share_out(Arc::new(Thread { rank: 0, meeting }))
        .unwrap();
    let cuts = |parts: &[Range<usize>]| parts.iter().map(|p| p.start).collect::<Vec<_>>();
    assert_eq!(cuts(&params.parts().collect::<Vec<_>>()), cuts(&before));
    for (i, id) in all.into_iter().enumerate() {
        let info = &params.infos()[i];
        let want = random(info.shape.numel(), i as u64);
        assert_eq!(params.get(id).f32().unwrap(), want);
        assert_eq!(params.export(&info.name).unwrap(), want);
    }
}
