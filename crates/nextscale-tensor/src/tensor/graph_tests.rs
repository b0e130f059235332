//! Captured graphs against the same work without a capture.

use crate::ops::testing::random;
use crate::{DType, Device, Error, Result, Tensor};
use nextscale_cuda::kernel::{MEMORY, Shape};
use nextscale_cuda::matmul::{Epilogue, Operands, Product};
use nextscale_cuda::{Arg, DeviceBuffer, Gpu, Kernel, Module, count};
use std::sync::atomic::{AtomicBool, Ordering};

fn gpu() -> Option<&'static Gpu> {
    if count() == 0 {
        println!("skipped: no CUDA device");
        return None;
    }
    Some(Gpu::get(0).unwrap())
}

fn there(x: &Tensor) -> Tensor {
    x.to(Device::Cuda(0)).unwrap()
}

fn bits(x: &Tensor) -> Vec<u32> {
    let x = x.to(Device::Cpu).unwrap();
    x.f32().unwrap().iter().map(|x| x.to_bits()).collect()
}

const N: usize = 192;

fn product(tf32: bool) -> Product {
    Product {
        m: N,
        n: N,
        k: N,
        operands: DType::F32,
        result: DType::F32,
        a_transposed: false,
        b_transposed: true,
        accumulate: false,
        tf32,
        epilogue: Epilogue::Plain,
    }
}

/// A few kernels with memory that comes and goes, and products.
fn chain(x: &Tensor, w: &Tensor) -> Result<Tensor> {
    let gpu = x.gpu()?;
    let mut y = x.copied()?;
    for _ in 0..3 {
        let rounded = y.cast(DType::Bf16)?.cast(DType::F32)?;
        let z = Tensor::scratch(gpu, [N, N], DType::F32)?;
        let operands = Operands {
            a: rounded.device_ptr()?,
            b: w.device_ptr()?,
            c: z.device_ptr()?,
            vector: None,
            aux: None,
        };
        gpu.matmul(&product(false), &operands)?;
        let sum = Tensor::zeros_on(Device::Cuda(0), [N, N], DType::F32)?;
        sum.add_in_place(&z)?;
        sum.add_in_place(x)?;
        y = sum;
    }
    Ok(y)
}

#[test]
fn a_replay_computes_what_the_work_does() {
    let Some(gpu) = gpu() else { return };
    let w = random([N, N], 1);
    let w = Tensor::from_vec([N, N], w.f32().unwrap().iter().map(|x| x / 14.0).collect());
    let w = there(&w);
    let inputs: Vec<Tensor> = (2..6).map(|i| there(&random([N, N], i))).collect();
    let want: Vec<_> = inputs
        .iter()
        .map(|x| bits(&chain(x, &w).unwrap()))
        .collect();
    let x = inputs[0].copied().unwrap();
    let (mut graph, y) = gpu.capture(|| chain(&x, &w)).unwrap();
    assert!(graph.bytes() >= 2 * 4 * N * N);
    // Whoever takes memory now gets none of the graph's.
    let mut others = Vec::new();
    for round in 0..40 {
        let (input, want) = (&inputs[round % 4], &want[round % 4]);
        let bytes = 4 * N * N;
        gpu.copy(input.device_ptr().unwrap(), x.device_ptr().unwrap(), bytes)
            .unwrap();
        let other = Tensor::scratch(gpu, [N, N], DType::F32).unwrap();
        let value = round as f32;
        fill(gpu, &other, value);
        graph.launch().unwrap();
        assert!(bits(&y) == *want, "replay {round}");
        others.push((other, value));
        if round % 3 == 2 {
            others.remove(0);
        }
    }
    for (other, value) in &others {
        assert!(bits(other).iter().all(|b| *b == value.to_bits()));
    }
    // The result outlives the graph.
    drop(graph);
    let other = Tensor::scratch(gpu, [N, N], DType::F32).unwrap();
    fill(gpu, &other, 1.0);
    assert!(bits(&y) == want[39 % 4]);
}

