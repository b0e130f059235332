//! Matrix products of models' sizes on the CPU.

use super::Args;
use nextscale::{Result, say};
use nextscale_tensor::cpu::gemm::pack::{Rows, Transposed};
use nextscale_tensor::cpu::gemm::{Plain, gemm};
use std::time::Instant;

/// Matrix products of the tokenizer's convolutions and the transformer's layers, as (rows, columns, inner).
const PRODUCTS: [(&str, usize, usize, usize); 6] = [
    ("conv 160 at 256 px", 65536, 160, 1440),
    ("conv 320 at 64 px", 4096, 320, 2880),
    ("conv 640 at 16 px", 256, 640, 5760),
    ("conv 32 at 64 px x16", 65536, 32, 288),
    ("fc1 of width 256", 680, 1024, 256),
    ("fc1 of width 1024", 680, 4096, 1024),
];

pub fn products(args: &Args) -> Result<()> {
    say!("{:<22} {:>10} {:>12}", "product", "x.wT", "aT.b  GFLOP/s")?;
    for (name, m, n, k) in PRODUCTS {
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; n * k]);
        let mut c = vec![0.0f32; m * n];
        let mut rate = [0.0f64; 2];
        for (i, rate) in rate.iter_mut().enumerate() {
            let mut times = Vec::new();
            for _ in 0..args.steps {
                let start = Instant::now();
                let size = (m, n, k);
                if i == 0 {
                    let b = Transposed::new(&b, k);
                    gemm(size, &Rows::new(&a, k), &b, &mut c, false, &Plain);
                } else {
                    let b = Rows::new(&b, n);
                    gemm(size, &Transposed::new(&a, m), &b, &mut c, false, &Plain);
                }
                times.push(start.elapsed().as_secs_f64());
            }
            times.sort_by(f64::total_cmp);
            *rate = 2e-9 * (m * n * k) as f64 / times[times.len() / 2];
        }
        say!("{name:<22} {:>10.1} {:>12.1}", rate[0], rate[1])?;
    }
    Ok(())
}
