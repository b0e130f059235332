//! Times attention at the sizes of the models: `cargo run --release -p nextscale-tensor --example attention_speed`.
//!
//! With `-- cuda [BATCH]` on a GPU, in bf16 with 16 heads and the scales of 256 px, normalisation of queries and keys included;
//! one JSON line with the fields of `benches/pytorch/gpu_attention.py`.
use nextscale_tensor::cuda::timing::Event;
use nextscale_tensor::ops::{KvCache, attention, attention_cached};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Cx, DType, Device, Result, Tape, Tensor};
use std::time::Instant;

const DIM: usize = 64;
const SIDES_256: [usize; 10] = [1, 2, 3, 4, 5, 6, 8, 10, 13, 16];

fn best(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::MAX;
    for _ in 0..60 {
        let t = Instant::now();
        f()?;
        best = best.min(t.elapsed().as_secs_f64());
    }
    Ok(best * 1e3)
}

/// The first token after every scale.
fn ends(sides: &[usize]) -> Vec<usize> {
    let sums = sides.iter().scan(0, |end, side| {
        *end += side * side;
        Some(*end)
    });
    sums.collect()
}

/// Milliseconds of the median of 20 runs in the stream, each timed for itself, after three that do not count. Each gets a qkv of
/// its own, as in a model; making it does not count.
fn median(qkv: &Tensor, mut f: impl FnMut(Tensor) -> Result<()>) -> Result<f64> {
    let gpu = Device::Cuda(0).gpu()?.expect("a GPU");
    let mut all = Vec::new();
    for i in 0..23 {
        let own = qkv.copied()?;
        let from = Event::now(gpu)?;
        f(own)?;
        let ms = from.until(&Event::now(gpu)?)?;
        if i >= 3 {
            all.push(ms);
        }
    }
    all.sort_by(f64::total_cmp);
    Ok((all[9] + all[10]) / 2.0)
}

fn on_gpu(batch: usize) -> Result<()> {
    let (heads, ends) = (16, ends(&SIDES_256));
    let (l, c) = (ends[ends.len() - 1], heads * DIM);
    let device = Device::Cuda(0);
    let name = &device.gpu()?.expect("a GPU").info().name;
    // A few numbers again and again: drawing them all takes longer than everything else.
    let random = |width: usize| -> Result<Tensor> {
        let mut s = Stream::new(1, Purpose::Test, 0, width as u64);
        let some: Vec<f32> = (0..1_000_003).map(|_| s.normal()).collect();
        let n = batch * l * width;
        let x = Tensor::from_vec(
            [batch, l, width],
            some.into_iter().cycle().take(n).collect(),
        );
        x.to(device)?.cast(DType::Bf16)
    };
    let (qkv, up) = (random(3 * c)?, random(c)?);
    let scale_mul = Tensor::from_vec([1, heads, 1, 1], vec![4f32.ln(); heads]).to(device)?;
    let forward = median(&qkv, |qkv| {
        attention(&Cx::off(), qkv, Some(&scale_mul), heads, &ends).map(drop)
    })?;
    let both = median(&qkv, |qkv| {
        let tape = Tape::new();
        let cx = Cx::on(&tape);
        let ((x, kx), (s, ks)) = (cx.leaf(&qkv), cx.leaf(&scale_mul));
        drop(qkv);
        let y = attention(&cx, x, Some(&s), heads, &ends)?;
        let wanted = [kx, ks];
        tape.backward_from(&y, up.clone(), None, &wanted)
            .map(|_| ())
    })?;
    let starts = std::iter::once(&0).chain(&ends);
    let pairs: usize = starts.zip(&ends).map(|(a, b)| (b - a) * b).sum();
    let work = (pairs * batch * heads * DIM) as f64 / 1e9;
    println!(
        "{{\"case\": \"attention_nextscale\", \"batch\": {batch}, \"heads\": {heads}, \"length\": {l}, \
         \"head_dim\": {DIM}, \"forward_ms\": {forward:.3}, \"forward_backward_ms\": {both:.3}, \
         \"forward_tflops\": {:.1}, \"forward_backward_tflops\": {:.1}, \"gpu\": \"{name}\"}}",
        4.0 * work / forward,
        14.0 * work / both
    );
    Ok(())
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    if args.next().as_deref() == Some("cuda") {
        return on_gpu(args.next().and_then(|a| a.parse().ok()).unwrap_or(96));
    }
    let sides: [&[usize]; 2] = [&[1, 2, 3, 4], &SIDES_256];
    for (batch, heads, sides) in [(16, 2, sides[0]), (1, 4, sides[1]), (4, 16, sides[1])] {
        let ends = ends(sides);
        let l = ends.last().copied().unwrap_or(0);
        let c = heads * DIM;
        let mut s = Stream::new(1, Purpose::Test, 0, 0);
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| s.normal()).collect() };
        let qkv = Tensor::from_vec([batch, l, 3 * c], random(batch * l * 3 * c));
        let up = Tensor::from_vec([batch, l, c], random(batch * l * c));
        let scale_mul = Tensor::from_vec([1, heads, 1, 1], vec![4f32.ln(); heads]);
        let forward =
            best(|| attention(&Cx::off(), qkv.clone(), Some(&scale_mul), heads, &ends).map(drop))?;
        let both = best(|| {
            let tape = Tape::new();
            let cx = Cx::on(&tape);
            let ((x, kx), (s, ks)) = (cx.leaf(&qkv), cx.leaf(&scale_mul));
            let y = attention(&cx, x, Some(&s), heads, &ends)?;
            let mut loss = Tensor::zeros([1]);
            let up = up.clone();
            cx.record_one(&mut loss, move |_, grads| grads.add(&y, up));
            tape.backward(&loss, 1.0, None, &[kx, ks]).map(|_| ())
        })?;
        let mut cache = KvCache::new(batch, heads, l, DIM);
        let parts: Vec<Tensor> = sides
            .iter()
            .map(|side| {
                let n = side * side;
                Tensor::from_vec([batch, n, 3 * c], random(batch * n * 3 * c))
            })
            .collect();
        let cached = best(|| {
            cache.clear();
            parts.iter().try_for_each(|p| {
                attention_cached(p, Some(&scale_mul), heads, &mut cache).map(|_| ())
            })
        })?;
        println!(
            "B{batch} H{heads} L{l}: forward {forward:.3} ms, with backward {both:.3} ms, all scales cached {cached:.3} ms"
        );
    }
    Ok(())
}
