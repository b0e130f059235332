//! Operators under a profile.

use super::{Activation, Bias};
use crate::{Cx, DType, Device, Error, Math, Tape, Tensor, ops};
use nextscale_cuda::{Gpu, Precision, count};

#[test]
fn a_pass_adds_up() {
    if count() == 0 {
        println!("skipped: no CUDA device");
        return;
    }
    let device = Device::Cuda(0);
    let gpu = device.gpu().unwrap().unwrap();
    let (b, heads, dim, ends) = (2, 3, 64, [1, 5, 14]);
    let c = heads * dim;
    let math = Math {
        operands: DType::Bf16,
        tf32: true,
    };
    let there = |dims: &[usize]| {
        let n = dims.iter().product();
        let t = Tensor::from_vec(dims, vec![0.01; n]);
        t.to(device).unwrap()
    };
    let x = there(&[b, 14, c]).cast(DType::Bf16).unwrap();
    let (w, up) = (there(&[3 * c, c]), x.copied().unwrap());
    let pass = || {
        let tape = Tape::new();
        let cx = Cx::on(&tape).with(math);
        let ((x, kx), (w, kw)) = (cx.leaf(&x), cx.leaf(&w));
        let qkv = ops::linear(&cx, &x, &w, Bias::None, Activation::None)?;
        let y = ops::attention(&cx, qkv, None, heads, &ends)?;
        tape.backward_from(&y, up.clone(), None, &[kx, kw])
    };
    // Without a profile nothing is recorded, and a scope within the profile of another thread does nothing.
    pass().unwrap();
    let (p, grads) = gpu
        .profile(|| {
            std::thread::scope(|s| s.spawn(|| x.cast(DType::F32).map(|_| ())).join().unwrap())?;
            let grads = pass()?;
            assert!(gpu.profile(|| Ok::<_, Error>(())).is_err());
            Ok::<_, Error>(grads)
        })
        .unwrap();
    assert!(grads.iter().all(Option::is_some));
    let one = 2.0 * (b * 14 * 3 * c * c) as f64;
    // Tokens of the scales times what they see.
    let pairs = (b * heads * dim * (1 + 4 * 5 + 9 * 14)) as f64;
    let want = [
        ("linear", one),
        ("linear gradient", 2.0 * one),
        ("attention", 4.0 * pairs),
        ("attention gradient", 10.0 * pairs),
    ];
    for (name, flops) in want {
        let rows: Vec<_> = p.rows.iter().filter(|r| r.name == name).collect();
        let [row] = rows[..] else {
            panic!("{name}: {rows:?}")
        };
        assert_eq!((row.calls, row.flops), (1, flops), "{name}");
        assert!(row.ms > 0.0 && row.bytes > 0.0 && row.rate == Precision::Bf16);
    }
    assert!(p.rows.iter().all(|r| r.name != "convert"), "{:?}", p.rows);
    let sum: f64 = p.rows.iter().map(|r| r.ms).sum();
    assert!(sum > 0.0 && sum <= p.ms + 0.001 * p.rows.len() as f64);
    assert!((sum + p.other_ms() - p.ms).abs() <= 0.001 * p.rows.len() as f64);
    // A profile that failed leaves the next one as it was.
    let failed = gpu.profile(|| Err::<(), _>(Error::Device("no".into())));
    assert!(failed.is_err());
    assert_eq!(gpu.profile(|| Ok::<_, Error>(())).unwrap().0.rows, []);
}

#[test]
fn a_capture_has_no_scopes() {
    if count() == 0 {
        println!("skipped: no CUDA device");
        return;
    }
    let gpu = Gpu::get(0).unwrap();
    let x = Tensor::zeros([1000]).to(Device::Cuda(0)).unwrap();
    x.cast(DType::F16).unwrap();
    let (p, _) = gpu
        .profile(|| gpu.capture(|| x.cast(DType::F16)).map(|(g, _)| g))
        .unwrap();
    assert_eq!(p.rows, []);
    assert!(gpu.capture(|| gpu.profile(|| Ok::<_, Error>(()))).is_err());
}
