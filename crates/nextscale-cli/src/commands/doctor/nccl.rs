//! `nextscale doctor --nccl`: whether processes reach each other, and how fast their sums are.
//!
//! All processes form a world as they do for a training. In it groups are tried one after the other: all ranks, then pairs. On GPUs a
//! group is a communicator of NCCL's of its own, with a deadline after which it is given up, and the next is tried all the same;
//! on CPUs all ranks sum around the world's ring.

use super::super::processes::ProcessArgs;
use super::groups::{pairs, rounds};
use nextscale::device::device_of;
use nextscale::options::values::DeviceChoice;
use nextscale::{Error, Result, World, say};
use nextscale_tensor::Device;
use nextscale_tensor::cuda::nccl::{Communicator, UniqueId, unique_id};
use nextscale_tensor::cuda::{self, DeviceBuffer, DevicePtr, Gpu};
use nextscale_world::Limits;
use serde_json::{Value, json};
use std::cell::Cell;
use std::process::ExitCode;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Numbers of the smallest sum, and by what each next one is larger.
const SMALLEST: usize = 8;
const LARGER: usize = 32;
/// Sums that are timed: small ones, large ones.
const RUNS: [usize; 2] = [50, 5];
/// Values of a sum repeat after so many.
const PERIOD: usize = 251;
/// What a group may take beyond its deadlines before others give it up.
const GRACE: Duration = Duration::from_secs(30);

/// Flags of `doctor --nccl`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct NcclArgs {
    /// Try sums among processes, all and pair by pair: over NCCL on GPUs, over TCP on CPUs; start it as a training of several processes is started
    #[arg(long)]
    pub nccl: bool,
    /// What the processes sum on: auto, cpu or cuda
    #[arg(long, requires = "nccl", default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// How long a group may take to meet, and to sum
    #[arg(long, requires = "nccl", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    deadline: u64,
    /// The largest sum, in MiB of float32
    #[arg(long, requires = "nccl", value_name = "MIB", default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=16_384))]
    largest: u64,
    #[command(flatten)]
    pub processes: ProcessArgs,
}

/// Runs all groups; the exit code is 1 where one of them failed.
pub fn run(args: &NcclArgs) -> Result<ExitCode> {
    let deadline = Duration::from_secs(args.deadline);
    let on_cpus = match args.device {
        DeviceChoice::Cpu => true,
        DeviceChoice::Auto => cuda::count() == 0,
        DeviceChoice::Cuda(_) => false,
    };
    // Who is in no group waits for those that are, who may take two deadlines.
    let waits = match on_cpus {
        true => deadline,
        false => 2 * deadline + GRACE,
    };
    let limits = Limits {
        rendezvous: deadline,
        first_collective: waits,
        collective: waits,
        ..Limits::default()
    };
    let failed = Cell::new(0);
    let code = args.processes.share_within(limits, |team| {
        let trial = Trial {
            world: &team.world,
            device: device_of(args.device, &team.world)?,
            deadline,
            largest: (args.largest as usize) << 18,
        };
        failed.set(trial.run()?);
        Ok(())
    })?;
    Ok(match failed.get() {
        0 => code,
        _ => ExitCode::FAILURE,
    })
}

/// What a member found of its group.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Found {
    /// Microseconds of a small sum.
    latency: f64,
    /// GB/s of bus bandwidth of the largest.
    bandwidth: f64,
}

struct Trial<'a> {
    world: &'a World,
    device: Device,
    deadline: Duration,
    /// Numbers of the largest sum.
    largest: usize,
}

