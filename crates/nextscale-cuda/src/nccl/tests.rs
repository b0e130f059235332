//! Those with two members need two GPUs: one a thread, since that is less to start than processes. They come one after another,
//! and a watch ends them where members wait for each other without end.

use super::*;
use crate::dry::tests::dry_gpu;
use crate::kernel::{Arg, MEMORY, Shape};
use crate::tests::{bytes_of, get, put, random, same_bits};
use crate::{DType, DeviceBuffer, gpu};
use std::sync::{Barrier, mpsc};

/// What a whole test may take.
const LONG: Duration = Duration::from_secs(120);
/// What the members of a test wait for each other.
const MEET: Duration = Duration::from_secs(60);

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Whether there are so many GPUs, and NCCL; else a word that the test did nothing.
fn there(gpus: usize) -> bool {
    let enough = gpu::count() >= gpus;
    if !enough {
        let few = ["no CUDA device", "fewer than two CUDA devices"][gpus - 1];
        println!("skipped: {few}");
    } else if !Library::Nccl.is_there() {
        println!("skipped: {}", Library::Nccl.missing());
    }
    enough && Library::Nccl.is_there()
}

/// Runs `body` in `threads` threads, each with its number, and returns what they say.
fn in_threads<T: Send + 'static>(
    threads: usize,
    body: impl Fn(usize) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(|e| e.into_inner());
    let body = Arc::new(body);
    let answers: Vec<_> = (0..threads)
        .map(|rank| {
            let (say, hear) = mpsc::channel();
            let body = Arc::clone(&body);
            // Not waited for when it hangs, so that the test's failure is seen.
            std::thread::spawn(move || say.send(body(rank)));
            hear
        })
        .collect();
    let hear = |(rank, hear): (usize, &mpsc::Receiver<T>)| match hear.recv_timeout(LONG) {
        Ok(answer) => answer,
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("rank {rank} hangs"),
        Err(mpsc::RecvTimeoutError::Disconnected) => panic!("rank {rank} failed, see above"),
    };
    answers.iter().enumerate().map(hear).collect()
}

/// A member of two, and where both meet.
struct Member {
    nccl: Communicator,
    meet: Arc<Barrier>,
}

/// Runs `body` as both members of a group of two GPUs; `None` where there are not two.
fn two<T: Send + 'static>(body: impl Fn(&Member) -> T + Send + Sync + 'static) -> Option<Vec<T>> {
    if !there(2) {
        return None;
    }
    let id = unique_id().unwrap();
    let meet = Arc::new(Barrier::new(2));
    Some(in_threads(2, move |rank| {
        let gpu = Gpu::get(rank).unwrap();
        let nccl = Communicator::new(gpu, rank, 2, &id, &|| Ok(()), MEET).unwrap();
        let meet = Arc::clone(&meet);
        body(&Member { nccl, meet })
    }))
}

/// What member `rank` brings.
fn values(n: usize, rank: usize, round: u64) -> Vec<f32> {
    random(n, 1000 * round + rank as u64)
}

fn sum(n: usize, round: u64) -> Vec<f32> {
    let (a, b) = (values(n, 0, round), values(n, 1, round));
    a.iter().zip(b).map(|(a, b)| a + b).collect()
}

#[test]
fn two_gpus_sum_exactly_and_again() {
    let lengths = [0, 1, 1023, 1 << 20];
    let Some(sums) = two(move |m| {
        let gpu = m.nccl.gpu();
        let mut out = Vec::new();
        for round in [0, 1, 0] {
            for n in lengths {
                let x = put(gpu, &values(n, m.nccl.rank(), round), DType::F32);
                gpu.synchronize().unwrap();
                m.meet.wait();
                m.nccl.all_reduce(DevicePtr(&x, 0), n).unwrap();
                m.nccl.join().unwrap();
                out.push((round, get(gpu, &x, DType::F32)));
                m.meet.wait();
            }
        }
        m.nccl.check().unwrap();
        out
    }) else {
        return;
    };
    for of_one in sums {
        assert_eq!(of_one.len(), 3 * lengths.len());
        for (round, got) in of_one {
            assert!(same_bits(&got, &sum(got.len(), round)), "{}", got.len());
        }
    }
}

