//! Groups whose members are on one GPU: what they send each other takes the same ways as between several.

use super::*;
use crate::matmul::DevicePtr;
use crate::tests::{get, gpu, put, random, same_bits};
use crate::{DType, DeviceBuffer};

/// A group of `size` members on one GPU.
fn group(gpu: &'static Gpu, size: usize) -> Vec<Peers> {
    let inboxes: Vec<_> = (0..size).map(|_| Inbox::new(gpu, size).unwrap()).collect();
    let offers: Vec<_> = inboxes.iter().map(Inbox::offer).collect();
    let member = |(rank, inbox)| Peers::open(inbox, rank, &offers).unwrap();
    inboxes.iter().enumerate().map(member).collect()
}

/// All members make the calls that `of` says of their buffers, and then wait.
fn exchange<'a>(
    group: &[Peers],
    buffers: &'a [DeviceBuffer],
    of: impl Fn(&'a DeviceBuffer) -> Vec<Collective<'a>>,
) {
    for (member, buffer) in group.iter().zip(buffers) {
        member.together(&of(buffer)).unwrap();
    }
    // Only now: all members have the same stream of the GPU.
    for member in group {
        member.join().unwrap();
    }
}

fn call(
    buffer: &DeviceBuffer,
    (kind, from, count): (Kind, usize, usize),
    element: Element,
) -> Collective<'_> {
    Collective {
        kind,
        values: DevicePtr(buffer, from * element.bytes()),
        count,
        element,
    }
}

/// What a member's sum is: its own value, then those of the members before it.
fn summed(all: &[Vec<f32>], owner: usize, i: usize) -> f32 {
    let size = all.len();
    (1..size).fold(all[owner][i], |sum, places| {
        sum + all[(owner + size - places) % size][i]
    })
}

#[test]
fn sums_are_the_same_for_all_and_in_a_fixed_order() {
    let Some(gpu) = gpu() else { return };
    for size in [2, 3, 5] {
        let group = group(gpu, size);
        let most = message(size) / 4;
        // From an odd place on; more than all slots hold; twice with the same numbers.
        for (n, from) in [(1, 0), (1023, 3), (70_000, 1), (size * most * 5 + 17, 2)] {
            let values: Vec<_> = (0..size)
                .map(|r| random(n + from + 5, r as u64 + 1))
                .collect();
            for _ in 0..2 {
                let buffers: Vec<_> = values.iter().map(|v| put(gpu, v, DType::F32)).collect();
                exchange(&group, &buffers, |b| {
                    vec![call(b, (Kind::AllReduce, from, n), Element::F32)]
                });
                let cut = pieces(Kind::AllReduce, n, size, most);
                for (rank, buffer) in buffers.iter().enumerate() {
                    let got = get(gpu, buffer, DType::F32);
                    let mut want = values[rank].clone();
                    for (owner, share) in cut.iter().flat_map(|p| p.shares.iter().enumerate()) {
                        for i in share.clone() {
                            want[from + i] = summed(&values, owner, from + i);
                        }
                    }
                    assert!(
                        same_bits(&got, &want),
                        "{size} members, {n} from {from}, {rank}"
                    );
                }
            }
        }
    }
}

#[test]
fn shares_are_summed_and_gathered() {
    let Some(gpu) = gpu() else { return };
    for size in [2, 3] {
        let group = group(gpu, size);
        let (each, from) = (message(size) / 4 + 1000, 16);
        let n = from + size * each + 3;
        let values: Vec<_> = (0..size).map(|r| random(n, r as u64 + 7)).collect();
        let buffers: Vec<_> = values.iter().map(|v| put(gpu, v, DType::F32)).collect();
        exchange(&group, &buffers, |b| {
            vec![call(b, (Kind::ReduceScatter, from, each), Element::F32)]
        });
        let own = |rank: usize| from + rank * each..from + (rank + 1) * each;
        for (rank, buffer) in buffers.iter().enumerate() {
            let got = get(gpu, buffer, DType::F32);
            let want: Vec<_> = own(rank).map(|i| summed(&values, rank, i)).collect();
            assert!(same_bits(&got[own(rank)], &want), "{size} members, {rank}");
            assert!(same_bits(&got[..from], &values[rank][..from]));
            assert!(same_bits(&got[n - 3..], &values[rank][n - 3..]));
        }
        // In any type, and several calls at once.
        for (dtype, element) in [(DType::Bf16, Element::Bf16), (DType::F32, Element::F32)] {
            let buffers: Vec<_> = values.iter().map(|v| put(gpu, v, dtype)).collect();
            let before: Vec<_> = buffers.iter().map(|b| get(gpu, b, dtype)).collect();
            let half = each / 2;
            exchange(&group, &buffers, |b| {
                let second = from + size * half;
                vec![
                    call(b, (Kind::AllGather, from, half), element),
                    call(b, (Kind::AllGather, second, half), element),
                ]
            });
            for buffer in &buffers {
                let got = get(gpu, buffer, dtype);
                for run in 0..2 {
                    for (rank, had) in before.iter().enumerate() {
                        let at = from + (run * size + rank) * half;
                        assert!(same_bits(&got[at..at + half], &had[at..at + half]));
                    }
                }
            }
        }
    }
}

/// A member that never calls: the others' waits end when they give up, and the GPU goes on.
#[test]
fn waits_end_when_a_group_is_given_up() {
    let Some(gpu) = gpu() else { return };
    let mut group = group(gpu, 3);
    let n = 1 << 20;
    let buffer = put(gpu, &random(n, 1), DType::F32);
    let whole = call(&buffer, (Kind::AllReduce, 0, n), Element::F32);
    group[0].together(&[whole]).unwrap();
    group[0].join().unwrap();
    let first = group.remove(0);
    let ends = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        first.abort();
        first
    });
    gpu.synchronize().unwrap();
    let first = ends.join().unwrap();
    for refused in [first.together(&[whole]), first.join(), first.check()] {
        let text = refused.unwrap_err().to_string();
        assert!(text.contains("given up"), "{text}");
    }
    let other = put(gpu, &[1.0], DType::F32);
    assert_eq!(get(gpu, &other, DType::F32), [1.0]);
}

#[test]
fn what_it_does_not_do_is_refused() {
    let Some(gpu) = gpu() else { return };
    let group = group(gpu, 2);
    let buffer = put(gpu, &random(64, 1), DType::F32);
    for (kind, element, count) in [
        (Kind::Broadcast { root: 0 }, Element::F32, 8),
        (Kind::AllReduce, Element::Bf16, 8),
        (Kind::AllReduce, Element::F32, 65),
        (Kind::AllGather, Element::F32, 33),
    ] {
        let call = call(&buffer, (kind, 0, count), element);
        assert!(group[0].together(&[call]).is_err(), "{kind:?}");
    }
    // A small sum takes NCCL less time.
    assert!(!group[0].takes(&call(&buffer, (Kind::AllReduce, 0, 64), Element::F32)));
    assert!(Inbox::new(gpu, 1).is_err() && Inbox::new(gpu, MOST_MEMBERS + 1).is_err());
    let inbox = Inbox::new(gpu, 2).unwrap();
    let offers = [inbox.offer(), vec![1, 2, 3]];
    assert!(Peers::open(&inbox, 0, &offers).is_err());
    assert!(Peers::open(&inbox, 0, &offers[..1]).is_err());
}
