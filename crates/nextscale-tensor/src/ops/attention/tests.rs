use super::*;
use crate::DType;
use crate::ops::testing::{
    Role, check_cuda, check_gradients, distance, gpu, random, rounded, worst,
};

/// Attention in float64 from the definition, the whole table of scores at once.
fn naive(qkv: &Tensor, scale_mul: Option<&Tensor>, heads: usize, ends: &[usize]) -> Vec<f64> {
    let &[batch, l, width] = qkv.dims() else {
        panic!("three axes")
    };
    let (c, d) = (width / 3, width / 3 / heads);
    let x = qkv.f32().unwrap();
    let mut y = vec![0.0; batch * l * c];
    for b in 0..batch {
        for h in 0..heads {
            let row = |part: usize, i: usize| -> Vec<f64> {
                let at = (b * l + i) * width + part * c + h * d;
                let v: Vec<f64> = x[at..at + d].iter().map(|&v| f64::from(v)).collect();
                let norm = v.iter().map(|v| v * v).sum::<f64>().sqrt().max(1e-12);
                let factor = match (scale_mul, part) {
                    (_, 2) => 1.0,
                    (None, 0) => 0.25 / (d as f64).sqrt(),
                    (None, _) => 1.0,
                    (Some(s), 0) => f64::from(s.f32().unwrap()[h]).exp().min(100.0) / norm,
                    (Some(_), _) => 1.0 / norm,
                };
                v.iter().map(|v| v * factor).collect()
            };
            for i in 0..l {
                let sees = *ends.iter().find(|e| **e > i).unwrap();
                let q = row(0, i);
                let scores: Vec<f64> = (0..sees)
                    .map(|j| q.iter().zip(row(1, j)).map(|(a, b)| a * b).sum())
                    .collect();
                let most = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s - most).exp()).sum();
                for (j, s) in scores.iter().enumerate() {
                    let p = (s - most).exp() / total;
                    let at = (b * l + i) * c + h * d;
                    for (y, v) in y[at..].iter_mut().zip(row(2, j)) {
                        *y += p * v;
                    }
                }
            }
        }
    }
    y
}

/// One element a head, spread from −0.5 to far above the clamp.
fn scale_mul(heads: usize) -> Tensor {
    let s = (0..heads).map(|h| [1.386, 5.5, -0.5, 3.0][h % 4]).collect();
    Tensor::from_vec([1, heads, 1, 1], s)
}

/// Batch, heads, D, level ends.
fn cases() -> Vec<(usize, usize, usize, Vec<usize>)> {
    vec![
        (1, 1, 1, vec![1]),
        (2, 1, 5, vec![1, 3]),
        (3, 2, 64, vec![1, 5, 14, 30]),
        (2, 3, 20, vec![1, 5, 14, 30, 55, 91]),
        (1, 2, 33, vec![37]),
        (1, 4, 16, vec![1, 5, 14, 30, 55, 91, 155, 255]),
        (1, 2, 8, vec![1, 98, 301]),
        // Wider than one block of the product's inner dimension.
        (1, 1, 300, vec![2, 9, 41]),
    ]
}

#[test]
fn forward_matches_f64() {
    for (b, h, d, ends) in cases() {
        let l = *ends.last().unwrap();
        let qkv = random([b, l, 3 * h * d], l as u64);
        let s = scale_mul(h);
        for s in [None, Some(&s)] {
            let y = attention(&Cx::off(), qkv.clone(), s, h, &ends).unwrap();
            assert_eq!(y.dims(), [b, l, h * d]);
            let error = worst(y.f32().unwrap(), &naive(&qkv, s, h, &ends));
            // Scores of up to 100 carry an error of 1e-5, which is then relative in the probabilities.
            let tolerance = if s.is_some() { 5e-5 } else { 2e-6 };
            assert!(error < tolerance, "{b} {h} {d} {ends:?}: {error:e}");
        }
    }
}

