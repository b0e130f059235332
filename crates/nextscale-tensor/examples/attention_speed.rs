//! Times attention at the sizes of the models: `cargo run --release -p nextscale-tensor --example attention_speed`.
use nextscale_tensor::ops::{KvCache, attention, attention_cached};
use nextscale_tensor::rng::{Purpose, Stream};
use nextscale_tensor::{Cx, Result, Tape, Tensor};
use std::time::Instant;

const DIM: usize = 64;

fn best(mut f: impl FnMut() -> Result<()>) -> Result<f64> {
    let mut best = f64::MAX;
    for _ in 0..60 {
        let t = Instant::now();
        f()?;
        best = best.min(t.elapsed().as_secs_f64());
    }
    Ok(best * 1e3)
}

fn main() -> Result<()> {
    let sides: [&[usize]; 2] = [&[1, 2, 3, 4], &[1, 2, 3, 4, 5, 6, 8, 10, 13, 16]];
    for (batch, heads, sides) in [(16, 2, sides[0]), (1, 4, sides[1]), (4, 16, sides[1])] {
        let ends: Vec<usize> = sides
            .iter()
            .scan(0, |end, side| {
                *end += side * side;
                Some(*end)
            })
            .collect();
        let l = ends.last().copied().unwrap_or(0);
        let c = heads * DIM;
        let mut s = Stream::new(1, Purpose::Test, 0, 0);
        let mut random = |n: usize| -> Vec<f32> { (0..n).map(|_| s.normal()).collect() };
        let qkv = Tensor::from_vec([batch, l, 3 * c], random(batch * l * 3 * c));
        let up = Tensor::from_vec([batch, l, c], random(batch * l * c));
        let scale_mul = Tensor::from_vec([1, heads, 1, 1], vec![4f32.ln(); heads]);
        let forward =
            best(|| attention(&Cx::off(), &qkv, Some(&scale_mul), heads, &ends).map(|_| ()))?;
        let both = best(|| {
            let tape = Tape::new();
            let cx = Cx::on(&tape);
            let ((x, kx), (s, ks)) = (cx.leaf(&qkv), cx.leaf(&scale_mul));
            let y = attention(&cx, &x, Some(&s), heads, &ends)?;
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
