//! One body for every machine: where no GPU is there, a test says so and passes.

use super::*;
use crate::DType;
use crate::kernel::{MEMORY, Shape};

/// The first GPU, or a word that the test did nothing.
pub(crate) fn gpu() -> Option<&'static Gpu> {
    if count() == 0 {
        println!("skipped: no CUDA device");
        return None;
    }
    Some(Gpu::get(0).unwrap())
}

/// The crate's sources, each by its name; none where tests run without them.
pub(crate) fn room() -> Vec<(String, String)> {
    let built_from = concat!(env!("CARGO_MANIFEST_DIR"), "/src");
    let places = [built_from, "crates/nextscale-cuda/src"].map(std::path::PathBuf::from);
    let mut folders = Vec::from_iter(places.into_iter().find(|p| p.is_dir()));
    let mut out = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                out.push((path.display().to_string(), text));
            }
        }
    }
    out
}

pub(crate) fn bytes_of(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
}

/// Normal random numbers, the same for the same lane.
pub(crate) fn random(n: usize, lane: u64) -> Vec<f32> {
    let mut state = lane.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n as u64;
    // SplitMix64 (Steele, Lea and Flood 2014).
    let mut uniform = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (((z ^ (z >> 31)) >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let mut normal = || {
        let (u, v) = (uniform(), uniform());
        (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
    };
    (0..n).map(|_| normal() as f32).collect()
}

/// A number as the element type holds it.
pub(crate) fn held(x: f32, element: DType) -> f32 {
    match element {
        DType::F32 | DType::I32 => x,
        DType::Bf16 => half::bf16::from_f32(x).to_f32(),
        DType::F16 => half::f16::from_f32(x).to_f32(),
    }
}

pub(crate) fn put(gpu: &'static Gpu, x: &[f32], element: DType) -> DeviceBuffer {
    let bytes: Vec<u8> = match element {
        DType::F32 | DType::I32 => bytes_of(x),
        DType::Bf16 => x
            .iter()
            .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
            .collect(),
        DType::F16 => x
            .iter()
            .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
            .collect(),
    };
    let b = DeviceBuffer::new(gpu, bytes.len()).unwrap();
    gpu.upload(&bytes, &b).unwrap();
    b
}

pub(crate) fn get(gpu: &'static Gpu, b: &DeviceBuffer, element: DType) -> Vec<f32> {
    let mut bytes = vec![0; b.bytes()];
    gpu.download(b, &mut bytes).unwrap();
    match element {
        DType::F32 | DType::I32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|c| f32::from_le_bytes(*c))
            .collect(),
        DType::Bf16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|c| half::bf16::from_le_bytes(*c).to_f32())
            .collect(),
        DType::F16 => bytes
            .as_chunks::<2>()
            .0
            .iter()
            .map(|c| half::f16::from_le_bytes(*c).to_f32())
            .collect(),
    }
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

#[test]
fn copies_come_back() {
    let Some(gpu) = gpu() else { return };
    for n in [1usize, 3, 1000, 1_000_003] {
        let data: Vec<u8> = (0..n).map(|i| (i * 31 % 251) as u8).collect();
        let buffer = DeviceBuffer::new(gpu, n).unwrap();
        gpu.upload(&data, &buffer).unwrap();
        let mut back = vec![0; n];
        gpu.download(&buffer, &mut back).unwrap();
        assert_eq!(back, data);
        assert!(gpu.upload(&vec![0; n + 1], &buffer).is_err());
    }
}

#[test]
fn the_pool_asks_the_driver_once() {
    let Some(gpu) = gpu() else { return };
    let n = 12_345_678;
    drop(DeviceBuffer::new(gpu, n).unwrap());
    let before = gpu.usage().driver_calls;
    for _ in 0..2000 {
        let a = DeviceBuffer::new(gpu, n).unwrap();
        assert!(a.address().is_multiple_of(256));
    }
    // Other tests may ask beside this one, but not so often.
    assert!(gpu.usage().driver_calls - before < 1000);
}

#[test]
fn conversions_round_to_nearest_even() {
    let Some(gpu) = gpu() else { return };
    let mut x: Vec<f32> = (0..70_001)
        .map(|i| (i as f32 - 35_000.0) * 1.000_37e-3)
        .collect();
    x.extend([
        0.0,
        -0.0,
        65_504.0,
        1e30,
        -1e30,
        f32::INFINITY,
        1.003_906_2,
        1.011_718_8,
        6e-8,
    ]);
    let n = x.len();
    let from = DeviceBuffer::new(gpu, 4 * n).unwrap();
    let half = DeviceBuffer::new(gpu, 2 * n).unwrap();
    let back = DeviceBuffer::new(gpu, 4 * n).unwrap();
    gpu.upload(&bytes_of(&x), &from).unwrap();
    let shape = Shape::pass(gpu, n);
    let count = Arg::U64(n as u64);
    for (there, here, want) in [
        (
            "convert_f32_bf16",
            "convert_bf16_f32",
            nearest_bf16 as fn(f32) -> f32,
        ),
        ("convert_f32_f16", "convert_f16_f32", |x| {
            half::f16::from_f32(x).to_f32()
        }),
    ] {
        gpu.launch(
            &MEMORY,
            there,
            shape,
            &[Arg::In(&from), Arg::At(&half, 0), count],
        )
        .unwrap();
        gpu.launch(
            &MEMORY,
            here,
            shape,
            &[Arg::In(&half), Arg::At(&back, 0), count],
        )
        .unwrap();
        let mut bytes = vec![0; 4 * n];
        gpu.download(&back, &mut bytes).unwrap();
        for (x, b) in x.iter().zip(bytes.as_chunks::<4>().0) {
            assert_eq!(
                f32::from_le_bytes(*b).to_bits(),
                want(*x).to_bits(),
                "{there} {x}"
            );
        }
    }
}

fn nearest_bf16(x: f32) -> f32 {
    half::bf16::from_f32(x).to_f32()
}

#[test]
fn a_launch_with_other_arguments_is_refused() {
    let Some(gpu) = gpu() else { return };
    let b = DeviceBuffer::new(gpu, 64).unwrap();
    let shape = Shape::pass(gpu, 16);
    for args in [
        &[Arg::In(&b)][..],
        &[Arg::In(&b), Arg::I32(1), Arg::U64(16)],
    ] {
        assert!(gpu.launch(&MEMORY, "fill_f32", shape, args).is_err());
    }
    let good = [Arg::At(&b, 0), Arg::F32(2.5), Arg::U64(16)];
    assert!(gpu.launch(&MEMORY, "no_such_kernel", shape, &good).is_err());
    gpu.launch(&MEMORY, "fill_f32", shape, &good).unwrap();
    let mut bytes = [0; 64];
    gpu.download(&b, &mut bytes).unwrap();
    assert!(
        bytes
            .as_chunks::<4>()
            .0
            .iter()
            .all(|c| f32::from_le_bytes(*c) == 2.5)
    );
}

#[test]
fn a_missing_gpu_is_one_clear_line() {
    let e = Gpu::get(63)
        .err()
        .map(|e| e.to_string())
        .unwrap_or_default();
    assert!(e.contains("GPU 63") || e.contains("was not found"), "{e}");
    assert!(!e.contains('\n') && !e.contains("CUDA_ERROR"), "{e}");
}

#[test]
fn every_kernel_is_declared_as_its_source_has_it() {
    for module in MODULES {
        module.check().unwrap();
    }
}

#[test]
fn a_wrong_declaration_is_told() {
    const SOURCE: &[&str] = &[
        "#define ONE(T) extern \"C\" __global__ void one_##T(const T* x, int n) {}\n",
        "ONE(float)\n",
    ];
    let check = |kernels| {
        let module = Module {
            name: "test",
            source: SOURCE,
            specific: false,
            kernels,
        };
        module.check()
    };
    const RIGHT: &[Kernel] = &[Kernel::new("one_float", "pi")];
    const OTHER: &[Kernel] = &[Kernel::new("one_float", "pu")];
    const NONE: &[Kernel] = &[Kernel::new("one_half", "pi")];
    check(RIGHT).unwrap();
    for (kernels, what) in [
        (OTHER, "takes pi, not pu"),
        (NONE, "one_half is not in test"),
    ] {
        let text = check(kernels).unwrap_err().to_string();
        assert!(text.contains(what), "{text}");
    }
}
