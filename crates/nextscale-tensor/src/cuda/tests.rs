//! One body for every machine: where no GPU is there, a test says so and passes.

use super::kernel::{MEMORY, Shape};
use super::*;

/// The first GPU, or a word that the test did nothing.
fn gpu() -> Option<&'static Gpu> {
    if count() == 0 {
        println!("skipped: no CUDA device");
        return None;
    }
    Some(Gpu::get(0).unwrap())
}

fn bytes_of(x: &[f32]) -> Vec<u8> {
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
    for _ in 0..100 {
        let a = DeviceBuffer::new(gpu, n).unwrap();
        assert!(a.address().is_multiple_of(256));
    }
    // Other tests may ask beside this one, but not a hundred times.
    assert!(gpu.usage().driver_calls - before < 50);
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

mod products {
    use super::super::matmul::{Element, Follow, Operands, Place, Product};
    use super::*;
    use crate::rng::{Purpose, Stream};

    /// Standard normal numbers as the element type holds them.
    fn random(n: usize, element: Element, draw: u64) -> Vec<f32> {
        let mut s = Stream::new(5, Purpose::Init, draw, 0);
        (0..n).map(|_| held(s.normal(), element)).collect()
    }

    fn held(x: f32, element: Element) -> f32 {
        match element {
            Element::F32 => x,
            Element::Bf16 => half::bf16::from_f32(x).to_f32(),
            Element::F16 => half::f16::from_f32(x).to_f32(),
        }
    }

    fn put(gpu: &'static Gpu, x: &[f32], element: Element) -> DeviceBuffer {
        let bytes: Vec<u8> = match element {
            Element::F32 => bytes_of(x),
            Element::Bf16 => x
                .iter()
                .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
                .collect(),
            Element::F16 => x
                .iter()
                .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
                .collect(),
        };
        let b = DeviceBuffer::new(gpu, bytes.len()).unwrap();
        gpu.upload(&bytes, &b).unwrap();
        b
    }

    fn get(gpu: &'static Gpu, b: &DeviceBuffer, element: Element) -> Vec<f32> {
        let mut bytes = vec![0; b.bytes()];
        gpu.download(b, &mut bytes).unwrap();
        match element {
            Element::F32 => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|c| f32::from_le_bytes(*c))
                .collect(),
            Element::Bf16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|c| half::bf16::from_le_bytes(*c).to_f32())
                .collect(),
            Element::F16 => bytes
                .as_chunks::<2>()
                .0
                .iter()
                .map(|c| half::f16::from_le_bytes(*c).to_f32())
                .collect(),
        }
    }

    fn gelu(x: f64) -> f64 {
        0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x.powi(3))).tanh())
    }

    fn slope(x: f64) -> f64 {
        (gelu(x + 1e-5) - gelu(x - 1e-5)) / 2e-5
    }

    /// ‖got − want‖ / ‖want‖.
    fn off(got: &[f32], want: &[f64]) -> f64 {
        assert_eq!(got.len(), want.len());
        let d: f64 = got
            .iter()
            .zip(want)
            .map(|(g, w)| (f64::from(*g) - w).powi(2))
            .sum();
        let n: f64 = want.iter().map(|w| w * w).sum();
        (d / n.max(1e-30)).sqrt()
    }

    /// One product against float64; NaN fails.
    fn check(gpu: &'static Gpu, p: Product) {
        let (m, n, k) = (p.m, p.n, p.k);
        let (a, b) = (random(m * k, p.operands, 1), random(k * n, p.operands, 2));
        let (c, v) = (random(m * n, p.result, 3), random(m.max(n), p.result, 4));
        let aux = random(m * n, p.result, 5);
        let at = |i: usize, j: usize| {
            f64::from(if p.a_transposed {
                a[j * m + i]
            } else {
                a[i * k + j]
            })
        };
        let bt = |i: usize, j: usize| {
            f64::from(if p.b_transposed {
                b[j * k + i]
            } else {
                b[i * n + j]
            })
        };
        let (mut want, mut sums) = (vec![0.0; m * n], vec![0.0; m.max(n)]);
        let mut want_aux: Vec<f64> = aux.iter().map(|x| f64::from(*x)).collect();
        for i in 0..m {
            for j in 0..n {
                let mut s = if p.accumulate {
                    f64::from(c[i * n + j])
                } else {
                    0.0
                };
                s += (0..k).map(|l| at(i, l) * bt(l, j)).sum::<f64>();
                match p.follow {
                    Follow::Plain | Follow::RowSums => {}
                    Follow::Bias => s += f64::from(v[j]),
                    Follow::BiasGelu => {
                        s += f64::from(v[j]);
                        want_aux[i * n + j] = s;
                        s = gelu(s);
                    }
                    Follow::BiasGeluOnly => s = gelu(s + f64::from(v[j])),
                    Follow::GeluSlope | Follow::GeluSlopeSums => s *= slope(want_aux[i * n + j]),
                }
                want[i * n + j] = s;
                if p.follow == Follow::GeluSlopeSums {
                    sums[j] += s;
                }
            }
            if p.follow == Follow::RowSums {
                sums[i] = (0..k).map(|l| at(i, l)).sum();
            }
        }
        let (da, db) = (put(gpu, &a, p.operands), put(gpu, &b, p.operands));
        let (dc, dv) = (put(gpu, &c, p.result), put(gpu, &v, p.result));
        let daux = put(gpu, &aux, p.result);
        let vector = !matches!(p.follow, Follow::Plain | Follow::GeluSlope);
        let has_aux = matches!(
            p.follow,
            Follow::BiasGelu | Follow::GeluSlope | Follow::GeluSlopeSums
        );
        let operands = Operands {
            a: Place(&da, 0),
            b: Place(&db, 0),
            c: Place(&dc, 0),
            vector: vector.then_some(Place(&dv, 0)),
            aux: has_aux.then_some(Place(&daux, 0)),
        };
        gpu.matmul(&p, &operands)
            .unwrap_or_else(|e| panic!("{p:?}: {e}"));
        let most = match (p.operands, p.result) {
            (Element::F32, _) if p.tf32 => 1e-3,
            // The library's tanh is good to a few units in the last place.
            (_, Element::F32) if has_aux || p.follow == Follow::BiasGeluOnly => 1e-5,
            (_, Element::F32) => 2e-6,
            (_, Element::Bf16) => 5e-3,
            (_, Element::F16) => 6e-4,
        };
        let d = off(&get(gpu, &dc, p.result), &want);
        assert!(d < most, "{p:?}: {d:e}");
        if p.follow == Follow::BiasGelu {
            let d = off(&get(gpu, &daux, p.result), &want_aux);
            assert!(d < most, "{p:?} aux: {d:e}");
        }
        if matches!(p.follow, Follow::GeluSlopeSums | Follow::RowSums) {
            let len = if p.follow == Follow::RowSums { m } else { n };
            let d = off(&get(gpu, &dv, p.result)[..len], &sums[..len]);
            assert!(d < 4.0 * most, "{p:?} sums: {d:e}");
        }
    }

    #[test]
    fn products_match_f64_for_every_type_and_odd_sizes() {
        let Some(gpu) = gpu() else { return };
        for (operands, result) in [
            (Element::F32, Element::F32),
            (Element::Bf16, Element::Bf16),
            (Element::Bf16, Element::F32),
            (Element::F16, Element::F16),
            (Element::F16, Element::F32),
        ] {
            for (m, n, k) in [(64, 128, 96), (33, 7, 65), (1, 24, 40), (130, 72, 8)] {
                for (a_transposed, b_transposed, accumulate) in [
                    (false, true, false),
                    (false, false, false),
                    (true, false, true),
                ] {
                    for tf32 in [false, true] {
                        let p = Product {
                            m,
                            n,
                            k,
                            operands,
                            result,
                            a_transposed,
                            b_transposed,
                            accumulate,
                            tf32,
                            follow: Follow::Plain,
                        };
                        if !tf32 || operands == Element::F32 {
                            check(gpu, p);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_follows_a_product_matches_f64() {
        let Some(gpu) = gpu() else { return };
        for operands in [Element::F32, Element::Bf16, Element::F16] {
            for (m, n, k) in [(64, 128, 96), (40, 72, 24)] {
                for (follow, a_transposed, b_transposed) in [
                    (Follow::Bias, false, true),
                    (Follow::BiasGelu, false, true),
                    (Follow::BiasGeluOnly, false, true),
                    (Follow::GeluSlope, false, false),
                    (Follow::GeluSlopeSums, false, false),
                    (Follow::RowSums, true, false),
                ] {
                    check(
                        gpu,
                        Product {
                            m,
                            n,
                            k,
                            operands,
                            result: operands,
                            a_transposed,
                            b_transposed,
                            accumulate: false,
                            tf32: false,
                            follow,
                        },
                    );
                }
            }
        }
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let Some(gpu) = gpu() else { return };
        let b = DeviceBuffer::new(gpu, 64).unwrap();
        let p = Product {
            m: 4,
            n: 4,
            k: 5,
            operands: Element::F32,
            result: Element::F32,
            a_transposed: false,
            b_transposed: true,
            accumulate: false,
            tf32: false,
            follow: Follow::Plain,
        };
        let place = Place(&b, 0);
        let o = Operands {
            a: place,
            b: place,
            c: place,
            vector: None,
            aux: None,
        };
        assert!(
            gpu.matmul(&p, &o)
                .unwrap_err()
                .to_string()
                .contains("80 bytes")
        );
        let p = Product {
            k: 4,
            follow: Follow::Bias,
            ..p
        };
        assert!(gpu.matmul(&p, &o).is_err());
        let p = Product {
            m: 0,
            follow: Follow::Plain,
            ..p
        };
        assert!(gpu.matmul(&p, &o).is_err());
    }
}
