//! Collectives among threads that are members of one job over real connections.

mod common;

use std::ops::Range;
use std::time::Duration;

use common::{Job, limits, members};
use nextscale_world::{Error, World};
use proptest::prelude::*;

/// Numbers of any size, the same for the same rank and place.
fn number(seed: u64, rank: usize, at: usize) -> f32 {
    let mut x = seed ^ ((rank as u64) << 32) ^ at as u64;
    for _ in 0..3 {
        x = (x ^ (x >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    }
    let scale = [1e-3, 1.0, 1e4, 1e10][(x >> 60) as usize % 4];
    ((x >> 20) as f64 / (1u64 << 43) as f64 - 1.0) as f32 * scale
}

fn numbers(seed: u64, rank: usize, len: usize) -> Vec<f32> {
    (0..len).map(|at| number(seed, rank, at)).collect()
}

/// The sum that begins after rank `last` and ends with it.
fn fixed_sum(seed: u64, size: usize, last: usize, at: usize) -> f32 {
    let ranks = (1..=size).map(|step| (last + step) % size);
    ranks
        .map(|rank| number(seed, rank, at))
        .reduce(|a, b| a + b)
        .unwrap()
}

fn even(len: usize, parts: usize) -> Vec<Range<usize>> {
    let mut start = 0;
    let ranges = (0..parts).map(|part| {
        let end = start + len / parts + usize::from(part < len % parts);
        let range = start..end;
        start = end;
        range
    });
    ranges.collect()
}

fn check_all_reduce(seed: u64, size: usize, len: usize) {
    let results = members(size, |world| {
        let mut values = numbers(seed, world.rank(), len);
        world.all_reduce(&mut values).unwrap();
        world.finish().unwrap();
        values
    });
    for (last, range) in even(len, size).into_iter().enumerate() {
        for at in range {
            let expected = fixed_sum(seed, size, last, at);
            let exact: f64 = (0..size)
                .map(|rank| f64::from(number(seed, rank, at)))
                .sum();
            let size_of: f64 = (0..size)
                .map(|rank| f64::from(number(seed, rank, at)).abs())
                .sum();
            assert!(
                (f64::from(expected) - exact).abs() <= size_of * 1e-6,
                "{expected} {exact}"
            );
            for values in &results {
                assert_eq!(
                    values[at].to_bits(),
                    expected.to_bits(),
                    "{size} {len} {at}"
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn sums_of_a_ring(seed: u64, size in 1usize..=5, len in 0usize..=50) {
        check_all_reduce(seed, size, len);
    }

    #[test]
    fn ranges_of_any_length(
        seed: u64,
        lengths in proptest::collection::vec(prop_oneof![Just(0usize), 0usize..9, 0usize..70_000], 1..=4),
        gap in 0usize..3,
    ) {
        let size = lengths.len();
        let mut start = 0;
        let ranges: Vec<Range<usize>> = lengths.iter().map(|len| {
            let range = start + gap..start + gap + len;
            start = range.end;
            range
        }).collect();
        let len = start + gap;
        let results = members(size, |world| {
            let mut values = numbers(seed, world.rank(), len);
            world.reduce_scatter(&mut values, &ranges).unwrap();
            let own = values[ranges[world.rank()].clone()].to_vec();
            // What is gathered is each one's own range alone.
            let mut all = vec![f32::NAN; len];
            all[ranges[world.rank()].clone()].copy_from_slice(&own);
            world.all_gather(&mut all, &ranges).unwrap();
            world.finish().unwrap();
            all
        });
        for (rank, range) in ranges.iter().enumerate() {
            for at in range.clone() {
                let expected = fixed_sum(seed, size, rank, at);
                for all in &results {
                    prop_assert_eq!(all[at].to_bits(), expected.to_bits());
                }
            }
        }
        for all in &results {
            prop_assert_eq!(all.iter().filter(|value| value.is_nan()).count(), gap * (size + 1));
        }
    }

    #[test]
    fn small_collectives(size in 1usize..=4, values in proptest::collection::vec(-1e9f64..1e9, 0..20)) {
        let results = members(size, |world| {
            let rank = world.rank();
            let mut sums: Vec<f64> = values.iter().map(|v| v * (rank + 1) as f64).collect();
            world.sum(&mut sums).unwrap();
            let mut bytes = vec![rank as u8; rank * 3];
            if world.is_first() {
                bytes = b"from the first".to_vec();
            }
            world.broadcast(&mut bytes).unwrap();
            let all = world.gather(&vec![rank as u8; rank * 2]).unwrap();
            let collected = world.collect(vec![rank as u8; rank * 2]).unwrap();
            assert_eq!(collected.as_ref(), world.is_first().then_some(&all));
            world.barrier().unwrap();
            world.check().unwrap();
            world.finish().unwrap();
            (sums, bytes, all)
        });
        let expected: Vec<f64> = values.iter()
            .map(|v| (1..size).fold(*v, |sum, rank| sum + v * (rank + 1) as f64))
            .collect();
        for (sums, bytes, all) in results {
            prop_assert!(sums.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()));
            prop_assert_eq!(bytes, b"from the first");
            prop_assert_eq!(all, (0..size).map(|r| vec![r as u8; r * 2]).collect::<Vec<_>>());
        }
    }
}

#[test]
fn many_numbers() {
    check_all_reduce(7, 3, 3_000_001);
    check_all_reduce(8, 2, 1_000_000);
}

#[test]
fn large_messages_through_rank_0() {
    let all = members(3, |world| {
        let mut bytes = match world.is_first() {
            true => (0..20_000_000u32).map(|i| (i % 251) as u8).collect(),
            false => Vec::new(),
        };
        world.broadcast(&mut bytes).unwrap();
        let lens: Vec<usize> = world.gather(&bytes).unwrap().iter().map(Vec::len).collect();
        world.finish().unwrap();
        (bytes.iter().map(|b| u64::from(*b)).sum::<u64>(), lens)
    });
    assert!(all.iter().all(|one| *one == all[0]));
    assert_eq!(all[0].1, [20_000_000; 3]);
}

#[test]
fn one_after_another_without_waiting() {
    let results = members(3, |world| {
        let mut total = 0.0;
        for step in 0..200 {
            let mut values = vec![(world.rank() + step) as f32; step % 7];
            world.all_reduce(&mut values).unwrap();
            let mut sums = [1.0];
            if step % 5 == 0 {
                world.sum(&mut sums).unwrap();
            }
            total += values.iter().sum::<f32>() + sums[0] as f32;
        }
        world.finish().unwrap();
        total
    });
    assert!(results[0] > 0.0 && results.iter().all(|total| *total == results[0]));
}

#[test]
fn members_know_each_other() {
    let names = members(3, |world| {
        let name = format!("{:?} {}", world, world.member(2));
        assert_eq!(world.host(1), "host-1");
        assert_eq!((world.local_rank(), world.local_size()), (world.rank(), 3));
        assert_eq!((world.size(), world.is_first()), (3, world.rank() == 0));
        world.finish().unwrap();
        name
    });
    assert!(names[0].contains("host-0") && names[0].ends_with("rank 2 on host-2"));
}

#[test]
fn alone_all_is_as_it_was() {
    let world = World::alone();
    assert_eq!((world.rank(), world.size(), world.is_first()), (0, 1, true));
    let (mut few, mut many, mut bytes) = ([1.5, -2.0], [1f32, 2.0], b"ab".to_vec());
    world.sum(&mut few).unwrap();
    world.all_reduce(&mut many).unwrap();
    let whole = even(2, 1);
    world.reduce_scatter(&mut many, &whole).unwrap();
    world.all_gather(&mut many, &whole).unwrap();
    world.broadcast(&mut bytes).unwrap();
    world.barrier().unwrap();
    assert_eq!(
        (few, many, &bytes[..]),
        ([1.5, -2.0], [1.0, 2.0], &b"ab"[..])
    );
    assert_eq!(world.gather(b"x").unwrap(), [b"x"]);
    assert_eq!(world.collect(b"x".to_vec()).unwrap().unwrap(), [b"x"]);
    world.clone().finish().unwrap();
}

/// Each rank's error.
fn errors(size: usize, body: impl Fn(&World) -> nextscale_world::Result<()> + Sync) -> Vec<Error> {
    members(size, |world| {
        let error = body(&world).unwrap_err();
        assert!(world.check().is_err());
        error
    })
}

#[test]
fn different_collectives_are_named_and_not_waited_for() {
    let differing = [
        errors(3, |world| match world.rank() {
            1 => world.barrier(),
            _ => world.all_reduce(&mut [0.0; 9]),
        }),
        errors(3, |world| match world.rank() {
            1 => world.all_reduce(&mut [0.0; 9]),
            _ => world.barrier(),
        }),
        errors(2, |world| match world.rank() {
            0 => world.sum(&mut [0.0; 2]),
            _ => world.sum(&mut [0.0; 3]),
        }),
        errors(4, |world| {
            world.all_reduce(&mut vec![0.0; 10 + world.rank() / 3])
        }),
        errors(2, |world| {
            let middle = 3 + world.rank();
            world.reduce_scatter(&mut [0.0; 9], &[0..middle, middle..9])
        }),
        errors(2, |world| match world.rank() {
            0 => world.clone().finish(),
            _ => world.barrier(),
        }),
    ];
    for (errors, words) in differing.iter().zip([
        ["`barrier`", "`all_reduce` of 9 numbers", "rank 1 on host-1"],
        ["`barrier`", "`all_reduce` of 9 numbers", "rank 1 on host-1"],
        ["`sum` of 2", "`sum` of 3", "rank 0 on host-0"],
        [
            "`all_reduce` of 10",
            "`all_reduce` of 11",
            "rank 3 on host-3",
        ],
        ["`reduce_scatter` of 9", "ranges", "rank 1"],
        ["`finish`", "`barrier`", "rank 0"],
    ]) {
        for error in errors {
            assert!(matches!(error, Error::Mismatch(_)), "{error}");
            let text = error.to_string();
            assert_eq!(text, errors[0].to_string());
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
    }
}

#[test]
fn ranges_that_cannot_be_are_refused_before_anything_is_sent() {
    members(2, |world| {
        for ranges in [
            &even(3, 1)[..],
            &[0..2, 1..3],
            &[0..2, 2..9],
            &[0..2, 2..3, 3..3],
        ] {
            let error = world.all_gather(&mut [0.0; 3], ranges).unwrap_err();
            assert!(matches!(error, Error::Mismatch(_)));
        }
        world.barrier().unwrap();
        world.finish().unwrap();
    });
}

#[test]
fn one_that_leaves_is_named_by_all() {
    for leaver in 0..3 {
        let texts = members(3, |world| {
            let (told, heard) = std::sync::mpsc::channel();
            world.on_loss(move |error| told.send(error.to_string()).unwrap());
            if world.rank() == leaver {
                world.leave("the image is broken");
                assert!(heard.recv_timeout(Duration::from_millis(10)).is_err());
                assert!(world.barrier().is_err());
                return None;
            }
            let error = world.all_reduce(&mut vec![0.0; 100_000]).unwrap_err();
            // Leaving because of it changes nothing.
            world.leave(&error.to_string());
            assert_eq!(
                heard.recv_timeout(limits().silence).unwrap(),
                error.to_string()
            );
            Some(error.to_string())
        });
        let expected = format!("rank {leaver} on host-{leaver}: the image is broken");
        let texts: Vec<_> = texts.into_iter().flatten().collect();
        assert_eq!(texts, [expected.clone(), expected]);
    }
}

#[test]
fn one_that_is_dropped_is_named() {
    let texts = members(3, |world| {
        if world.rank() == 2 {
            return String::new();
        }
        let error = world.barrier().unwrap_err();
        assert!(matches!(error, Error::Lost { rank: 2, .. }));
        error.to_string()
    });
    assert_eq!(texts[0], "rank 2 on host-2: it ended before the others");
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn another_build_is_refused_by_name() {
    let job = Job::new(2);
    let errors = std::thread::scope(|scope| {
        let threads = [0, 1].map(|rank| {
            let mut identity = job.identity(rank);
            identity.program = format!("trainer 1.{rank}");
            scope.spawn(move || World::join(&identity, limits()).unwrap_err())
        });
        threads.map(|thread| thread.join().unwrap())
    });
    for error in errors {
        assert!(error.is_input());
        let text = error.to_string();
        let words = "rank 1 on host-1 runs trainer 1.1, rank 0 on host-0 trainer 1.0";
        assert!(text.starts_with(words), "{text}");
    }
}

#[test]
fn several_machines_need_names_or_a_secret() {
    let identity = |secret: &str| {
        let vars = [
            ("RANK", "0"),
            ("WORLD_SIZE", "2"),
            ("MASTER_ADDR", "192.0.2.7"),
            ("NEXTSCALE_SECRET", secret),
        ];
        let found = nextscale_world::Identity::find(&nextscale_world::Given::default(), |name| {
            let (_, value) = vars.iter().find(|(key, _)| *key == name)?;
            Some((*value).to_owned())
        });
        found.unwrap()
    };
    let short = nextscale_world::Limits {
        rendezvous: Duration::from_millis(50),
        ..limits()
    };
    let error = World::join(&identity(""), short).unwrap_err();
    assert!(error.is_input());
    assert!(
        error
            .to_string()
            .contains("set NEXTSCALE_SECRET to the same words on every machine")
    );
    let error = World::join(&identity("three words here"), short).unwrap_err();
    assert!(matches!(error, Error::Late(_)), "{error}");
    assert!(
        error
            .to_string()
            .starts_with("rank 1 of 2 did not come within 0.05 s")
    );
}
