use super::*;

fn product(flops: f64, note: &str) -> Work {
    Work::of_bytes(10)
        .products(Precision::Bf16, flops)
        .sized(note.into())
}

#[test]
fn spans_are_summed_by_name_arithmetic_and_sizes() {
    let spans = [
        ("linear", product(3.0, "a"), 1.0),
        ("norm", Work::of_bytes(7), 6.0),
        ("linear", product(4.0, "b"), 2.0),
        ("linear", product(5.0, "a"), 0.5),
        ("linear", Work::default().sized("a".into()), 0.25),
    ];
    let p = Profile::of_spans(spans, 12.0);
    let seen: Vec<_> = p.rows.iter().map(|r| (r.name, &*r.note, r.rate)).collect();
    assert_eq!(
        seen,
        [
            ("norm", "", Precision::Fp32),
            ("linear", "b", Precision::Bf16),
            ("linear", "a", Precision::Bf16),
            ("linear", "a", Precision::Fp32),
        ]
    );
    let a = &p.rows[2];
    assert_eq!((a.calls, a.ms, a.flops, a.bytes), (2, 1.5, 8.0, 20.0));
    assert_eq!((p.flops(), p.bytes(), p.other_ms()), (12.0, 37.0, 2.25));
    // Events are rounded: the sum may be a little more than the whole.
    let p = Profile::of_spans([("norm", Work::default(), 1.001)], 1.0);
    assert_eq!(p.other_ms(), 0.0);
}

#[test]
fn a_dry_profile_says_what_there_is_to_do_and_takes_no_time() {
    let gpu = crate::dry::tests::dry_gpu();
    let (p, ()) = gpu
        .profile(|| {
            let _outer = gpu.scope("norm", || Work::of_bytes(7));
            // Within an operator only the operator counts.
            let buffer = crate::pool::DeviceBuffer::new(gpu, 64)?;
            gpu.zero(crate::matmul::DevicePtr(&buffer, 0), 64)?;
            drop(_outer);
            gpu.zero(crate::matmul::DevicePtr(&buffer, 0), 32)
        })
        .unwrap();
    let mut seen: Vec<_> = p.rows.iter().map(|r| (r.name, r.calls, r.bytes)).collect();
    seen.sort_by_key(|row| row.0);
    assert_eq!(seen, [("norm", 1, 7.0), ("zeros", 1, 32.0)]);
    assert_eq!((p.ms, p.other_ms()), (0.0, 0.0));
}
