//! Operators on dry GPUs.

use super::testing::dry_gpu;
use super::{Activation, Bias};
use crate::{Cx, DType, Device, Error, Math, Result, Tape, Tensor, ops};
use nextscale_cuda as cuda;
use nextscale_cuda::matmul::{Epilogue, Operands, Product};

#[test]
fn operators_run_and_keep_what_their_gradients_need() {
    let (device, gpu) = dry_gpu();
    let math = Math {
        operands: DType::Bf16,
        tf32: false,
    };
    let zeros = |shape: &[usize], dtype| Tensor::zeros_on(device, shape, dtype).unwrap();
    let (rows, c) = (3000, 512);
    let (x, w, b) = (
        zeros(&[1, rows, c], DType::Bf16),
        zeros(&[c, c], DType::F32),
        zeros(&[c], DType::F32),
    );
    let tape = Tape::new();
    let cx = Cx::on(&tape).with(math);
    let (x, key) = cx.leaf(&x);
    let before = gpu.usage().used;
    let y = ops::linear(&cx, &x, &w, Bias::Full(&b), Activation::None).unwrap();
    // The result, 3,072,000 bytes, takes two grains of the pool; the rule keeps the weight in half precision.
    assert_eq!(y.dims(), [1, rows, c]);
    assert!(gpu.usage().used >= before + (4 << 20));
    let seed = zeros(&[1, rows, c], DType::Bf16);
    let grads = tape.backward_from(&y, seed, None, &[key]).unwrap();
    let dx = grads[0].as_ref().unwrap();
    assert_eq!(dx.dims(), [1, rows, c]);
    assert!(
        dx.to(Device::Cpu)
            .unwrap()
            .f32()
            .unwrap()
            .iter()
            .all(|v| *v == 0.0)
    );
    let pending = dx.copy_to_host().unwrap().wait().unwrap();
    assert_eq!(pending.numel(), rows * c);
    drop((grads, x, y));
    assert!(gpu.usage().used < gpu.usage().peak);
}

#[test]
fn what_is_captured_keeps_its_memory() {
    let (device, gpu) = dry_gpu();
    let make = || Tensor::zeros_on(device, [1 << 20], DType::F32);
    let (mut graph, out) = gpu.capture(make).unwrap();
    graph.launch().unwrap();
    assert_eq!(graph.bytes(), 4 << 20);
    drop(graph);
    assert_eq!(gpu.usage().used, 4 << 20);
    drop(out);
    assert_eq!(gpu.usage().used, 0);
}

/// A graph reads at every replay what was there before its capture, whoever has let go of it.
#[test]
fn a_graph_holds_what_it_uses() {
    let (device, gpu) = dry_gpu();
    let (part, whole) = (4 << 20, 1 << 20);
    let zeros = || Tensor::zeros_on(device, [whole], DType::F32).unwrap();
    let (read, added, weight, other) = (zeros(), zeros(), zeros(), zeros());
    let work = || -> Result<Tensor> {
        let y = read.copied()?;
        y.add_in_place(&added)?;
        let p = Product {
            m: 1024,
            n: 1024,
            k: 1024,
            operands: DType::F32,
            result: DType::F32,
            a_transposed: false,
            b_transposed: false,
            accumulate: true,
            tf32: false,
            epilogue: Epilogue::Plain,
        };
        let o = Operands {
            a: y.device_ptr()?,
            b: weight.device_ptr()?,
            c: y.device_ptr()?,
            vector: None,
            aux: None,
        };
        gpu.matmul(&p, &o)?;
        Ok(y)
    };
    let (mut graph, out) = gpu.capture(work).unwrap();
    let with_all = gpu.usage().used;
    drop((read, added, weight));
    assert_eq!(gpu.usage().used, with_all, "held for the graph");
    drop(other);
    assert_eq!(gpu.usage().used, with_all - part, "not of the graph");
    graph.launch().unwrap();
    drop((graph, out));
    assert_eq!(gpu.usage().used, 0);
}

#[test]
fn memory_of_another_gpu_is_refused() {
    let ((a, on), (b, gpu)) = (dry_gpu(), dry_gpu());
    let x = Tensor::zeros_on(a, [64], DType::F32).unwrap();
    let y = Tensor::zeros_on(b, [64], DType::F32).unwrap();
    let said = |text: String| assert!(text.contains("can't be used on GPU"), "{text}");
    let refused = |r: cuda::Result<()>| said(r.unwrap_err().to_string());
    refused(gpu.copy(x.device_ptr().unwrap(), y.device_ptr().unwrap(), 256));
    refused(gpu.copy(y.device_ptr().unwrap(), x.device_ptr().unwrap(), 256));
    refused(gpu.zero(x.device_ptr().unwrap(), 256));
    refused(gpu.upload_to(&[0; 256], x.device_ptr().unwrap()));
    refused(gpu.download_from(x.device_ptr().unwrap(), &mut [0; 256]));
    said(y.add_in_place(&x).unwrap_err().to_string());
    said(x.add_in_place(&y).unwrap_err().to_string());
    on.zero(x.device_ptr().unwrap(), 256).unwrap();
    let p = Product {
        m: 8,
        n: 8,
        k: 8,
        operands: DType::F32,
        result: DType::F32,
        a_transposed: false,
        b_transposed: false,
        accumulate: false,
        tf32: false,
        epilogue: Epilogue::Plain,
    };
    let (x, y) = (x.device_ptr().unwrap(), y.device_ptr().unwrap());
    for (a, b, c) in [(x, y, y), (y, x, y), (y, y, x)] {
        let o = Operands {
            a,
            b,
            c,
            vector: None,
            aux: None,
        };
        refused(gpu.matmul(&p, &o));
    }
}

#[test]
fn more_samples_than_a_grid_has_rows_are_one_line() {
    let device = dry_gpu().0;
    let zeros = |shape: &[usize]| Tensor::zeros_on(device, shape, DType::F32).unwrap();
    let (weight, bias) = (zeros(&[32]), zeros(&[32]));
    let norm = |samples| {
        let x = zeros(&[samples, 1, 1, 32]);
        ops::group_norm(&Cx::off(), &x, &weight, &bias, 32, 1e-6, false).map(|_| ())
    };
    norm(65_535).unwrap();
    let e = norm(65_536).unwrap_err();
    assert!(matches!(e, Error::TooMany(_)), "{e}");
    assert!(e.to_string().contains("65535"), "{e}");
}