fn fill(gpu: &Gpu, t: &Tensor, value: f32) {
    let args = [
        t.arg().unwrap(),
        Arg::F32(value),
        Arg::U64(t.numel() as u64),
    ];
    let shape = Shape::pass(gpu, t.numel());
    gpu.launch(&MEMORY, "fill_f32", shape, &args).unwrap();
}

#[test]
fn memory_let_go_during_a_capture_stays_the_graphs() {
    let Some(gpu) = gpu() else { return };
    let n = 77_777;
    let data = random([n], 1);
    let x = there(&data);
    // A run without a capture loads the kernels.
    drop(x.cast(DType::Bf16).unwrap().cast(DType::F32).unwrap());
    drop(x);
    let x = there(&data);
    let (mut graph, y) = gpu
        .capture(move || -> Result<Tensor> {
            let y = x.copied()?;
            drop(x);
            Ok(y)
        })
        .unwrap();
    let others: Vec<Tensor> = (0..8)
        .map(|_| {
            let t = Tensor::scratch(gpu, [n], DType::F32).unwrap();
            fill(gpu, &t, 5.0);
            t
        })
        .collect();
    graph.launch().unwrap();
    assert!(bits(&y) == bits(&data));
    drop(others);
}

#[test]
fn what_cannot_be_captured_is_refused() {
    static NEVER: Module = Module {
        name: "never run",
        source: &["extern \"C\" __global__ void nothing(float* x) { x[0] = 1.0f; }"],
        specific: false,
        kernels: &[Kernel {
            name: "nothing",
            signature: "p",
        }],
    };
    let Some(gpu) = gpu() else { return };
    let x = there(&random([N, N], 1));
    let y = there(&random([N, N], 2));
    let fails = |work: &dyn Fn() -> Result<()>| {
        let e = gpu.capture(work).unwrap_err().to_string();
        assert!(e.contains("captured graph"), "{e}");
    };
    fails(&|| x.to(Device::Cpu).map(|_| ()));
    fails(&|| Ok(gpu.upload(&[0; 4], &DeviceBuffer::new(gpu, 4)?)?));
    fails(&|| Ok(gpu.synchronize()?));
    fails(&|| Tensor::constant_f32(gpu, &[1.25, 77.0]).map(|_| ()));
    let shape = Shape {
        grid: [1, 1, 1],
        threads: 1,
        shared: 0,
    };
    fails(&|| Ok(gpu.launch(&NEVER, "nothing", shape, &[x.arg()?])?));
    let odd = Product {
        k: N - 5,
        ..product(false)
    };
    let operands = Operands {
        a: x.device_ptr().unwrap(),
        b: y.device_ptr().unwrap(),
        c: x.device_ptr().unwrap(),
        vector: None,
        aux: None,
    };
    fails(&|| Ok(gpu.matmul(&odd, &operands)?));
    let nested = gpu.capture(|| gpu.capture(|| Ok::<_, Error>(())).map(|_| ()));
    assert!(
        nested
            .unwrap_err()
            .to_string()
            .contains("within other work")
    );
    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        gpu.capture(|| -> Result<()> { panic!("on purpose") })
    }));
    assert!(caught.is_err());
    // Afterwards everything goes on.
    gpu.synchronize().unwrap();
    assert!(!gpu.captures());
    assert!(bits(&chain(&x, &y).unwrap()).len() == N * N);
}

#[test]
fn other_threads_wait_for_a_capture() {
    let Some(gpu) = gpu() else { return };
    let (x, w) = (there(&random([N, N], 1)), there(&random([N, N], 2)));
    let want = bits(&chain(&x, &w).unwrap());
    let over = AtomicBool::new(false);
    std::thread::scope(|s| {
        for lane in 0..3 {
            let over = &over;
            s.spawn(move || {
                let (x, w) = (there(&random([N, N], lane)), there(&random([N, N], 9)));
                let want = bits(&chain(&x, &w).unwrap());
                while !over.load(Ordering::Relaxed) {
                    assert!(bits(&chain(&x, &w).unwrap()) == want);
                }
            });
        }
        for _ in 0..20 {
            let (mut graph, y) = gpu.capture(|| chain(&x, &w)).unwrap();
            graph.launch().unwrap();
            assert!(bits(&y) == want);
        }
        over.store(true, Ordering::Relaxed);
    });
}