impl Trial<'_> {
    /// The number of groups that failed.
    fn run(&self) -> Result<usize> {
        let world = self.world;
        if world.size() == 1 {
            return Err(Error::input(
                "--nccl tries sums among several processes: give --procs=N or --procs=all, or start it by torchrun, srun or mpirun",
            ));
        }
        let on_gpu = self.device != Device::Cpu;
        let kinds = world.gather(&[u8::from(on_gpu)])?;
        if let Some(rank) = kinds.iter().position(|k| *k != kinds[0]) {
            return Err(Error::input(format!(
                "{} and {} are not both on GPUs; give --device=cuda or --device=cpu to all",
                world.member(0),
                world.member(rank)
            )));
        }
        let hosts: Vec<&str> = (0..world.size()).map(|rank| world.host(rank)).collect();
        let all: Vec<usize> = (0..world.size()).collect();
        if !on_gpu {
            let found = self.on_cpus()?;
            return self.tell("TCP", &all, found);
        }
        let mut failed = self.round(&[all])?;
        for round in rounds(&pairs(&hosts), &hosts) {
            let round: Vec<Vec<usize>> = round.iter().map(|pair| pair.to_vec()).collect();
            failed += self.round(&round)?;
        }
        Ok(failed)
    }

    /// Prints what became of a group whose members all got this far.
    fn tell(&self, by: &str, ranks: &[usize], found: Vec<Result<Found, String>>) -> Result<usize> {
        let lines = verdict(self.world, by, ranks, self.largest, &found);
        if self.world.is_first() {
            lines.iter().try_for_each(|line| say!("{line}"))?;
        }
        Ok(usize::from(found.iter().any(Result::is_err)))
    }

    /// What all members found around the ring of the world, whose own limits end what does not come.
    fn on_cpus(&self) -> Result<Vec<Result<Found, String>>> {
        let mut values = vec![0.0; self.largest];
        let (rank, size) = (self.world.rank(), self.world.size());
        let mut own = Ok(());
        for n in sizes(self.largest) {
            fill(&mut values[..n], rank);
            self.world.all_reduce(&mut values[..n])?;
            own = own.and_then(|()| check(&values[..n], size));
        }
        let seconds = |n: usize, runs: usize| -> Result<f64> {
            values[..n].fill(0.0);
            self.world.barrier()?;
            let begun = Instant::now();
            for _ in 0..runs {
                self.world.all_reduce(&mut values[..n])?;
            }
            Ok(begun.elapsed().as_secs_f64() / runs as f64)
        };
        let found = Found::of(size, self.largest, seconds)?;
        self.exchange(Some(own.map(|()| found)))
            .map(|told| told.into_iter().flatten().collect())
    }

    /// Tries groups that have no rank in common, at the same time.
    fn round(&self, groups: &[Vec<usize>]) -> Result<usize> {
        let rank = self.world.rank();
        let own = groups.iter().find(|ranks| ranks.contains(&rank));
        // The first of a group makes its name; where it can't, the group hears why.
        let named = own.filter(|ranks| ranks[0] == rank).map(|_| unique_id());
        let name = match &named {
            Some(Ok(id)) => id.bytes().to_vec(),
            _ => Vec::new(),
        };
        let names = self.world.gather(&name)?;
        let tried = own.map(|ranks| -> Result<Found, String> {
            if let Some(Err(e)) = &named {
                return Err(e.to_string());
            }
            let id: [u8; 128] = names[ranks[0]].as_slice().try_into().map_err(|_| {
                format!("{} could not begin the group", self.world.member(ranks[0]))
            })?;
            self.on_gpus(ranks, &UniqueId::from_bytes(id))
                .map_err(|e| e.to_string())
        });
        let told = self.exchange(tried)?;
        let mut failed = 0;
        for ranks in groups {
            let none = || Err("said nothing".to_owned());
            let found = ranks.iter().map(|&r| told[r].clone().unwrap_or_else(none));
            failed += self.tell("NCCL", ranks, found.collect())?;
        }
        Ok(failed)
    }

    /// The sums of one group on GPUs, of which this process is a member.
    fn on_gpus(&self, ranks: &[usize], id: &UniqueId) -> Result<Found> {
        let Device::Cuda(number) = self.device else {
            return Err(Error::failed("this process is on a CPU"));
        };
        let gpu = Gpu::get(number)?;
        let own = ranks.iter().position(|&r| r == self.world.rank());
        let own = own.ok_or_else(|| Error::failed("this process is not in the group"))?;
        let wait = || {
            let alive = self.world.check();
            alive.map_err(|e| cuda::Error::Device(e.to_string()))
        };
        let size = ranks.len();
        let group = Communicator::new(gpu, own, size, id, &wait, self.deadline)?;
        let group = Arc::new(group);
        let lost = Arc::downgrade(&group);
        self.world.on_loss(move |_| give_up(&lost));
        // Whoever waits for others waits on the GPU, which only an abort ends.
        let (done, over) = channel::<()>();
        let late = Arc::downgrade(&group);
        let deadline = self.deadline;
        let watch = std::thread::spawn(move || {
            let is_late = over.recv_timeout(deadline) == Err(RecvTimeoutError::Timeout);
            if is_late {
                give_up(&late);
            }
            is_late
        });
        let found = self.sums(gpu, &group, own);
        drop(done);
        let is_late = watch.join().unwrap_or(false);
        found.map_err(|e| match is_late {
            true => Error::failed(format!("not done in {} s ({e})", self.deadline.as_secs())),
            false => e,
        })
    }

    fn sums(&self, gpu: &'static Gpu, group: &Communicator, own: usize) -> Result<Found> {
        let buffer = DeviceBuffer::new(gpu, 4 * self.largest)?;
        let at = DevicePtr(&buffer, 0);
        let sum = |n: usize, runs: usize| -> Result<()> {
            for _ in 0..runs {
                group.all_reduce(at, n)?;
            }
            group.join()?;
            gpu.synchronize()?;
            // After an abort values are worth nothing.
            Ok(group.check()?)
        };
        let mut values = vec![0.0; self.largest];
        let mut bytes = vec![0; 4 * self.largest];
        for n in sizes(self.largest) {
            fill(&mut values[..n], own);
            for (to, value) in bytes.chunks_exact_mut(4).zip(&values[..n]) {
                to.copy_from_slice(&value.to_le_bytes());
            }
            gpu.upload(&bytes[..4 * n], &buffer)?;
            sum(n, 1)?;
            gpu.download(&buffer, &mut bytes[..4 * n])?;
            for (value, from) in values[..n].iter_mut().zip(bytes.chunks_exact(4)) {
                *value = f32::from_le_bytes([from[0], from[1], from[2], from[3]]);
            }
            check(&values[..n], group.size()).map_err(Error::failed)?;
        }
        Found::of(group.size(), self.largest, |n, runs| {
            gpu.zero(at, 4 * n)?;
            // A first one, so that all begin together.
            sum(n, 1)?;
            let begun = Instant::now();
            sum(n, runs)?;
            Ok(begun.elapsed().as_secs_f64() / runs as f64)
        })
    }

    /// What every process found; `None` of those that were in no group.
    fn exchange(
        &self,
        own: Option<Result<Found, String>>,
    ) -> Result<Vec<Option<Result<Found, String>>>> {
        let told = self.world.gather(to_json(&own).to_string().as_bytes())?;
        Ok(told.iter().map(|bytes| of_json(bytes)).collect())
    }
}