#[test]
fn a_range_within_a_buffer_is_summed_and_no_more() {
    let (n, from, to) = (5000, 1001, 4003);
    let Some(sums) = two(move |m| {
        let gpu = m.nccl.gpu();
        let x = put(gpu, &values(n, m.nccl.rank(), 0), DType::F32);
        gpu.synchronize().unwrap();
        m.meet.wait();
        m.nccl
            .all_reduce(DevicePtr(&x, 4 * from), to - from)
            .unwrap();
        m.nccl.join().unwrap();
        let got = get(gpu, &x, DType::F32);
        m.meet.wait();
        got
    }) else {
        return;
    };
    for (rank, got) in sums.iter().enumerate() {
        let mut want = values(n, rank, 0);
        want[from..to].copy_from_slice(&sum(n, 0)[from..to]);
        assert!(same_bits(got, &want), "rank {rank}");
    }
}

/// The stream before makes the values late, the stream after overwrites them at once: nobody waits on the CPU.
#[test]
fn work_before_and_after_needs_no_waiting() {
    const N: usize = 1 << 20;
    const ROUNDS: u64 = 5;
    let Some(sums) = two(|m| {
        let gpu = m.nccl.gpu();
        let new = |n: usize| DeviceBuffer::new(gpu, 4 * n).unwrap();
        let (x, beside, big) = (new(N), new(N), [new(64 << 20), new(64 << 20)]);
        let sources: Vec<_> = (0..ROUNDS)
            .map(|r| put(gpu, &values(N, m.nccl.rank(), r), DType::F32))
            .collect();
        let results: Vec<_> = (0..ROUNDS).map(|_| new(N)).collect();
        // Kernels and connections are made here, so that nothing waits afterwards.
        gpu.zero(DevicePtr(&x, 0), 4 * N).unwrap();
        gpu.synchronize().unwrap();
        m.meet.wait();
        m.nccl.all_reduce(DevicePtr(&x, 0), N).unwrap();
        m.nccl.join().unwrap();
        for (from, to) in sources.iter().zip(&results) {
            for _ in 0..20 {
                gpu.copy(DevicePtr(&big[0], 0), DevicePtr(&big[1], 0), big[0].bytes())
                    .unwrap();
            }
            gpu.copy(DevicePtr(from, 0), DevicePtr(&x, 0), 4 * N)
                .unwrap();
            m.nccl.all_reduce(DevicePtr(&x, 0), N).unwrap();
            gpu.zero(DevicePtr(&beside, 0), 4 * N).unwrap();
            m.nccl.join().unwrap();
            gpu.copy(DevicePtr(&x, 0), DevicePtr(to, 0), 4 * N).unwrap();
            gpu.zero(DevicePtr(&x, 0), 4 * N).unwrap();
        }
        let got: Vec<_> = results.iter().map(|r| get(gpu, r, DType::F32)).collect();
        assert!(get(gpu, &x, DType::F32).iter().all(|v| *v == 0.0));
        m.meet.wait();
        got
    }) else {
        return;
    };
    for of_one in sums {
        for (round, got) in of_one.iter().enumerate() {
            assert!(same_bits(got, &sum(N, round as u64)), "round {round}");
        }
    }
}

/// Buffers are let go before they are summed; what takes memory afterwards does not get theirs.
#[test]
fn a_buffer_that_is_dropped_too_early_is_held() {
    const N: usize = 300_001;
    let Some(sums) = two(|m| {
        let gpu = m.nccl.gpu();
        let x = put(gpu, &values(N, m.nccl.rank(), 0), DType::F32);
        let result = DeviceBuffer::new(gpu, 4 * N).unwrap();
        let address = x.address();
        gpu.synchronize().unwrap();
        m.meet.wait();
        m.nccl.all_reduce(DevicePtr(&x, 0), N).unwrap();
        drop(x);
        let others: Vec<_> = (0..4)
            .map(|_| DeviceBuffer::new(gpu, 4 * N).unwrap())
            .collect();
        for other in &others {
            assert_ne!(other.address(), address);
            gpu.zero(DevicePtr(other, 0), 4 * N).unwrap();
        }
        let held = m.nccl.used()[0].address();
        m.nccl.join().unwrap();
        assert!(m.nccl.used().is_empty() && held == address);
        m.meet.wait();
        result.bytes()
    }) else {
        return;
    };
    assert_eq!(sums, [4 * N, 4 * N]);
}

