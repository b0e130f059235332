use super::*;
use crate::ops::testing::{Role, check_cuda, check_gradients, random};

const LEVELS: [usize; 9] = [0, 0, 1, 1, 1, 1, 2, 2, 2];

fn inputs(b: usize, len: usize) -> Vec<Tensor> {
    vec![
        random([b, 5], 1),
        random([1, 2, 5], 2),
        random([1, 9, 5], 3),
        random([3, 5], 4),
        random([b, len - 2, 5], 5),
    ]
}

fn run(cx: &Cx<'_>, t: &[Tensor], len: usize) -> Result<Tensor> {
    token_embedding(
        cx,
        &t[0],
        Some(&t[4]),
        &t[1],
        &t[2],
        &t[3],
        &LEVELS[..len],
        2,
    )
}

#[test]
fn sums_the_terms() {
    for len in [6, 9] {
        let t = inputs(3, len);
        let x = run(&Cx::off(), &t, len).unwrap();
        let f: Vec<&[f32]> = t.iter().map(|t| t.f32().unwrap()).collect();
        for b in 0..3 {
            for (p, level) in LEVELS.iter().enumerate().take(len) {
                for c in 0..5 {
                    let own = if p < 2 {
                        f[0][b * 5 + c] + f[1][p * 5 + c]
                    } else {
                        f[4][(b * (len - 2) + p - 2) * 5 + c]
                    };
                    let want = own + (f[3][level * 5 + c] + f[2][p * 5 + c]);
                    assert_eq!(x.f32().unwrap()[(b * len + p) * 5 + c], want);
                }
            }
        }
        check_gradients(&t, 1e-2, 2e-3, |cx, t| run(cx, t, len));
    }
}

#[test]
fn first_scale_alone_and_checks() {
    let t = inputs(2, 6);
    let alone =
        |levels: &[usize]| token_embedding(&Cx::off(), &t[0], None, &t[1], &t[2], &t[3], levels, 2);
    assert_eq!(alone(&LEVELS[..2]).unwrap().dims(), [2, 2, 5]);
    assert!(alone(&LEVELS[..6]).is_err());
    assert!(alone(&[0, 7]).is_err());
    assert!(run(&Cx::off(), &t, 9).is_err());
}

#[test]
fn one_scale_is_a_part_of_the_whole() {
    let t = inputs(2, 9);
    let whole = run(&Cx::off(), &t, 9).unwrap();
    let embeddings = random([2, 7, 5], 5);
    let part = Tensor::from_vec(
        [2, 4, 5],
        (0..2)
            .flat_map(|b| embeddings.f32().unwrap()[b * 35..b * 35 + 20].to_vec())
            .collect(),
    );
    let x = scale_embedding(&part, &t[2], &t[3], 1, 2, 2).unwrap();
    assert_eq!(x.dims(), [4, 4, 5]);
    for copy in 0..2 {
        for b in 0..2 {
            let got = &x.f32().unwrap()[(copy * 2 + b) * 20..][..20];
            assert_eq!(got, &whole.f32().unwrap()[b * 45 + 10..][..20]);
        }
    }
    assert!(scale_embedding(&part, &t[2], &t[3], 3, 2, 2).is_err());
    assert!(scale_embedding(&part, &t[2], &t[3], 1, 6, 2).is_err());
}

#[test]
fn a_gpu_agrees() {
    for (b, c) in [(3, 5), (300, 24)] {
        for len in [2, 6, 9] {
            let mut inputs = vec![
                (random([b, c], 1), Role::Float32),
                (random([1, 2, c], 2), Role::Float32),
                (random([1, 9, c], 3), Role::Float32),
                (random([3, c], 4), Role::Float32),
            ];
            if len > 2 {
                inputs.push((random([b, len - 2, c], 5), Role::Float32));
            }
            check_cuda(&inputs, [2e-6; 3], |cx, t| {
                let levels = &LEVELS[..len];
                let x = token_embedding(cx, &t[0], t.get(4), &t[1], &t[2], &t[3], levels, 2)?;
                Ok(vec![x])
            });
            check_cuda(&inputs, [2e-6; 3], |_, t| {
                let embeddings = t[4 * usize::from(len > 2)].reshape([b, len.max(3) - 2, c])?;
                let x = scale_embedding(&embeddings, &t[2], &t[3], 1, 2, 2)?;
                Ok(vec![x])
            });
        }
    }
}
