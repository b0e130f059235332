use super::*;
use crate::model::small::{DEPTH, models};
use crate::model::var::InitScales;
use nextscale_tensor::DType;
use nextscale_tensor::cuda::{self, Precision, Profile, Row};

const BATCH: usize = 3;

fn rows<'p>(p: &'p Profile, name: &str) -> Vec<&'p Row> {
    p.rows.iter().filter(|r| r.name == name).collect()
}

#[test]
fn a_profiled_step_counts_its_operators() {
    if cuda::count() == 0 {
        println!("skipped: no CUDA device");
        return;
    }
    let device = Device::Cuda(0);
    let gpu = device.gpu().unwrap().unwrap();
    let math = Math {
        operands: DType::Bf16,
        tf32: true,
    };
    let (vqvae, var) = models(device, math, true, InitScales::default());
    let labels = [1, 2, 3];
    let images = Tensor::from_vec([BATCH, 8, 8, 3], vec![0.25; BATCH * 192]);
    let images = images.to(device).unwrap();
    let tokens = vqvae.tokenize(&images, &var.config.pyramid).unwrap();
    let mut trainer = VarTrainer::new(vqvae, var, 0.0, 1).unwrap();
    let first = trainer
        .step(&images, &labels, &TransformerStep::whole(0))
        .unwrap();
    first.read().unwrap();
    // From images, then from tokens: the reports stay unread, for reading waits.
    let profiled = gpu.profile(|| trainer.step(&images, &labels, &TransformerStep::whole(0)));
    let (whole, pending) = profiled.unwrap();
    pending.read().unwrap();
    let profiled =
        gpu.profile(|| trainer.step_tokens(&tokens, &labels, &TransformerStep::whole(0)));
    let (cached, pending) = profiled.unwrap();
    pending.read().unwrap();

    let (width, total) = (64 * DEPTH, 21);
    // Tokens of the scales times what they see.
    let pairs = 1 + 4 * 5 + 16 * 21;
    let attention = (4 * BATCH * width * pairs) as f64;
    let feed_forward = (2 * BATCH * total * 8 * width * width) as f64;
    for (name, one, times) in [
        ("attention", attention, 1.0),
        ("attention gradient", attention, 2.5),
        ("feed-forward", feed_forward, 1.0),
        ("feed-forward gradient", feed_forward, 2.0),
    ] {
        for p in [&whole, &cached] {
            let [row] = rows(p, name)[..] else {
                panic!("{name}: {:?}", p.rows)
            };
            assert_eq!(row.calls, DEPTH as u64, "{name}");
            assert_eq!(row.flops, DEPTH as f64 * times * one, "{name}");
            assert_eq!(row.rate, Precision::Bf16, "{name}");
            assert!(row.bytes > 0.0 && row.ms > 0.0, "{name}");
        }
    }
    for p in [&whole, &cached] {
        assert_eq!(rows(p, "optimizer")[0].calls, 1);
        assert!(p.rows.iter().all(|r| r.ms >= 0.0), "{:?}", p.rows);
        // Events tick in half microseconds.
        let sum: f64 = p.rows.iter().map(|r| r.ms).sum();
        let calls: u64 = p.rows.iter().map(|r| r.calls).sum();
        assert!(sum <= p.ms + 1e-3 * calls as f64);
        assert!((sum + p.other_ms() - p.ms).abs() <= 1e-3 * calls as f64);
    }
    // The tokenizer is part of the first alone.
    assert!(rows(&whole, "conv2d").len() > 1 && rows(&cached, "conv2d").is_empty());
    assert_eq!(rows(&whole, "quantizer")[0].calls, 1);
    assert!(rows(&cached, "quantizer").is_empty());
    assert_eq!(rows(&cached, "quantizer input")[0].calls, 1);
    assert!(whole.flops() > cached.flops());
}
