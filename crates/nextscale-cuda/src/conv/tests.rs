//! Both paths of a convolution against each other, and what the operator's tests do not reach. Where no GPU is there, a test
//! says so and passes.

use super::*;
use crate::DeviceBuffer;
use crate::tests::{distance, get, gpu, put, random, same_bits};

const TYPES: [(DType, bool); 4] = [
    (DType::F32, false),
    (DType::F32, true),
    (DType::Bf16, false),
    (DType::F16, false),
];

/// Batch, height, width, inputs, outputs, kernel, stride, padding.
type Case = (usize, usize, usize, usize, usize, usize, usize, [usize; 4]);

const CASES: [Case; 9] = [
    (2, 16, 16, 32, 32, 3, 1, [1; 4]),
    (3, 8, 12, 160, 160, 3, 1, [1; 4]),
    (2, 17, 15, 64, 32, 3, 2, [0, 0, 1, 1]),
    (2, 16, 16, 160, 160, 3, 2, [0, 0, 1, 1]),
    (2, 20, 20, 3, 64, 3, 1, [1; 4]),
    (2, 20, 20, 64, 3, 3, 1, [1; 4]),
    (2, 9, 7, 40, 24, 1, 1, [0; 4]),
    (1, 11, 13, 5, 7, 5, 3, [2, 1, 0, 3]),
    (2, 16, 16, 640, 640, 3, 1, [1; 4]),
];

fn convolution(case: Case, element: DType, tf32: bool) -> Convolution {
    let (batch, h, w, inputs, outputs, kernel, stride, pad) = case;
    Convolution {
        batch,
        h,
        w,
        inputs,
        outputs,
        kh: kernel,
        kw: kernel,
        stride,
        pad,
        element,
        tf32,
    }
}

/// Numbers on a GPU.
struct Numbers(DeviceBuffer, DType);

/// Random ones of a type on the first GPU.
fn on_gpu(n: usize, element: DType, lane: u64) -> Numbers {
    let gpu = Gpu::get(0).unwrap();
    Numbers(put(gpu, &random(n, lane), element), element)
}

impl Numbers {
    fn device_ptr(&self) -> DevicePtr<'_> {
        DevicePtr(&self.0, 0)
    }

    fn here(&self) -> Vec<f32> {
        get(self.0.gpu(), &self.0, self.1)
    }
}

/// Two runs of one way are equal, and near what patches give, the third.
fn agree(outs: &[Numbers], limit: f64, what: &str) {
    let [first, again, patches] = [0, 1, 2].map(|i| outs[i].here());
    assert!(same_bits(&first, &again), "{what}: two runs differ");
    let d = distance(&first, &patches);
    assert!(d <= limit, "{what}: {d:e} apart");
}