#[test]
fn gradients_match_differences() {
    for (b, h, d, ends) in [
        (2, 2, 8, vec![1, 5, 14, 30]),
        (1, 1, 5, vec![1, 3]),
        (1, 2, 20, vec![7]),
        (1, 1, 16, vec![1, 55, 155]),
        (1, 1, 290, vec![3, 20]),
    ] {
        let l = *ends.last().unwrap();
        let qkv = random([b, l, 3 * h * d], 7);
        check_gradients(std::slice::from_ref(&qkv), 1e-2, 2e-3, |cx, t| {
            attention(cx, t[0].clone(), None, h, &ends)
        });
        // Below the clamp, so that every element has an influence.
        let s = (0..h).map(|h| 1.2 + 0.7 * h as f32).collect();
        let s = Tensor::from_vec([1, h, 1, 1], s);
        check_gradients(&[qkv, s], 1e-2, 2e-3, |cx, t| {
            attention(cx, t[0].clone(), Some(&t[1]), h, &ends)
        });
    }
}

/// y, and the gradients of qkv and scale_mul for a gradient of y that is y itself.
fn run(qkv: &Tensor, s: &Tensor, heads: usize, ends: &[usize]) -> [Vec<f32>; 3] {
    let tape = crate::Tape::new();
    let cx = Cx::on(&tape);
    let ((x, kx), (s, ks)) = (cx.leaf(qkv), cx.leaf(s));
    let y = attention(&cx, x.clone(), Some(&s), heads, ends).unwrap();
    let mut loss = Tensor::from_vec([1], vec![0.0]);
    let up = y.clone();
    cx.record_one(&mut loss, move |_, grads| grads.add(&up, up.detach()));
    let grads = tape.backward(&loss, 1.0, None, &[kx, ks]).unwrap();
    let take = |i: usize| grads[i].as_ref().unwrap().f32().unwrap().to_vec();
    [y.f32().unwrap().to_vec(), take(0), take(1)]
}

#[test]
fn clamped_scales_get_no_gradient() {
    let qkv = random([2, 14, 3 * 4 * 8], 3);
    let [_, dx, ds] = run(&qkv, &scale_mul(4), 4, &[1, 5, 14]);
    assert_eq!(ds[1], 0.0, "5.5 is above ln 100");
    assert!([0, 2, 3].iter().all(|&h| ds[h] != 0.0));
    assert!(dx.iter().all(|g| g.is_finite()));
    // The clamped head still passes gradients to its queries.
    assert!(dx[8..16].iter().any(|g| *g != 0.0) || dx[96 + 8..96 + 16].iter().any(|g| *g != 0.0));
    // On the bound itself the gradient passes, a step above it does not.
    let bound = 100f32.ln();
    for (s, passes) in [(bound, true), (bound + 1e-5, false)] {
        let s = Tensor::from_vec([1, 4, 1, 1], vec![s; 4]);
        let [_, _, ds] = run(&qkv, &s, 4, &[1, 5, 14]);
        assert!(ds.iter().all(|g| (*g != 0.0) == passes));
    }
}

#[test]
fn zero_rows_stay_finite() {
    // A query and a key of norm zero: divided by 1e-12, and their gradient is that of a constant divisor.
    let mut v = random([1, 5, 3 * 8], 3).f32().unwrap().to_vec();
    v[24..40].fill(0.0);
    let qkv = Tensor::from_vec([1, 5, 24], v);
    let s = scale_mul(1);
    let [y, dx, ds] = run(&qkv, &s, 1, &[1, 5]);
    assert!(worst(&y, &naive(&qkv, Some(&s), 1, &[1, 5])) < 1e-5);
    assert!(dx.iter().chain(&ds).all(|g| g.is_finite()));
    assert!(
        dx[24..32].iter().any(|g| g.abs() > 1e6),
        "the divisor is 1e-12"
    );
}

