//! Times of a transformer block's operators and of the optimizer on a GPU, beside what memory and the matrix unit allow:
//! `cargo run --release -p nextscale-tensor --example block_speed [rows of 680 tokens]`

mod timing;

use nextscale_tensor::cuda::matmul::{DevicePtr, Epilogue, Operands, Product};
use nextscale_tensor::cuda::{DeviceBuffer, Gpu};
use nextscale_tensor::ops::{
    self, Activation, AdamW, Bias, FeedForward, Gate, Modulation, Moments, Steps, StepsProgress,
};
use nextscale_tensor::params::Layout;
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{
    Cx, DType, Device, GradBuffer, Math, ParamId, Params, ParamsBuilder, Result, Tape, Tensor,
};

const L: usize = 680;
const C: usize = 1024;
const MATH: Math = Math {
    operands: DType::Bf16,
    tf32: false,
};

fn gpu() -> Result<&'static Gpu> {
    Ok(Device::Cuda(0).gpu()?.expect("a GPU"))
}

/// A few rows of random numbers again and again.
fn random(dims: &[usize], size: f32, dtype: DType) -> Result<Tensor> {
    let mut s = Stream::new(1, Purpose::Test, 0, dims.len() as u64);
    let some: Vec<f32> = (0..37 * 1031).map(|_| size * s.normal()).collect();
    let n = dims.iter().product();
    let x = some.iter().copied().cycle().take(n).collect();
    Tensor::from_vec(dims, x).to(Device::Cuda(0))?.cast(dtype)
}

/// Milliseconds a call, the best of 4 rounds.
fn time(runs: usize, f: impl FnMut() -> Result<()>) -> Result<f64> {
    timing::fastest(4, runs, f)
}

fn show(what: &str, ms: f64, bytes: f64, flops: f64) {
    println!(
        "{what:44} {ms:8.3} ms  {:5.2} TB/s  {:6.0} TFLOP/s",
        bytes / ms / 1e9,
        flops / ms / 1e9
    );
}

/// Products with what follows them, as the library does it.
fn products(m: usize) -> Result<()> {
    let bf16 = |n: usize| -> Result<DeviceBuffer> {
        let mut s = Stream::new(2, Purpose::Test, 0, n as u64);
        let some: Vec<u8> = (0..37 * 1031)
            .flat_map(|_| ((s.normal().to_bits() >> 16) as u16).to_le_bytes())
            .collect();
        let b = DeviceBuffer::new(gpu()?, 2 * n)?;
        let mut there = some.len().min(2 * n);
        gpu()?.upload(&some[..there], &b)?;
        while there < 2 * n {
            let more = there.min(2 * n - there);
            gpu()?.copy(DevicePtr(&b, 0), DevicePtr(&b, there), more)?;
            there += more;
        }
        Ok(b)
    };
    let kinds = [
        ("qkv", m, 3 * C, C, false, true, Epilogue::Plain),
        ("qkv, bias", m, 3 * C, C, false, true, Epilogue::Bias),
        ("fc1", m, 4 * C, C, false, true, Epilogue::Plain),
        ("fc1, bias", m, 4 * C, C, false, true, Epilogue::Bias),
        (
            "fc1, bias, GELU",
            m,
            4 * C,
            C,
            false,
            true,
            Epilogue::BiasGeluOnly,
        ),
        (
            "fc1, bias, GELU and sum",
            m,
            4 * C,
            C,
            false,
            true,
            Epilogue::BiasGelu,
        ),
        ("fc2", m, C, 4 * C, false, true, Epilogue::Plain),
        ("fc2, bias", m, C, 4 * C, false, true, Epilogue::Bias),
        ("fc2 input", m, 4 * C, C, false, false, Epilogue::Plain),
        (
            "fc2 input, slope",
            m,
            4 * C,
            C,
            false,
            false,
            Epilogue::GeluSlope,
        ),
        ("qkv weights", 3 * C, C, m, true, false, Epilogue::Plain),
        (
            "qkv weights, sums",
            3 * C,
            C,
            m,
            true,
            false,
            Epilogue::RowSums,
        ),
    ];
    for (what, m, n, k, a_transposed, b_transposed, epilogue) in kinds {
        let weights = a_transposed;
        let p = Product {
            m,
            n,
            k,
            operands: DType::Bf16,
            result: if weights { DType::F32 } else { DType::Bf16 },
            a_transposed,
            b_transposed,
            accumulate: weights,
            tf32: false,
            epilogue,
        };
        let (a, b) = (bf16(m * k)?, bf16(k * n)?);
        let c = DeviceBuffer::new(gpu()?, m * n * p.result.bytes())?;
        gpu()?.zero(DevicePtr(&c, 0), m * n * p.result.bytes())?;
        let vector = DeviceBuffer::new(gpu()?, m.max(n) * 4)?;
        gpu()?.zero(DevicePtr(&vector, 0), m.max(n) * 4)?;
        let has_aux = matches!(
            epilogue,
            Epilogue::BiasGelu | Epilogue::GeluSlope | Epilogue::GeluSlopeSums
        );
        let aux = DeviceBuffer::new(gpu()?, if has_aux { m * n * 2 } else { 0 })?;
        gpu()?.zero(DevicePtr(&aux, 0), aux.bytes().min(m * n * 2))?;
        let has_vector = !matches!(epilogue, Epilogue::Plain | Epilogue::GeluSlope);
        let o = Operands {
            a: DevicePtr(&a, 0),
            b: DevicePtr(&b, 0),
            c: DevicePtr(&c, 0),
            vector: has_vector.then_some(DevicePtr(&vector, 0)),
            aux: has_aux.then_some(DevicePtr(&aux, 0)),
        };
        let bytes = 2.0 * (m * k + k * n) as f64 + (m * n * p.result.bytes()) as f64;
        let flops = 2.0 * (m * n) as f64 * k as f64;
        match time(10, || Ok(gpu()?.matmul(&p, &o)?)) {
            Ok(ms) => show(what, ms, bytes, flops),
            Err(e) => println!("{what:44} {e}"),
        }
    }
    Ok(())
}

