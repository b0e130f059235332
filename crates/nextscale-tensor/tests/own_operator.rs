//! An operator outside the crate, written with public items alone: y = a·x² with a parameter a, its kernels, its gradient and its
//! tests.

use nextscale_cuda::kernel::Shape as Launch;
use nextscale_cuda::{Arch, Arg, GpuInfo, Library, Module, Work, compile, kernels};
use nextscale_tensor::{Cx, DType, Device, Error, Result, Tape, Tensor, cuda};

static MODULE: Module = Module {
    name: "scaled_square",
    source: &[SOURCE],
    specific: false,
    kernels: kernels! {
        square: "pppu" for f32 bf16 f16;
        square_back: "pppppu" for f32 bf16 f16;
    },
};

const SOURCE: &str = r#"
template <typename T> __device__ void square(const T* x, const float* a, T* y, u64 n) {
    for (u64 i = blockIdx.x * (u64)blockDim.x + threadIdx.x; i < n; i += (u64)gridDim.x * blockDim.x) {
        float v = to_f32(x[i]);
        y[i] = from_f32<T>(*a * v * v);
    }
}

// One block: the sum for the gradient of a is taken by one thread, in order.
template <typename T> __device__ void square_back(const T* x, const float* a, const T* g, T* dx, float* da, u64 n) {
    for (u64 i = threadIdx.x; i < n; i += blockDim.x) dx[i] = from_f32<T>(2.0f * *a * to_f32(x[i]) * to_f32(g[i]));
    if (threadIdx.x != 0 || !da) return;
    float sum = 0.0f;
    for (u64 i = 0; i < n; i++) sum += to_f32(g[i]) * to_f32(x[i]) * to_f32(x[i]);
    *da += sum;
}

#define SQUARE(name, T) \
    extern "C" __global__ void square_##name(const T* x, const float* a, T* y, u64 n) { square(x, a, y, n); } \
    extern "C" __global__ void square_back_##name(const T* x, const float* a, const T* g, T* dx, float* da, u64 n) { square_back(x, a, g, dx, da, n); }
SQUARE(f32, float)
SQUARE(bf16, bf16)
SQUARE(f16, f16)
"#;

const OP: &str = "scaled square";

/// a·x², a with one element.
fn scaled_square(cx: &Cx<'_>, x: &Tensor, a: &Tensor) -> Result<Tensor> {
    if a.numel() != 1 {
        return Err(Error::shape(OP, format!("a is {}", a.shape())));
    }
    let mut y = match x.device() {
        Device::Cpu => {
            let a = a.scalar()?;
            let y = x.f32()?.iter().map(|x| a * x * x).collect();
            Tensor::from_vec(x.shape(), y)
        }
        _ => forward(x, a)?,
    };
    if cx.records(&[x, a]) {
        let (x, a) = (x.clone(), a.clone());
        cx.record_one(&mut y, move |g, grads| {
            if x.device() != Device::Cpu {
                let da = grads.sums(&a)?;
                return grads.add(&x, backward(&x, &a, &g, da.as_ref())?);
            }
            let (xs, gs, factor) = (x.f32()?, g.f32()?, a.scalar()?);
            let pairs = || xs.iter().zip(gs);
            let dx = pairs().map(|(x, g)| 2.0 * factor * x * g).collect();
            let da = pairs().map(|(x, g)| g * x * x).sum();
            grads.add(&a, Tensor::from_vec(a.shape(), vec![da]))?;
            grads.add(&x, Tensor::from_vec(x.shape(), dx))
        });
    }
    Ok(y)
}

fn forward(x: &Tensor, a: &Tensor) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let _scope = gpu.scope(OP, || Work::moving(&[x, x]));
    let y = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let a = a.arg_of(OP, DType::F32)?;
    let args = [x.arg()?, a, y.arg()?, Arg::U64(n as u64)];
    gpu.launch(&MODULE, ("square", x.dtype()), Launch::pass(gpu, n), &args)?;
    Ok(y)
}