impl Found {
    /// By `seconds` of so many sums of so many numbers each.
    fn of(
        size: usize,
        largest: usize,
        mut seconds: impl FnMut(usize, usize) -> Result<f64>,
    ) -> Result<Self> {
        let small = seconds(SMALLEST, RUNS[0])?;
        let large = seconds(largest, RUNS[1])?;
        let around = 2.0 * (size as f64 - 1.0) / size as f64;
        Ok(Self {
            latency: 1e6 * small,
            bandwidth: around * 4.0 * largest as f64 / large.max(f64::MIN_POSITIVE) / 1e9,
        })
    }
}

fn give_up(group: &Weak<Communicator>) {
    if let Some(group) = group.upgrade() {
        group.abort();
    }
}

/// Growing numbers of values, up to the largest.
fn sizes(largest: usize) -> Vec<usize> {
    let mut sizes: Vec<usize> = std::iter::successors(Some(SMALLEST), |n| n.checked_mul(LARGER))
        .take_while(|n| *n < largest)
        .collect();
    sizes.push(largest);
    sizes
}

/// What the member `rank` brings to a sum: whole numbers, so that sums are exact in any order.
fn fill(values: &mut [f32], rank: usize) {
    let own = (rank + 1) as f32;
    for (i, value) in values.iter_mut().enumerate() {
        *value = own + (i % PERIOD) as f32;
    }
}

/// Whether these are the sums of what `size` members brought.
fn check(values: &[f32], size: usize) -> Result<(), String> {
    let ranks = size * (size + 1) / 2;
    for (i, &value) in values.iter().enumerate() {
        let wanted = (ranks + size * (i % PERIOD)) as f32;
        if value != wanted {
            return Err(format!(
                "a wrong sum: value {i} of {} is {value} and should be {wanted}",
                values.len()
            ));
        }
    }
    Ok(())
}

fn to_json(own: &Option<Result<Found, String>>) -> Value {
    match own {
        None => Value::Null,
        Some(Ok(f)) => json!([f.latency, f.bandwidth]),
        Some(Err(why)) => json!(why),
    }
}

fn of_json(bytes: &[u8]) -> Option<Result<Found, String>> {
    let strange = || Some(Err("sent what is no message".to_owned()));
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else {
        return strange();
    };
    match value {
        Value::Null => None,
        Value::String(why) => Some(Err(why)),
        Value::Array(f) => match (
            f.first().and_then(Value::as_f64),
            f.get(1).and_then(Value::as_f64),
        ) {
            (Some(latency), Some(bandwidth)) => Some(Ok(Found { latency, bandwidth })),
            _ => strange(),
        },
        _ => strange(),
    }
}