#[test]
fn parts_are_summed_gathered_and_handed_round() {
    let each = [1usize, 257, 100_000];
    let Some(seen) = two(move |m| {
        let (gpu, rank) = (m.nccl.gpu(), m.nccl.rank());
        let mut out = Vec::new();
        for each in each {
            let fresh = || put(gpu, &values(2 * each, rank, 3), DType::F32);
            let (scattered, gathered, handed) = (fresh(), fresh(), fresh());
            gpu.synchronize().unwrap();
            m.meet.wait();
            m.nccl
                .reduce_scatter(DevicePtr(&scattered, 0), each)
                .unwrap();
            m.nccl.all_gather(DevicePtr(&gathered, 0), each).unwrap();
            m.nccl
                .broadcast(DevicePtr(&handed, 0), 2 * each, 1)
                .unwrap();
            m.nccl.join().unwrap();
            out.push([scattered, gathered, handed].map(|b| get(gpu, &b, DType::F32)));
            m.meet.wait();
        }
        out
    }) else {
        return;
    };
    for (rank, of_one) in seen.iter().enumerate() {
        for ([scattered, gathered, handed], n) in of_one.iter().zip(each) {
            let own = rank * n..(rank + 1) * n;
            assert!(
                same_bits(&scattered[own.clone()], &sum(2 * n, 3)[own]),
                "{n}"
            );
            let (zero, one) = (values(2 * n, 0, 3), values(2 * n, 1, 3));
            assert!(
                same_bits(gathered, &[&zero[..n], &one[n..]].concat()),
                "{n}"
            );
            assert!(same_bits(handed, &one), "{n}");
        }
    }
}

/// Member 0 waits for a sum that member 1 never asks for: within the call, or on the GPU.
#[test]
fn an_abort_from_another_thread_ends_the_wait() {
    for connected in [false, true] {
        let Some(times) = two(move |m| {
            let gpu = m.nccl.gpu();
            let x = DeviceBuffer::new(gpu, 4 << 20).unwrap();
            gpu.zero(DevicePtr(&x, 0), 4 << 20).unwrap();
            gpu.synchronize().unwrap();
            m.meet.wait();
            if connected {
                m.nccl.all_reduce(DevicePtr(&x, 0), 1 << 20).unwrap();
                m.nccl.join().unwrap();
                gpu.synchronize().unwrap();
                m.meet.wait();
            }
            let begun = Instant::now();
            if m.nccl.rank() == 0 {
                std::thread::scope(|s| {
                    s.spawn(|| {
                        std::thread::sleep(Duration::from_millis(500));
                        m.nccl.abort();
                    });
                    let asked = m.nccl.all_reduce(DevicePtr(&x, 0), 1 << 20);
                    let joined = asked.and_then(|()| m.nccl.join());
                    // What is in the stream ends, whatever it computed.
                    let done = gpu.synchronize();
                    let text = joined
                        .and(done)
                        .and_then(|()| m.nccl.check())
                        .unwrap_err()
                        .to_string();
                    assert!(text.contains("NCCL") && text.contains("aborted"), "{text}");
                });
                assert!(m.nccl.all_reduce(DevicePtr(&x, 0), 1).is_err());
                assert!(m.nccl.join().is_err());
                m.nccl.abort();
            }
            m.meet.wait();
            begun.elapsed()
        }) else {
            return;
        };
        for time in times {
            assert!(time < Duration::from_secs(30), "{time:?}");
        }
    }
}

#[test]
fn a_member_that_never_comes_is_waited_for_until_the_deadline() {
    if !there(1) {
        return;
    }
    let texts = in_threads(1, |_| {
        let gpu = Gpu::get(0).unwrap();
        let id = unique_id().unwrap();
        let begun = Instant::now();
        let late = Communicator::new(gpu, 0, 2, &id, &|| Ok(()), Duration::from_secs(2));
        let late = late.unwrap_err().to_string();
        let waited = begun.elapsed();
        assert!(waited >= Duration::from_secs(2), "{waited:?}");
        let id = unique_id().unwrap();
        let asked = std::cell::Cell::new(0);
        let gone = || {
            asked.set(asked.get() + 1);
            match asked.get() {
                ..10 => Ok(()),
                _ => Err(Error::Device("rank 1 is lost".into())),
            }
        };
        let gone = Communicator::new(gpu, 0, 2, &id, &gone, MEET);
        let gone = gone.unwrap_err().to_string();
        assert!(begun.elapsed() < Duration::from_secs(40));
        // The GPU is as it was.
        let x = put(gpu, &[1.0, 2.0], DType::F32);
        assert_eq!(get(gpu, &x, DType::F32), [1.0, 2.0]);
        [late, gone]
    });
    let [late, gone] = &texts[0];
    for part in ["NCCL", "ncclCommInitRankConfig", "rank 0", "2 s"] {
        assert!(late.contains(part), "{late}");
    }
    assert_eq!(gone, "device: rank 1 is lost");
}

