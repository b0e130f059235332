//! One body for every machine: where no GPU is there, a test says so and passes.

use super::kernel::{MEMORY, Shape};
use super::*;

/// The first GPU, or a word that the test did nothing.
pub(super) fn gpu() -> Option<&'static Gpu> {
    if count() == 0 {
        println!("skipped: no CUDA device");
        return None;
    }
    Some(Gpu::get(0).unwrap())
}

/// The room's sources, each by its name; none where tests run without them.
pub(super) fn room() -> Vec<(String, String)> {
    let built_from = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cuda");
    let places = [built_from, "crates/nextscale-tensor/src/cuda"].map(std::path::PathBuf::from);
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

pub(super) fn bytes_of(x: &[f32]) -> Vec<u8> {
    x.iter().flat_map(|v| v.to_le_bytes()).collect()
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

/// A source with the lines that call its one-line-a-call macros replaced by what they stand for.
fn expanded(source: &str) -> String {
    let source = source.replace("\\\n", " ");
    let mut out = String::new();
    let mut macros: Vec<(&str, Vec<&str>, &str)> = Vec::new();
    for line in source.lines() {
        let call = |text: &str| {
            let (name, rest) = text.split_once('(')?;
            let (args, _) = rest.split_once(')')?;
            Some((name.len(), args.len()))
        };
        if let Some(definition) = line.strip_prefix("#define ") {
            if let Some((name, args)) = call(definition) {
                let params = &definition[name + 1..name + 1 + args];
                let body = &definition[name + args + 2..];
                let params = params.split(',').map(str::trim).collect();
                macros.push((&definition[..name], params, body));
            }
            continue;
        }
        let used = macros.iter().find(|m| {
            line.strip_prefix(m.0)
                .is_some_and(|rest| rest.starts_with('('))
        });
        let Some((name, params, body)) = used else {
            out.push_str(line);
            out.push('\n');
            continue;
        };
        let args = line[name.len() + 1..]
            .trim_end()
            .trim_end_matches(';')
            .trim_end_matches(')');
        let args: Vec<&str> = args.split(',').map(str::trim).collect();
        // Words one by one, so that a parameter's name inside a longer word stays.
        let mut word = String::new();
        let mut text = String::new();
        for c in body.chars().chain([' ']) {
            if c.is_alphanumeric() || c == '_' {
                word.push(c);
                continue;
            }
            let at = params.iter().position(|p| *p == word);
            text.push_str(at.and_then(|i| args.get(i)).map_or(word.as_str(), |a| *a));
            word.clear();
            text.push(c);
        }
        out.push_str(&text.replace(" ## ", "").replace("##", ""));
        out.push('\n');
    }
    out
}

#[test]
fn every_kernel_is_declared_as_its_source_has_it() {
    for module in modules() {
        let source = expanded(module.source);
        for kernel in module.kernels {
            let start = format!(" {}(", kernel.name);
            let at = source
                .match_indices(&start)
                .find(|(at, _)| before(&source, *at).contains("__global__"));
            let (at, _) = at.unwrap_or_else(|| panic!("{} is not in {}", kernel.name, module.name));
            let args = &source[at + start.len()..];
            let args = &args[..args.find(')').unwrap()];
            let kinds: String = args
                .split(',')
                .map(|a| match a.trim().trim_start_matches("const ") {
                    a if a.contains('*') => 'p',
                    a if a.starts_with("int ") => 'i',
                    a if a.starts_with("u64 ") => 'u',
                    a if a.starts_with("float ") => 'f',
                    a if a.starts_with("__grid_constant__ TensorMap ") => 'm',
                    other => panic!("{}: what is {other}?", kernel.name),
                })
                .collect();
            assert_eq!(kinds, kernel.signature, "{}", kernel.name);
        }
    }
}

/// What stands before a place, back to the end of the statement before.
fn before(source: &str, at: usize) -> &str {
    let from = source[..at].rfind(['}', ';', '\n']).map_or(0, |i| i + 1);
    &source[from..at]
}