/// What to print of a group: one line where all is well, else one more for each member that failed.
fn verdict(
    world: &World,
    by: &str,
    ranks: &[usize],
    largest: usize,
    found: &[Result<Found, String>],
) -> Vec<String> {
    let whole = ranks.len() == world.size();
    let name = match whole {
        true => format!("all {} ranks", ranks.len()),
        false => {
            let hosts: Vec<&str> = ranks.iter().map(|&r| world.host(r)).collect();
            let numbers: Vec<String> = ranks.iter().map(usize::to_string).collect();
            let on = match hosts.iter().all(|h| *h == hosts[0]) {
                true => hosts[0].to_owned(),
                false => hosts.join(" and "),
            };
            format!("ranks {} on {on}", numbers.join(" and "))
        }
    };
    let failed: Vec<_> = ranks
        .iter()
        .zip(found)
        .filter_map(|(r, f)| Some((*r, f.as_ref().err()?)))
        .collect();
    if failed.is_empty() {
        let ok = || found.iter().flatten();
        let latency = ok().map(|f| f.latency).fold(0.0, f64::max);
        let bandwidth = ok().map(|f| f.bandwidth).fold(f64::INFINITY, f64::min);
        return vec![format!(
            "{by:<12} {name}: ok, {latency:.0} us a small sum, {bandwidth:.2} GB/s of bus bandwidth at {} MiB",
            largest >> 18
        )];
    }
    let mut lines = vec![format!("{by:<12} {name}: FAILED")];
    lines.extend(
        failed
            .iter()
            .map(|(rank, why)| format!("{:<12} {}: {why}", "", world.member(*rank))),
    );
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_checked_value_by_value() {
        let mut sum = vec![0.0; 600];
        for rank in 0..3 {
            let mut own = vec![0.0; 600];
            fill(&mut own, rank);
            sum.iter_mut().zip(own).for_each(|(s, x)| *s += x);
        }
        assert_eq!(check(&sum, 3), Ok(()));
        assert!(check(&sum, 2).is_err());
        sum[599] += 1.0;
        let why = check(&sum, 3).unwrap_err();
        assert!(why.contains("value 599 of 600"), "{why}");
    }

    #[test]
    fn sizes_grow_to_the_largest() {
        assert_eq!(sizes(8), [8]);
        assert_eq!(
            sizes(64 << 20),
            [8, 256, 8192, 262_144, 8_388_608, 64 << 20]
        );
    }

    #[test]
    fn what_was_found_goes_over_the_wire() {
        let found = Found {
            latency: 12.5,
            bandwidth: 300.25,
        };
        for own in [None, Some(Ok(found)), Some(Err("late".to_owned()))] {
            assert_eq!(of_json(to_json(&own).to_string().as_bytes()), own);
        }
        assert!(matches!(of_json(b"{"), Some(Err(_))));
        assert!(matches!(of_json(b"[1]"), Some(Err(_))));
    }

    #[test]
    fn bandwidth_counts_what_each_link_of_a_ring_carries() {
        let found = Found::of(4, 1_000_000, |n, _| Ok(n as f64 * 1e-8)).unwrap();
        assert!((found.bandwidth - 1.5 * 4e6 / 0.01 / 1e9).abs() < 1e-9);
        assert!((found.latency - 0.08).abs() < 1e-9);
    }

    /// A GPU that computes nothing: its sums are zeros, which is told.
    #[test]
    fn a_group_on_a_gpu_is_tried_to_its_check() {
        let like = nextscale::plan::Kind::named("h100-80g").unwrap().info;
        let world = World::alone();
        let trial = Trial {
            world: &world,
            device: cuda::dry::device(&like),
            deadline: Duration::from_secs(60),
            largest: 1 << 10,
        };
        let id = UniqueId::from_bytes([7; 128]);
        let begun = Instant::now();
        let e = trial.on_gpus(&[0], &id).unwrap_err().to_string();
        assert!(e.contains("value 0 of 8 is 0 and should be 1"), "{e}");
        assert!(
            begun.elapsed() < Duration::from_secs(30),
            "nobody is waited for"
        );
        let e = trial.on_gpus(&[1], &id).unwrap_err().to_string();
        assert!(e.contains("not in the group"), "{e}");
    }

    #[test]
    fn a_group_that_failed_names_its_ranks_and_hosts() {
        let world = World::alone();
        let lines = verdict(
            &world,
            "NCCL",
            &[0],
            1 << 26,
            &[Err("not done in 60 s".into())],
        );
        assert_eq!(lines.len(), 2);
        assert!(
            lines[0].contains("FAILED") && lines[1].contains("rank 0 on "),
            "{lines:?}"
        );
        let ok = Found {
            latency: 20.0,
            bandwidth: 330.0,
        };
        let lines = verdict(&world, "NCCL", &[0], 1 << 26, &[Ok(ok)]);
        assert!(
            lines[0].ends_with("330.00 GB/s of bus bandwidth at 256 MiB"),
            "{lines:?}"
        );
    }
}