/// Runs `f` with and without its gradient; the second time includes the first.
fn both(
    params: &Params,
    grads: &mut GradBuffer,
    inputs: &[&Tensor],
    f: impl Fn(&Cx<'_>, &[Tensor]) -> Result<Tensor>,
) -> Result<(f64, f64)> {
    let off: Vec<Tensor> = inputs.iter().map(|&x| x.clone()).collect();
    let forward = time(10, || f(&Cx::off().with(MATH), &off).map(|_| ()))?;
    let up = f(&Cx::off().with(MATH), &off)?;
    let all = time(10, || {
        let tape = Tape::new();
        let cx = Cx::on(&tape).with(MATH);
        let leaves: Vec<Tensor> = inputs.iter().map(|x| cx.leaf(x).0).collect();
        let y = f(&cx, &leaves)?;
        drop(leaves);
        tape.backward_from(&y, up.clone(), Some((params, grads)), &[])
            .map(|_| ())
    })?;
    Ok((forward, all))
}

fn layers(b: usize) -> Result<()> {
    let m = b * L;
    let mut builder = ParamsBuilder::new();
    let mut add = |name: &str, n: usize, k: usize| -> [ParamId; 2] {
        [
            builder.add(format!("{name}.w"), [n, k], Layout::Same),
            builder.add(format!("{name}.b"), [n], Layout::Same),
        ]
    };
    let (proj, fc1, fc2) = (
        add("proj", C, C),
        add("fc1", 4 * C, C),
        add("fc2", C, 4 * C),
    );
    let mut params = builder.build(true);
    let infos = params.infos().to_vec();
    for info in &infos {
        let some = random(info.shape.dims(), 0.03, DType::F32)?.to(Device::Cpu)?;
        params.import(&info.name, some.f32()?)?;
    }
    params.to_device(Device::Cuda(0), Some(DType::Bf16))?;
    let mut grads = params.buffer()?;
    let x = random(&[b, L, C], 1.0, DType::Bf16)?;
    let ([wp, bp], [w1, b1], [w2, b2]) = (proj, fc1, fc2);
    let get = |id: ParamId| params.get(id);
    let mc = (m * C) as f64;
    let (forward, all) = both(&params, &mut grads, &[&x], |cx, t| {
        let bias = get(bp);
        ops::linear(cx, &t[0], &get(wp), Bias::Full(&bias), Activation::None)
    })?;
    show("linear", forward, 4.0 * mc, 2.0 * mc * C as f64);
    show(
        "linear, gradient",
        all - forward,
        12.0 * mc,
        4.0 * mc * C as f64,
    );
    let (forward, all) = both(&params, &mut grads, &[], |cx, _| {
        let bias = get(bp);
        ops::linear(
            cx,
            &x,
            &get(wp).detach(),
            Bias::Full(&bias),
            Activation::None,
        )
    })?;
    show(
        "linear, column sums of the gradient",
        all - forward,
        2.0 * mc,
        0.0,
    );
    let (forward, all) = both(&params, &mut grads, &[&x], |cx, t| {
        let (w1, b1, w2, b2) = (&get(w1), &get(b1), &get(w2), &get(b2));
        ops::feed_forward(cx, &t[0], &FeedForward { w1, b1, w2, b2 })
    })?;
    show("feed_forward", forward, 12.0 * mc, 16.0 * mc * C as f64);
    show(
        "feed_forward, gradient",
        all - forward,
        0.0,
        32.0 * mc * C as f64,
    );
    Ok(())
}

fn norms(b: usize) -> Result<()> {
    let n = (b * L * C) as f64;
    let params = ParamsBuilder::new().build(true);
    let params_there = {
        let mut p = params;
        p.to_device(Device::Cuda(0), None)?;
        p
    };
    let mut grads = params_there.buffer()?;
    let x = random(&[b, L, C], 1.0, DType::F32)?;
    let h = random(&[b, L, C], 1.0, DType::Bf16)?;
    let table = random(&[b, 6, C], 0.5, DType::F32)?;
    let (forward, all) = both(&params_there, &mut grads, &[&x, &table], |cx, t| {
        let m = Modulation {
            table: &t[1],
            scale: 2,
            shift: 4,
        };
        ops::adaptive_norm(cx, &t[0], &m, 1e-6)
    })?;
    show("adaptive_norm", forward, 6.0 * n, 0.0);
    show("adaptive_norm, gradient", all - forward, 10.0 * n, 0.0);
    let keep = Tensor::from_vec([b], vec![1.1; b]).to(Device::Cuda(0))?;
    let chain = |count: usize| {
        let (x, h, keep) = (&x, &h, &keep);
        move |cx: &Cx<'_>, t: &[Tensor]| {
            let gate = Gate {
                table: &t[0],
                slot: 0,
            };
            let next = Modulation {
                table: &t[0],
                scale: 2,
                shift: 4,
            };
            let (mut x, mut y) = (x.clone(), h.clone());
            for _ in 0..count {
                (x, y) = ops::gated_residual_norm(cx, &x, &y, &gate, Some(keep), &next, 1e-6)?;
            }
            Ok(x)
        }
    };
    let one = both(&params_there, &mut grads, &[&table], chain(1))?;
    let five = both(&params_there, &mut grads, &[&table], chain(5))?;
    show("gated_residual_norm", one.0, 12.0 * n, 0.0);
    let gradient = (five.1 - one.1) / 4.0 - one.0;
    show(
        "gated_residual_norm, gradient in a chain",
        gradient,
        22.0 * n,
        0.0,
    );
    Ok(())
}

