//! Times the matrix product at the sizes of the models: `cargo run --release -p nextscale-tensor --example gemm_speed`.
use nextscale_tensor::cpu::gemm::{
    Plain, gemm,
    pack::{Rows, Transposed},
};
use std::time::Instant;

fn main() {
    for (m, n, k) in [
        (65536, 160, 1440),
        (4096, 320, 2880),
        (256, 640, 5760),
        (65536, 32, 288),
        (680, 1024, 256),
        (480, 512, 128),
        (2048, 2048, 2048),
    ] {
        let (a, b) = (vec![0.5f32; m * k], vec![0.25f32; n * k]);
        let mut c = vec![0.0f32; m * n];
        let mut best = [f64::MAX; 2];
        for _ in 0..7 {
            let t = Instant::now();
            gemm(
                (m, n, k),
                &Rows::new(&a, k),
                &Transposed::new(&b, k),
                &mut c,
                false,
                &Plain,
            );
            best[0] = best[0].min(t.elapsed().as_secs_f64());
            let t = Instant::now();
            gemm(
                (m, n, k),
                &Transposed::new(&a, m),
                &Rows::new(&b, n),
                &mut c,
                false,
                &Plain,
            );
            best[1] = best[1].min(t.elapsed().as_secs_f64());
        }
        let f = 2e-9 * (m * n * k) as f64;
        println!(
            "{m:6} {n:5} {k:5}: {:6.1} GFLOP/s (x wT), {:6.1} (aT b)",
            f / best[0],
            f / best[1]
        );
    }
}