#[test]
fn patches_and_engines_agree() {
    let Some(gpu) = gpu() else { return };
    for (dtype, tf32) in TYPES {
        for case in CASES {
            let c = convolution(case, dtype, tf32);
            let (oh, ow) = c.out();
            let (nx, ny) = (
                c.batch * c.h * c.w * c.inputs,
                c.batch * oh * ow * c.outputs,
            );
            let x = on_gpu(nx, dtype, 1);
            let w = on_gpu(c.weights(), dtype, 2);
            let (bias, residual) = (on_gpu(c.outputs, DType::F32, 3), on_gpu(ny, dtype, 4));
            let dy = on_gpu(ny, dtype, 5);
            let limit = match (dtype, tf32) {
                (DType::F32, false) => 2e-6,
                (DType::F32, true) => 2e-3,
                (DType::Bf16, _) => 6e-3,
                _ => 8e-4,
            };
            for pass in [Pass::Forward, Pass::Data, Pass::Weights] {
                // What is written, twice over; weights' gradients are added to what is there.
                let outs: Vec<Numbers> = (0..3)
                    .map(|_| match pass {
                        Pass::Forward => on_gpu(ny, dtype, 6),
                        Pass::Data => on_gpu(nx, dtype, 6),
                        Pass::Weights => on_gpu(c.weights(), DType::F32, 6),
                    })
                    .collect();
                let call = |out: &Numbers, by_patches: bool| {
                    let out = out.device_ptr();
                    let (x, w) = (x.device_ptr(), w.device_ptr());
                    let dy = dy.device_ptr();
                    let bias = bias.device_ptr();
                    let residual = residual.device_ptr();
                    let (b, r) = (Some(bias), Some(residual));
                    match (pass, by_patches) {
                        (Pass::Forward, false) => gpu.conv_forward(&c, x, w, b, r, out),
                        (Pass::Data, false) => gpu.conv_data_gradient(&c, dy, w, out),
                        (Pass::Weights, false) => gpu.conv_weight_gradient(&c, x, dy, out),
                        _ => {
                            let forward = pass == Pass::Forward;
                            let call = Call {
                                x: if pass == Pass::Data { out } else { x },
                                w: if pass == Pass::Weights { out } else { w },
                                y: if forward { out } else { dy },
                                bias: b.filter(|_| forward),
                                residual: r.filter(|_| forward),
                            };
                            columns::run(gpu, &c, pass, &call)
                        }
                    }
                    .unwrap_or_else(|e| panic!("{c:?} {pass:?}: {e}"));
                };
                call(&outs[0], false);
                call(&outs[1], false);
                call(&outs[2], true);
                agree(&outs, limit, &format!("{c:?} {pass:?}"));
            }
        }
    }
}

/// Our kernel for Hopper against patches: whole and partial tiles, more tiles than multiprocessors, several blocks of outputs.
#[test]
fn tiles_agree_with_patches() {
    let Some(gpu) = gpu() else { return };
    const SAME: [usize; 4] = [1; 4];
    let cases: [Case; 7] = [
        (1, 16, 16, 32, 160, 3, 1, SAME),
        (2, 16, 16, 160, 160, 3, 1, SAME),
        (3, 8, 12, 160, 160, 3, 1, SAME),
        (2, 33, 17, 64, 320, 3, 1, SAME),
        (1, 1, 1, 160, 160, 3, 1, SAME),
        (150, 17, 16, 32, 160, 3, 1, SAME),
        (2, 16, 16, 640, 640, 3, 1, SAME),
    ];
    let mut taken = 0;
    for (dtype, limit) in [(DType::Bf16, 6e-3), (DType::F16, 8e-4)] {
        for case in cases {
            let c = convolution(case, dtype, false);
            let (nx, ny) = (c.x_rows() * c.inputs, c.y_rows() * c.outputs);
            let (x, dy) = (on_gpu(nx, dtype, 1), on_gpu(ny, dtype, 5));
            let w = on_gpu(c.weights(), dtype, 2);
            let (bias, residual) = (on_gpu(c.outputs, DType::F32, 3), on_gpu(ny, dtype, 4));
            for (pass, added) in [
                (Pass::Forward, true),
                (Pass::Forward, false),
                (Pass::Data, false),
            ] {
                if !tiles::fit(gpu, &c, pass) {
                    continue;
                }
                taken += 1;
                let n = if pass == Pass::Data { nx } else { ny };
                let outs = [6, 6, 6].map(|lane| on_gpu(n, dtype, lane));
                for (i, out) in outs.iter().enumerate() {
                    let out = out.device_ptr();
                    let data = pass == Pass::Data;
                    let call = Call {
                        x: if data { out } else { x.device_ptr() },
                        w: w.device_ptr(),
                        y: if data { dy.device_ptr() } else { out },
                        bias: added.then(|| bias.device_ptr()),
                        residual: added.then(|| residual.device_ptr()),
                    };
                    match i {
                        2 => columns::run(gpu, &c, pass, &call),
                        _ => tiles::run(gpu, &c, pass, None, &call),
                    }
                    .unwrap_or_else(|e| panic!("{c:?} {pass:?}: {e}"));
                }
                agree(&outs, limit, &format!("{c:?} {pass:?} added {added}"));
            }
        }
    }
    if taken == 0 {
        println!("skipped: no Hopper GPU");
    }
}