fn optimizer() -> Result<()> {
    let mut builder = ParamsBuilder::new();
    for i in 0..310 {
        builder.add(format!("p{i}"), [1 << 20], Layout::Same);
    }
    let mut params = builder.build(true);
    params.to_device(Device::Cuda(0), Some(DType::Bf16))?;
    let ranges = params.infos().iter().map(|i| (i.range(), 1.0)).collect();
    let mut steps = Steps::new(&params, ranges, StepsProgress::default())?;
    let mut moments = [params.buffer()?, params.buffer()?, params.buffer()?];
    let n = params.flat_len() as f64;
    let hyper = AdamW {
        lr: 1e-4,
        beta1: 0.9,
        beta2: 0.95,
        eps: 1e-8,
        weight_decay: 0.05,
        clip: Some(2.0),
    };
    let ms = time(5, || {
        let [grads, exp_avg, exp_avg_sq] = &mut moments;
        let mut buffers = Moments {
            grads,
            exp_avg,
            exp_avg_sq,
        };
        steps.step(&mut params, &mut buffers, &hyper).map(|_| ())
    })?;
    show("optimizer, 325 million parameters", ms, 38.0 * n, 0.0);
    let ms = time(5, || ops::grad_norm(&moments[0]).map(|_| ()))?;
    show("its norm alone", ms, 4.0 * n, 0.0);
    Ok(())
}

fn main() -> Result<()> {
    let b = std::env::args()
        .nth(1)
        .and_then(|a| a.parse().ok())
        .unwrap_or(96);
    norms(b)?;
    optimizer()?;
    layers(b)?;
    products(b * L)
}