#[test]
fn cached_scales_match_the_whole_sequence() {
    for (b, h, d, ends) in cases() {
        let l = *ends.last().unwrap();
        let qkv = random([b, l, 3 * h * d], 11);
        let s = scale_mul(h);
        for s in [None, Some(&s)] {
            let whole = attention(&Cx::off(), qkv.clone(), s, h, &ends).unwrap();
            let mut cache = KvCache::new(b, h, l, d);
            let mut start = 0;
            for &end in &ends {
                let part = rows(&qkv, start, end);
                let y = attention_cached(&part, s, h, &mut cache).unwrap();
                let want = rows(&whole, start, end);
                let want: Vec<f64> = want.f32().unwrap().iter().map(|&w| f64::from(w)).collect();
                let error = worst(y.f32().unwrap(), &want);
                assert!(error < 5e-5, "{ends:?} at {start}: {error:e}");
                assert_eq!(cache.len(), end);
                start = end;
            }
            let more = random([b, 1, 3 * h * d], 12);
            assert!(attention_cached(&more, s, h, &mut cache).is_err());
            assert_eq!(cache.len(), l, "a refused call leaves the cache as it was");
            cache.clear();
            assert!(cache.is_empty() && cache.capacity() == l);
            let first = rows(&qkv, 0, ends[0]);
            attention_cached(&first, s, h, &mut cache).unwrap();
        }
    }
}

/// Tokens `start..end` of every sample.
fn rows(x: &Tensor, start: usize, end: usize) -> Tensor {
    let &[b, l, c] = x.dims() else {
        panic!("three axes")
    };
    let x = x.f32().unwrap();
    let mut out = vec![];
    for i in 0..b {
        out.extend_from_slice(&x[(i * l + start) * c..(i * l + end) * c]);
    }
    Tensor::from_vec([b, end - start, c], out)
}

#[test]
fn same_bits_for_any_number_of_threads() {
    let ends = [1, 5, 14, 30, 55, 91, 155, 255];
    let (qkv, s) = (random([3, 255, 3 * 2 * 24], 5), scale_mul(2));
    let with = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let mut cache = KvCache::new(3, 2, 255, 24);
            let cached = attention_cached(&qkv, Some(&s), 2, &mut cache).unwrap();
            (run(&qkv, &s, 2, &ends), cached.f32().unwrap().to_vec())
        })
    };
    let one = with(1);
    assert!(one == with(2) && one == with(5));
}

#[test]
fn shapes_are_checked() {
    let (qkv, s) = (random([2, 5, 24], 1), scale_mul(2));
    let cx = Cx::off();
    let call = |qkv: &Tensor, s: Option<&Tensor>, heads: usize, ends: &[usize]| {
        attention(&cx, qkv.clone(), s, heads, ends).map(|_| ())
    };
    call(&qkv, Some(&s), 2, &[1, 5]).unwrap();
    assert!(call(&qkv, Some(&s), 4, &[1, 5]).is_err());
    assert!(call(&qkv, None, 0, &[1, 5]).is_err());
    assert!(call(&qkv, None, 3, &[1, 5]).is_err());
    assert!(call(&random([5, 24], 1), None, 2, &[1, 5]).is_err());
    assert!(call(&random([2, 5, 0], 1), None, 2, &[1, 5]).is_err());
    for ends in [&[][..], &[1], &[1, 6], &[0, 5], &[3, 3, 5], &[5, 1, 5]] {
        assert!(call(&qkv, None, 2, ends).is_err(), "{ends:?}");
    }
    for (b, h, l, d) in [(1, 2, 9, 4), (2, 1, 9, 8), (2, 2, 9, 3), (2, 2, 4, 4)] {
        let mut cache = KvCache::new(b, h, l, d);
        assert!(attention_cached(&qkv, None, 2, &mut cache).is_err());
        assert!(cache.is_empty());
    }
    let none = random([2, 0, 24], 1);
    assert!(attention_cached(&none, None, 2, &mut KvCache::new(2, 2, 9, 4)).is_err());
}

/// Batch, heads, D, level ends: widths of both ways, scales that end inside tiles, long and short sequences.
fn cuda_cases() -> Vec<(usize, usize, usize, Vec<usize>)> {
    vec![
        (3, 2, 64, vec![1, 5, 14, 30]),
        (1, 2, 64, vec![128, 192]),
        (2, 3, 20, vec![1, 5, 14, 30, 55, 91]),
        (1, 2, 33, vec![37]),
        (2, 2, 128, vec![1, 5, 14, 30, 55, 91, 155]),
        (2, 1, 5, vec![1, 3]),
    ]
}

