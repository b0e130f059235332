//! What operator tests share: random tensors and gradients against central differences.

use crate::rng::{Purpose, Stream};
use crate::{Cx, DType, Device, Math, Result, Shape, Tape, Tensor};
use nextscale_cuda::{Arch, Gpu, GpuInfo, dry};

/// Standard normal numbers; `lane` names the sequence.
pub(crate) fn random(shape: impl Into<Shape>, lane: u64) -> Tensor {
    let shape = shape.into();
    let mut s = Stream::new(20, Purpose::Test, 0, lane);
    Tensor::from_vec(shape, (0..shape.numel()).map(|_| s.normal()).collect())
}

/// Largest difference, relative to the magnitude of `want` where that exceeds one.
pub(crate) fn worst(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    got.iter()
        .zip(want)
        .map(|(g, w)| (f64::from(*g) - w).abs() / w.abs().max(1.0))
        .fold(0.0, |a, b| if b > a || b.is_nan() { b } else { a })
}

/// Weighs a tensor with fixed random numbers into a scalar on the tape, so that every output element has its own
/// upstream gradient.
fn weigh(cx: &Cx<'_>, y: &Tensor) -> Result<(Tensor, f64)> {
    let w = random(y.shape(), 999);
    let value: f64 = y
        .f32()?
        .iter()
        .zip(w.f32()?)
        .map(|(a, b)| f64::from(*a) * f64::from(*b))
        .sum();
    let mut s = Tensor::from_vec([1], vec![value as f32]);
    if cx.records(&[y]) {
        let y = y.clone();
        cx.record_one(&mut s, move |g, grads| {
            let seed = g.scalar()?;
            let up = w.f32()?.iter().map(|w| w * seed).collect();
            grads.add(&y, Tensor::from_vec(y.shape(), up))
        });
    }
    Ok((s, value))
}

/// Compares every input's gradient of a random projection of `f`'s output with central differences at up to 40
/// positions each. `step` is the difference's half width; `tolerance` is absolute, relative for large values.
pub(crate) fn check_gradients(
    inputs: &[Tensor],
    step: f32,
    tolerance: f64,
    f: impl Fn(&Cx<'_>, &[Tensor]) -> Result<Tensor>,
) {
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let (leaves, keys): (Vec<_>, Vec<_>) = inputs.iter().map(|x| cx.leaf(x)).unzip();
    let y = f(&cx, &leaves).unwrap();
    let (loss, _) = weigh(&cx, &y).unwrap();
    drop((leaves, y));
    let grads = tape.backward(&loss, 1.0, None, &keys).unwrap();
    let value = |inputs: &[Tensor]| {
        let off = Cx::off();
        weigh(&off, &f(&off, inputs).unwrap()).unwrap().1
    };
    for (which, (x, g)) in inputs.iter().zip(&grads).enumerate() {
        let g = g
            .as_ref()
            .unwrap_or_else(|| panic!("input {which} got no gradient"));
        let g = g.f32().unwrap();
        let n = x.numel();
        let mut nonzero = false;
        for t in 0..n.min(40) {
            let at = t * n / n.min(40);
            let moved = |delta: f32| {
                let mut v = x.f32().unwrap().to_vec();
                v[at] += delta;
                let exact = f64::from(v[at]) - f64::from(x.f32().unwrap()[at]);
                let mut all = inputs.to_vec();
                all[which] = Tensor::from_vec(x.shape(), v);
                (value(&all), exact)
            };
            let ((up, du), (down, dd)) = (moved(step), moved(-step));
            let want = (up - down) / (du - dd);
            nonzero |= want != 0.0;
            let error = (f64::from(g[at]) - want).abs() / want.abs().max(1.0);
            assert!(
                error <= tolerance,
                "input {which} element {at}: gradient {} against {want}",
                g[at]
            );
        }
        assert!(
            nonzero,
            "input {which} has no influence: the test shows nothing"
        );
    }
}

/// What an input is on a GPU: an activation comes in the type of the products, anything else in float32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Activation,
    Float32,
}

/// The first GPU, or `None` after saying that there is none.
pub(crate) fn gpu() -> Option<Device> {
    if nextscale_cuda::count() == 0 {
        println!("skipped: no CUDA device");
        return None;
    }
    super::kernels::compile_together();
    Some(Device::Cuda(0))
}

/// A dry GPU of its own, as an H200 describes itself.
pub(crate) fn dry_gpu() -> (Device, &'static Gpu) {
    let gpu = dry::gpu(&GpuInfo {
        ordinal: 0,
        name: "dry".into(),
        arch: Arch { major: 9, minor: 0 },
        multiprocessors: 132,
        memory: 139 << 30,
        l2: 50 << 20,
        shared: 227 << 10,
    });
    (Device::Cuda(gpu.info().ordinal), gpu)
}