/// Our kernel for weights' gradients against patches: whole and partial tiles, inputs and outputs, one share and many.
#[test]
fn weight_tiles_agree_with_patches() {
    let Some(gpu) = gpu() else { return };
    const SAME: [usize; 4] = [1; 4];
    let cases: [Case; 8] = [
        (1, 8, 16, 64, 80, 3, 1, SAME),
        (2, 16, 16, 160, 160, 3, 1, SAME),
        (3, 9, 17, 8, 80, 3, 1, SAME),
        (1, 1, 1, 160, 160, 3, 1, SAME),
        (2, 33, 15, 72, 240, 3, 1, SAME),
        (70, 17, 31, 64, 80, 3, 1, SAME),
        (5, 40, 40, 160, 320, 3, 1, SAME),
        (2, 16, 16, 640, 640, 3, 1, SAME),
    ];
    let mut taken = 0;
    for dtype in [DType::Bf16, DType::F16] {
        for case in cases {
            let c = convolution(case, dtype, false);
            if !weight_tiles::fit(gpu, &c) {
                continue;
            }
            taken += 1;
            let x = on_gpu(c.x_rows() * c.inputs, dtype, 1);
            let dy = on_gpu(c.y_rows() * c.outputs, dtype, 5);
            let outs = [6, 6, 6].map(|lane| on_gpu(c.weights(), DType::F32, lane));
            for (i, out) in outs.iter().enumerate() {
                let call = Call {
                    x: x.device_ptr(),
                    w: out.device_ptr(),
                    y: dy.device_ptr(),
                    bias: None,
                    residual: None,
                };
                match i {
                    2 => columns::run(gpu, &c, Pass::Weights, &call),
                    _ => weight_tiles::run(gpu, &c, &call),
                }
                .unwrap_or_else(|e| panic!("{c:?}: {e}"));
            }
            // Both sum the same products in float32.
            agree(&outs, 1e-4, &format!("{c:?}"));
        }
    }
    if taken == 0 {
        println!("skipped: no Hopper GPU");
    }
}

#[test]
fn rows_are_summed_and_added() {
    let Some(gpu) = gpu() else { return };
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        for (rows, columns) in [
            (1, 1),
            (7, 5),
            (1000, 160),
            (70_001, 24),
            (300, 2056),
            (65, 261),
        ] {
            let (x, y) = (
                on_gpu(rows * columns, dtype, 1),
                on_gpu(columns, DType::F32, 2),
            );
            let (before, xs) = (y.here(), x.here());
            gpu.add_row_sums(x.device_ptr(), dtype, rows, columns, y.device_ptr())
                .unwrap();
            let want: Vec<f32> = (0..columns)
                .map(|j| {
                    let sum: f64 = (0..rows).map(|i| f64::from(xs[i * columns + j])).sum();
                    (sum + f64::from(before[j])) as f32
                })
                .collect();
            let d = distance(&y.here(), &want);
            assert!(d < 1e-6, "{rows}×{columns} {dtype:?}: {d:e}");
        }
    }
}

#[test]
fn operands_that_do_not_fit_are_refused() {
    let Some(gpu) = gpu() else { return };
    let c = convolution(CASES[0], DType::F32, false);
    let small = DeviceBuffer::new(gpu, 64).unwrap();
    let ptr = DevicePtr(&small, 0);
    let e = gpu.conv_forward(&c, ptr, ptr, None, None, ptr);
    assert!(e.unwrap_err().to_string().contains("x needs 65536 bytes"));
    let empty = Convolution {
        h: 0,
        pad: [0; 4],
        ..c
    };
    let e = gpu.conv_data_gradient(&empty, ptr, ptr, ptr);
    assert!(e.unwrap_err().to_string().contains("is empty"));
}