/// Sequences of many tiles: under a race checker they take minutes, so its runs leave them out by name (`_long`).
fn long_cuda_cases() -> Vec<(usize, usize, usize, Vec<usize>)> {
    vec![
        (2, 3, 64, vec![1, 5, 14, 30, 55, 91, 155, 255, 424, 680]),
        (2, 1, 64, vec![1, 98, 301]),
        (1, 1, 64, vec![65, 67, 1000]),
        (1, 2, 100, vec![1, 98, 301]),
    ]
}

#[test]
fn gpu_matches_cpu() {
    check_on_gpu(cuda_cases());
}

#[test]
fn gpu_matches_cpu_long() {
    check_on_gpu(long_cuda_cases());
}

fn check_on_gpu(cases: Vec<(usize, usize, usize, Vec<usize>)>) {
    for (b, h, d, ends) in cases {
        let l = *ends.last().unwrap();
        let qkv = (random([b, l, 3 * h * d], l as u64), Role::Activation);
        println!("{b} {h} {d} {ends:?}");
        check_cuda(std::slice::from_ref(&qkv), [1e-5, 1e-2, 2e-3], |cx, t| {
            Ok(vec![attention(cx, t[0].clone(), None, h, &ends)?])
        });
        // The second head's is clamped.
        let s = (0..h).map(|h| [1.386, 5.5, -0.5][h % 3]).collect();
        let s = (Tensor::from_vec([1, h, 1, 1], s), Role::Float32);
        check_cuda(&[qkv, s], [5e-5, 4e-2, 6e-3], |cx, t| {
            Ok(vec![attention(cx, t[0].clone(), Some(&t[1]), h, &ends)?])
        });
    }
}

#[test]
fn gpu_gives_clamped_scales_no_gradient_and_stays_finite() {
    let Some(device) = gpu() else { return };
    for (dtype, d) in [(DType::F32, 8), (DType::Bf16, 64), (DType::F16, 64)] {
        let (h, ends) = (2, [1, 5, 14]);
        let mut x = random([2, 14, 3 * h * d], 3).f32().unwrap().to_vec();
        // A query and a key of norm zero; half precision has no room for the query's gradient, which is divided by 1e-12.
        let zero = if dtype == DType::F16 { 2..3 } else { 0..3 };
        zero.for_each(|i| x[i * h * d..i * h * d + d].fill(0.0));
        let x = Tensor::from_vec([2, 14, 3 * h * d], x);
        let x = x.to(device).unwrap().cast(dtype).unwrap();
        let s = Tensor::from_vec([1, h, 1, 1], vec![5.5, 1.2])
            .to(device)
            .unwrap();
        let tape = crate::Tape::new();
        let cx = Cx::on(&tape);
        let ((x, kx), (s, ks)) = (cx.leaf(&x), cx.leaf(&s));
        let y = attention(&cx, x.clone(), Some(&s), h, &ends).unwrap();
        let mut loss = Tensor::zeros_on(device, [1], DType::F32).unwrap();
        let up = y.clone();
        cx.record_one(&mut loss, move |_, grads| grads.add(&up, up.detach()));
        let grads = tape.backward(&loss, 1.0, None, &[kx, ks]).unwrap();
        let here = |t: &Tensor| t.to(Device::Cpu).unwrap().f32().unwrap().to_vec();
        let (dx, ds) = (
            here(grads[0].as_ref().unwrap()),
            here(grads[1].as_ref().unwrap()),
        );
        assert!(here(&y).iter().chain(&dx).chain(&ds).all(|v| v.is_finite()));
        assert!(ds[0] == 0.0 && ds[1] != 0.0, "{ds:?}");
        assert!(dx[2 * h * d..3 * h * d].iter().any(|v| *v != 0.0));
    }
}

#[test]
fn gpu_cache_matches_the_whole_sequence() {
    check_cache(cuda_cases());
}