#[test]
fn one_member_alone_keeps_its_values() {
    if !there(1) {
        return;
    }
    let got = in_threads(1, |_| {
        let gpu = Gpu::get(0).unwrap();
        let id = unique_id().unwrap();
        let nccl = Communicator::new(gpu, 0, 1, &id, &|| Ok(()), MEET).unwrap();
        let x = put(gpu, &values(1000, 0, 0), DType::F32);
        nccl.all_reduce(DevicePtr(&x, 0), 1000).unwrap();
        nccl.reduce_scatter(DevicePtr(&x, 0), 1000).unwrap();
        nccl.all_gather(DevicePtr(&x, 0), 1000).unwrap();
        nccl.join().unwrap();
        get(gpu, &x, DType::F32)
    });
    assert!(same_bits(&got[0], &values(1000, 0, 0)));
}

/// What `join` costs is seen in a profile, and only that.
#[test]
fn a_profile_shows_what_is_waited_for() {
    let Some(names) = two(|m| {
        let gpu = m.nccl.gpu();
        let x = DeviceBuffer::new(gpu, 4 << 20).unwrap();
        gpu.zero(DevicePtr(&x, 0), 4 << 20).unwrap();
        gpu.synchronize().unwrap();
        m.meet.wait();
        let run = || -> Result<()> {
            m.nccl.all_reduce(DevicePtr(&x, 0), 1 << 20)?;
            m.nccl.join()
        };
        run().unwrap();
        let (profile, ()) = gpu.profile(run).unwrap();
        m.meet.wait();
        profile
            .rows
            .iter()
            .map(|r| (r.name, r.calls))
            .collect::<Vec<_>>()
    }) else {
        return;
    };
    for names in names {
        assert_eq!(names, [("nccl wait", 1)]);
    }
}

/// One process uses two GPUs, from two threads and from one in turn.
#[test]
fn two_gpus_work_side_by_side() {
    if gpu::count() < 2 {
        println!("skipped: fewer than two CUDA devices");
        return;
    }
    let fill = |gpu: &'static Gpu, value: f32| {
        let b = DeviceBuffer::new(gpu, 4 * 1000).unwrap();
        let args = [Arg::At(&b, 0), Arg::F32(value), Arg::U64(1000)];
        gpu.launch(&MEMORY, "fill_f32", Shape::pass(gpu, 1000), &args)
            .unwrap();
        b
    };
    let filled = in_threads(2, move |rank| {
        let gpu = Gpu::get(rank).unwrap();
        (0..50).all(|i| {
            let value = (100 * rank + i) as f32;
            get(gpu, &fill(gpu, value), DType::F32) == [value; 1000]
        })
    });
    assert_eq!(filled, [true, true]);
    let both = [0, 1].map(|i| Gpu::get(i).unwrap());
    for round in 0..10 {
        let buffers = both.map(|gpu| fill(gpu, (gpu.info().ordinal + 2 * round) as f32));
        let copies = [0, 1].map(|i| {
            let small = put(both[i], &[round as f32], DType::F32);
            both[i].copy_to_host(DevicePtr(&small, 0), 4).unwrap()
        });
        for i in [1, 0] {
            let want = (i + 2 * round) as f32;
            assert_eq!(get(both[i], &buffers[i], DType::F32), [want; 1000]);
            assert_eq!(copies[i].wait().unwrap(), bytes_of(&[round as f32]));
            let other = both[1 - i].zero(DevicePtr(&buffers[i], 0), 4).unwrap_err();
            assert!(other.to_string().contains("can't be used on"), "{other}");
        }
    }
}

/// A member on a GPU where nothing is done.
fn dry_member(rank: usize, size: usize) -> Communicator {
    let id = UniqueId::from_bytes([7; 128]);
    let never = || Err(Error::Device("asked".into()));
    Communicator::new(dry_gpu(), rank, size, &id, &never, Duration::ZERO).unwrap()
}