fn backward(x: &Tensor, a: &Tensor, g: &Tensor, da: Option<&Tensor>) -> Result<Tensor> {
    let (gpu, n) = (x.gpu()?, x.numel());
    let _scope = gpu.scope("scaled square gradient", || Work::moving(&[x, g, x]));
    let dx = Tensor::scratch(gpu, x.shape(), x.dtype())?;
    let one = Launch {
        grid: [1, 1, 1],
        threads: 256,
        shared: 0,
    };
    let g = g.cast(x.dtype())?;
    let sum = da.map_or(Ok(Arg::Null), Tensor::arg)?;
    let count = Arg::U64(n as u64);
    let args = [x.arg()?, a.arg()?, g.arg()?, dx.arg()?, sum, count];
    gpu.launch(&MODULE, ("square_back", x.dtype()), one, &args)?;
    Ok(dx)
}

/// y and the gradients of x and a, on the CPU.
fn run(device: Device, dtype: DType) -> [Vec<f32>; 3] {
    let x = Tensor::from_vec([2, 3], vec![0.5, -1.0, 2.0, 3.0, -0.25, 0.0]);
    let up = Tensor::from_vec([2, 3], vec![1.0, 0.5, -1.0, 0.25, 2.0, 3.0]);
    let there = |x: &Tensor| x.to(device).unwrap();
    let tape = Tape::new();
    let cx = Cx::on(&tape);
    let x = there(&x).cast(dtype).unwrap();
    let ((x, kx), (a, ka)) = (
        cx.leaf(&x),
        cx.leaf(&there(&Tensor::from_vec([1], vec![1.5]))),
    );
    let y = scaled_square(&cx, &x, &a).unwrap();
    let up = there(&up).cast(dtype).unwrap();
    let grads = tape.backward_from(&y, up, None, &[kx, ka]).unwrap();
    let here = |t: &Tensor| t.to(Device::Cpu).unwrap().f32().unwrap().to_vec();
    let [dx, da] = [0, 1].map(|i| here(grads[i].as_ref().unwrap()));
    [here(&y), dx, da]
}

const WANT: [&[f32]; 3] = [
    &[0.375, 1.5, 6.0, 13.5, 0.09375, 0.0],
    &[1.5, -1.5, -6.0, 2.25, -1.5, 0.0],
    &[-0.875],
];

#[test]
fn it_computes_on_the_cpu() {
    assert_eq!(run(Device::Cpu, DType::F32), WANT);
}

#[test]
fn its_kernels_are_declared_as_their_source_has_them() {
    MODULE.check().unwrap();
    if Library::Nvrtc.is_there() {
        compile(&MODULE, Arch::LEAST).unwrap();
    }
}

/// A dry GPU computes nothing, but refuses what a GPU would.
#[test]
fn it_runs_dry() {
    let device = cuda::dry::device(&GpuInfo {
        ordinal: 0,
        name: "dry".into(),
        arch: Arch::LEAST,
        multiprocessors: 100,
        memory: 1 << 30,
        l2: 1 << 20,
        shared: 100 << 10,
    });
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        let found = run(device, dtype);
        assert_eq!(found.map(|v| v.len()), [6, 6, 1]);
    }
    let gpu = device.gpu().unwrap().unwrap();
    assert!(gpu.usage().peak > 0);
    let whole = Tensor::from_i32([1], vec![1]).to(device).unwrap();
    let a = Tensor::zeros([1]).to(device).unwrap();
    let e = scaled_square(&Cx::off(), &whole, &a).unwrap_err();
    assert!(matches!(e, Error::DType { found: "i32", .. }), "{e}");
}

#[test]
fn a_gpu_agrees() {
    if cuda::count() == 0 {
        println!("skipped: no CUDA device");
        return;
    }
    // All of these are numbers of either half type.
    for dtype in [DType::F32, DType::Bf16, DType::F16] {
        assert_eq!(run(Device::Cuda(0), dtype), WANT, "{}", dtype.name());
    }
}