#[test]
fn gpu_cache_matches_the_whole_sequence_long() {
    let mut cases = long_cuda_cases();
    // Enough heads that keys are not cut into parts.
    cases.push((20, 16, 64, vec![1, 5, 14, 30, 55]));
    check_cache(cases);
}

fn check_cache(cases: Vec<(usize, usize, usize, Vec<usize>)>) {
    let Some(device) = gpu() else { return };
    for (b, h, d, ends) in cases {
        let l = *ends.last().unwrap();
        let s = scale_mul(h);
        let there = s.to(device).unwrap();
        for (dtype, limit) in [(DType::F32, 5e-5), (DType::Bf16, 1e-1), (DType::F16, 1e-2)] {
            let qkv = rounded(&random([b, l, 3 * h * d], 11), dtype);
            for (s, there) in [(None, None), (Some(&s), Some(&there))] {
                let whole = attention(&Cx::off(), qkv.clone(), s, h, &ends).unwrap();
                let mut cache = KvCache::on(device, dtype, [b, h, l, d]).unwrap();
                let mut start = 0;
                for &end in &ends {
                    let part = rows(&qkv, start, end).to(device).unwrap();
                    let part = part.cast(dtype).unwrap();
                    let y = attention_cached(&part, there, h, &mut cache).unwrap();
                    assert_eq!((y.dtype(), cache.len()), (dtype, end));
                    let y = y.to(Device::Cpu).unwrap();
                    let want = rows(&whole, start, end);
                    let off = distance(y.f32().unwrap(), want.f32().unwrap());
                    // Without normalisation keys are kept as they came.
                    let limit = if s.is_none() { limit / 5.0 } else { limit };
                    assert!(
                        off <= limit,
                        "{b} {h} {d} {ends:?} at {start} in {}: {off:e}",
                        dtype.name()
                    );
                    start = end;
                }
            }
        }
        let here = KvCache::new(b, h, l, d);
        let mut other = here;
        let part = random([b, 1, 3 * h * d], 1).to(device).unwrap();
        assert!(attention_cached(&part, None, h, &mut other).is_err());
    }
}

#[test]
fn only_pairs_that_see_each_other_count() {
    let ends = [1, 5, 14];
    let level = |t: usize| ends.iter().filter(|e| **e <= t).count();
    let all = (0..14).flat_map(|q| (0..14).map(move |k| (q, k)));
    let seen = all.filter(|&(q, k)| level(q) >= level(k)).count();
    assert_eq!(cuda::pairs(&ends), seen);
}

/// Queries and keys whose lengths are beyond float32 do not count as zeros.
#[test]
fn what_has_no_length_is_no_number() {
    let devices = [Some(Device::Cpu), crate::ops::testing::gpu()];
    for device in devices.into_iter().flatten() {
        for (part, dim) in [(0, 16), (1, 16), (0, 64), (1, 64)] {
            let (l, heads) = (5, 2);
            let width = heads * dim;
            let mut values = random([1, l, 3 * width], 1).f32().unwrap().to_vec();
            // The last token's first head.
            for x in &mut values[(l - 1) * 3 * width + part * width..][..dim] {
                *x *= 1e25;
            }
            let qkv = Tensor::from_vec([1, l, 3 * width], values)
                .to(device)
                .unwrap();
            let s = scale_mul(heads).to(device).unwrap();
            let types = match device {
                Device::Cpu => &[DType::F32][..],
                Device::Cuda(_) => &[DType::F32, DType::Bf16],
            };
            for dtype in types {
                let qkv = qkv.cast(*dtype).unwrap();
                let y = attention(&Cx::off(), qkv, Some(&s), heads, &[1, l]).unwrap();
                let y = y.cast(DType::F32).unwrap().to(Device::Cpu).unwrap();
                let y = y.f32().unwrap();
                let last = &y[(l - 1) * width..];
                assert!(last[..dim].iter().all(|y| y.is_nan()), "{part} {dim}");
                assert!(last[dim..].iter().all(|y| y.is_finite()), "{part} {dim}");
            }
        }
    }
}