#[test]
fn a_dry_gpu_waits_for_nobody_and_holds_the_same() {
    let nccl = dry_member(3, 8);
    let gpu = nccl.gpu();
    assert_eq!((nccl.rank(), nccl.size()), (3, 8));
    let x = DeviceBuffer::new(gpu, 4 * 8 * 1000).unwrap();
    let address = x.address();
    nccl.all_reduce(DevicePtr(&x, 4), 100).unwrap();
    nccl.reduce_scatter(DevicePtr(&x, 0), 1000).unwrap();
    nccl.all_gather(DevicePtr(&x, 0), 1000).unwrap();
    nccl.broadcast(DevicePtr(&x, 0), 8000, 7).unwrap();
    assert!(gpu.dry().unwrap().script.lock().unwrap().asked.is_empty());
    let used = gpu.usage().used;
    drop(x);
    assert_eq!(gpu.usage().used, used);
    let other = DeviceBuffer::new(gpu, 4 * 8 * 1000).unwrap();
    assert_ne!(other.address(), address);
    nccl.join().unwrap();
    assert!(gpu.usage().used <= used);
    let again = DeviceBuffer::new(gpu, 4 * 8 * 1000).unwrap();
    assert_eq!(again.address(), address);
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_asked() {
    let nccl = dry_member(1, 2);
    let gpu = nccl.gpu();
    let x = DeviceBuffer::new(gpu, 800).unwrap();
    let other = DeviceBuffer::new(dry_gpu(), 800).unwrap();
    let id = UniqueId::from_bytes([0; 128]);
    let alone = |rank, size| Communicator::new(gpu, rank, size, &id, &|| Ok(()), MEET).map(drop);
    for (result, part) in [
        (
            nccl.all_reduce(DevicePtr(&x, 0), 201),
            "ncclAllReduce needs",
        ),
        (nccl.all_reduce(DevicePtr(&x, 2), 1), "begin at byte 2"),
        (nccl.all_reduce(DevicePtr(&x, 0), usize::MAX), "too many"),
        (nccl.all_reduce(DevicePtr(&other, 0), 1), "can't be used on"),
        (
            nccl.all_reduce(DevicePtr(&x, 804), 0),
            "ncclAllReduce needs",
        ),
        (nccl.reduce_scatter(DevicePtr(&x, 0), 101), "needs 808"),
        (nccl.all_gather(DevicePtr(&x, 0), 101), "needs 808"),
        (nccl.all_gather(DevicePtr(&x, 0), usize::MAX), "too many"),
        (nccl.broadcast(DevicePtr(&x, 0), 1, 2), "no rank 2 of 2"),
        (alone(0, 0), "no rank 0 of 0"),
        (alone(4, 4), "no rank 4 of 4"),
        (alone(1 << 31, 1 << 32), "there is no rank"),
    ] {
        let text = result.unwrap_err().to_string();
        assert!(text.contains(part) && !text.contains('\n'), "{text}");
    }
    nccl.reduce_scatter(DevicePtr(&x, 0), 100).unwrap();
    nccl.join().unwrap();
    assert!(nccl.used().is_empty());
}

#[test]
fn nothing_is_summed_while_a_graph_is_captured() {
    let nccl = dry_member(0, 2);
    let gpu = nccl.gpu();
    let x = DeviceBuffer::new(gpu, 800).unwrap();
    let id = UniqueId::from_bytes([0; 128]);
    let refused = |work: &dyn Fn() -> Result<()>| {
        let text = gpu.capture(work).unwrap_err().to_string();
        assert!(text.contains("captured graph"), "{text}");
    };
    refused(&|| nccl.all_reduce(DevicePtr(&x, 0), 1));
    refused(&|| nccl.all_gather(DevicePtr(&x, 0), 1));
    refused(&|| nccl.join());
    refused(&|| Communicator::new(gpu, 0, 1, &id, &|| Ok(()), MEET).map(drop));
    nccl.all_reduce(DevicePtr(&x, 0), 1).unwrap();
}

#[test]
fn after_an_abort_every_call_is_an_error() {
    let nccl = dry_member(0, 2);
    let x = DeviceBuffer::new(nccl.gpu(), 800).unwrap();
    nccl.check().unwrap();
    std::thread::scope(|s| {
        s.spawn(|| nccl.abort());
    });
    nccl.abort();
    for result in [
        nccl.check(),
        nccl.join(),
        nccl.all_reduce(DevicePtr(&x, 0), 1),
        nccl.all_reduce(DevicePtr(&x, 0), 0),
    ] {
        let text = result.unwrap_err().to_string();
        assert_eq!(text, "device: NCCL: the communicator was aborted");
    }
}

#[test]
fn an_identity_goes_round_as_bytes() {
    let bytes: [u8; 128] = std::array::from_fn(|i| i as u8);
    let id = UniqueId::from_bytes(bytes);
    assert_eq!(UniqueId::from_bytes(*id.bytes()), id);
    // Without a GPU the library may not start, and without the library there is none.
    match unique_id() {
        Ok(id) => assert!(Library::Nccl.is_there() && id.bytes().iter().any(|b| *b != 0)),
        Err(e) => {
            let text = e.to_string();
            assert!(text.contains("NCCL") && !text.contains('\n'), "{text}");
        }
    }
}

/// What `several` leaves: a sum in parts, a whole sum, gathered halves, and a sum of float64.
fn several(nccl: &Communicator) -> (Vec<f32>, Vec<f32>, Vec<f32>, f64) {
    let (gpu, rank, size) = (nccl.gpu(), nccl.rank(), nccl.size());
    let scattered = put(gpu, &values(6 * size, rank, 1), DType::F32);
    let summed = put(gpu, &values(5, rank, 2), DType::F32);
    let halves = put(gpu, &values(8 * size, rank, 3), DType::Bf16);
    let double = DeviceBuffer::new(gpu, 8).unwrap();
    let own = 0.1 + rank as f64;
    gpu.upload_to(&own.to_le_bytes(), DevicePtr(&double, 0))
        .unwrap();
    let call = |kind, buffer, count, element| Collective {
        kind,
        values: DevicePtr(buffer, 0),
        count,
        element,
    };
    let calls = [
        call(Kind::ReduceScatter, &scattered, 6, Element::F32),
        call(Kind::AllReduce, &summed, 5, Element::F32),
        call(Kind::AllReduce, &summed, 0, Element::F32),
        call(Kind::AllGather, &halves, 8, Element::Bf16),
        call(Kind::AllReduce, &double, 1, Element::F64),
    ];
    nccl.together(&calls).unwrap();
    nccl.join().unwrap();
    let mut bytes = [0; 8];
    gpu.download_from(DevicePtr(&double, 0), &mut bytes)
        .unwrap();
    let scattered = get(gpu, &scattered, DType::F32);
    (
        scattered[6 * rank..][..6].to_vec(),
        get(gpu, &summed, DType::F32),
        get(gpu, &halves, DType::Bf16),
        f64::from_le_bytes(bytes),
    )
}

#[test]
fn several_calls_are_made_at_once() {
    if !there(1) {
        return;
    }
    let id = unique_id().unwrap();
    let alone = in_threads(1, move |_| {
        let gpu = Gpu::get(0).unwrap();
        several(&Communicator::new(gpu, 0, 1, &id, &|| Ok(()), MEET).unwrap())
    });
    let held = |x: Vec<f32>| -> Vec<f32> {
        let all = x.into_iter();
        all.map(|x| crate::tests::held(x, DType::Bf16)).collect()
    };
    let (a, b, c, d) = alone[0].clone();
    assert!(same_bits(&a, &values(6, 0, 1)) && same_bits(&b, &values(5, 0, 2)));
    assert!(same_bits(&c, &held(values(8, 0, 3))) && d == 0.1);
    let Some(both) = two(|m| several(&m.nccl)) else {
        return;
    };
    for (rank, (a, b, c, d)) in both.into_iter().enumerate() {
        assert!(same_bits(&a, &sum(12, 1)[6 * rank..][..6]));
        assert!(same_bits(&b, &sum(5, 2)));
        let want = [&values(16, 0, 3)[..8], &values(16, 1, 3)[8..]];
        assert!(same_bits(&c, &held(want.concat())));
        assert_eq!(d, 0.1 + 1.1);
    }
}

#[test]
fn calls_that_do_not_fit_are_refused_together() {
    let gpu = dry_gpu();
    let id = UniqueId::from_bytes([0; 128]);
    let nccl = Communicator::new(gpu, 1, 3, &id, &|| Ok(()), MEET).unwrap();
    let x = DeviceBuffer::new(gpu, 4 * 30).unwrap();
    let call = |kind, at, count, element| Collective {
        kind,
        values: DevicePtr(&x, at),
        count,
        element,
    };
    let fits = call(Kind::AllReduce, 0, 30, Element::F32);
    nccl.together(&[fits, call(Kind::AllGather, 0, 10, Element::F32)])
        .unwrap();
    for wrong in [
        call(Kind::AllGather, 0, 11, Element::F32),
        call(Kind::AllReduce, 4, 30, Element::F32),
        call(Kind::AllReduce, 4, 1, Element::F64),
        call(Kind::AllReduce, 0, usize::MAX, Element::F64),
    ] {
        assert!(nccl.together(&[fits, wrong]).is_err(), "{wrong:?}");
    }
}