/// Whether two runs gave the same, bit for bit.
pub(crate) fn same_bits(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

/// ‖got − want‖ / ‖want‖, not a number where any of `got` is not.
pub(crate) fn distance(got: &[f32], want: &[f32]) -> f64 {
    assert_eq!(got.len(), want.len());
    let of = |f: &dyn Fn(f64, f64) -> f64| -> f64 {
        let pairs = got.iter().zip(want);
        pairs.map(|(g, w)| f(f64::from(*g), f64::from(*w))).sum()
    };
    (of(&|g, w| (g - w) * (g - w)) / of(&|_, w| w * w).max(1e-30)).sqrt()
}

/// x rounded to a type and back.
pub(crate) fn rounded(x: &Tensor, dtype: DType) -> Tensor {
    let round = |v: &f32| match dtype {
        DType::Bf16 => half::bf16::from_f32(*v).to_f32(),
        DType::F16 => half::f16::from_f32(*v).to_f32(),
        _ => *v,
    };
    Tensor::from_vec(x.shape(), x.f32().unwrap().iter().map(round).collect())
}

/// Runs `f` with its gradients on the CPU and, in every type, on the GPU, and compares its outputs and the gradient
/// of every input by ‖difference‖/‖value‖. Inputs are rounded to the type first, so only the arithmetic differs. The limits
/// are those for float32, bf16 and fp16. Says so where there is no GPU.
pub(crate) fn check_cuda(
    inputs: &[(Tensor, Role)],
    limits: [f64; 3],
    f: impl Fn(&Cx<'_>, &[Tensor]) -> Result<Vec<Tensor>>,
) {
    let Some(device) = gpu() else { return };
    for (dtype, limit) in [DType::F32, DType::Bf16, DType::F16]
        .into_iter()
        .zip(limits)
    {
        let rounds: Vec<Tensor> = inputs.iter().map(|(x, _)| rounded(x, dtype)).collect();
        let want = outputs_and_gradients(&rounds, dtype, Device::Cpu, &f);
        let there: Vec<Tensor> = rounds
            .iter()
            .zip(inputs)
            .map(|(x, (_, role))| {
                let x = x.to(device).unwrap();
                match role {
                    Role::Activation => x.cast(dtype).unwrap(),
                    Role::Float32 => x,
                }
            })
            .collect();
        let got = outputs_and_gradients(&there, dtype, device, &f);
        let again = outputs_and_gradients(&there, dtype, device, &f);
        assert_eq!(got.len(), want.len());
        for (i, (((name, got), (_, want)), (_, again))) in
            got.iter().zip(&want).zip(&again).enumerate()
        {
            assert!(
                same_bits(got, again),
                "{name}: two runs differ in {}",
                dtype.name()
            );
            let d = distance(got, want);
            // Not a number fails too.
            assert!(
                d <= limit,
                "{name} (number {i}) in {}: off by {d:e}",
                dtype.name()
            );
        }
    }
}

/// Outputs, then the gradient of every input that got one, under fixed upstream gradients.
fn outputs_and_gradients(
    inputs: &[Tensor],
    dtype: DType,
    device: Device,
    f: &impl Fn(&Cx<'_>, &[Tensor]) -> Result<Vec<Tensor>>,
) -> Vec<(String, Vec<f32>)> {
    let tape = Tape::new();
    let cx = Cx::on(&tape).with(Math {
        operands: dtype,
        tf32: false,
    });
    let (leaves, keys): (Vec<_>, Vec<_>) = inputs.iter().map(|x| cx.leaf(x)).unzip();
    let outs = f(&cx, &leaves).unwrap();
    let here = |x: &Tensor| x.to(Device::Cpu).unwrap().f32().unwrap().to_vec();
    let mut all: Vec<(String, Vec<f32>)> = outs
        .iter()
        .enumerate()
        .map(|(i, y)| (format!("output {i}"), here(y)))
        .collect();
    if !outs.iter().any(Tensor::wants_grad) {
        return all;
    }
    let mut loss = Tensor::zeros_on(device, [1], DType::F32).unwrap();
    let ups: Vec<(Tensor, Tensor)> = outs
        .iter()
        .enumerate()
        .map(|(i, y)| {
            let up = rounded(&random(y.shape(), 999 + i as u64), dtype);
            (
                y.without_data(),
                up.to(device).unwrap().cast(y.dtype()).unwrap(),
            )
        })
        .collect();
    cx.record_one(&mut loss, move |_, grads| {
        ups.into_iter().try_for_each(|(y, up)| grads.add(&y, up))
    });
    drop((leaves, outs));
    let grads = tape.backward(&loss, 1.0, None, &keys).unwrap();
    for (i, g) in grads.iter().enumerate() {
        if let Some(g) = g {
            all.push((format!("gradient of input {i}"), here(g)));
        }
    }
    all
}
