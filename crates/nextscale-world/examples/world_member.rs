//! A program of several processes: sums numbers with the others, step by step, and can be told to fail on the way.
//!
//! ```sh
//! torchrun --no-python --nproc-per-node=3 world_member --steps=100
//! world_member --procs=3 --steps=100 --at=2:50:kill
//! ```

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nextscale_world::launch::Launch;
use nextscale_world::{Error, Given, Identity, Limits, Result, World};

/// What rank `rank` does at step `step` of the first start.
#[derive(Clone, Debug, PartialEq)]
struct Act {
    rank: usize,
    step: usize,
    what: String,
}

#[derive(Clone, Debug)]
struct Options {
    procs: usize,
    max_restarts: usize,
    patience: Duration,
    steps: usize,
    pause: Duration,
    len: usize,
    bench: usize,
    limits: Limits,
    acts: Vec<Act>,
    orderly: bool,
}

fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

fn read_options(args: &[String]) -> Option<Options> {
    let mut options = Options {
        procs: 0,
        max_restarts: 0,
        patience: Duration::from_secs(20),
        steps: 20,
        pause: Duration::ZERO,
        len: 1000,
        bench: 0,
        limits: Limits::default(),
        acts: Vec::new(),
        orderly: false,
    };
    for arg in args {
        let (name, value) = arg.split_once('=').unwrap_or((arg, ""));
        match name {
            "--procs" => options.procs = value.parse().ok()?,
            "--max-restarts" => options.max_restarts = value.parse().ok()?,
            "--patience" => options.patience = seconds(value)?,
            "--steps" => options.steps = value.parse().ok()?,
            "--pause" => options.pause = seconds(value)?,
            "--len" => options.len = value.parse().ok()?,
            "--bench" => options.bench = value.parse().ok()?,
            "--rendezvous" => options.limits.rendezvous = seconds(value)?,
            "--silence" => options.limits.silence = seconds(value)?,
            "--collective" => {
                options.limits.collective = seconds(value)?;
                options.limits.first_collective = seconds(value)?;
            }
            "--orderly" => options.orderly = true,
            "--at" => {
                let mut parts = value.split(':');
                options.acts.push(Act {
                    rank: parts.next()?.parse().ok()?,
                    step: parts.next()?.parse().ok()?,
                    what: parts.next()?.to_owned(),
                });
            }
            _ => return None,
        }
    }
    Some(options)
}

/// All processes write to one terminal: a line goes out whole, or those of others get into its middle.
fn write_line(mut to: impl Write, line: String) {
    let _ = to.write_all((line + "\n").as_bytes());
}

fn kill_self(signal: rustix::process::Signal) {
    let _ = rustix::process::kill_process(rustix::process::getpid(), signal);
    // Another thread may be the one that receives it.
    thread::sleep(Duration::from_millis(100));
}

fn act(world: &World, what: &str) -> Result<()> {
    match what {
        "kill" => kill_self(rustix::process::Signal::KILL),
        "stop" => kill_self(rustix::process::Signal::STOP),
        "hang" => thread::sleep(Duration::from_secs(60)),
        "input" => return Err(Error::Input("the flag is wrong".to_owned())),
        "error" => return Err(Error::Late("the disk is full".to_owned())),
        "exit" => std::process::exit(3),
        "other" => world.barrier()?,
        _ => write_line(io::stderr(), format!("unknown act {what}")),
    }
    Ok(())
}

/// Steps as a trainer makes them; true when a signal asked for the end.
fn steps(world: &World, options: &Options, restarted: bool, stop: &AtomicBool) -> Result<bool> {
    let mut values = vec![0f32; options.len];
    for step in 0..options.steps {
        for Act { what, .. } in options
            .acts
            .iter()
            .filter(|act| !restarted && act.rank == world.rank() && act.step == step)
        {
            act(world, what)?;
        }
        for (at, value) in values.iter_mut().enumerate() {
            *value = (world.rank() + at + step) as f32;
        }
        world.all_reduce(&mut values)?;
        let ranks = world.size() * (world.size() - 1) / 2;
        for (at, value) in values.iter().enumerate() {
            assert_eq!(*value, (ranks + world.size() * (at + step)) as f32);
        }
        // All stop at the same step.
        let mut asked = [f64::from(u8::from(stop.load(Ordering::Relaxed)))];
        world.sum(&mut asked)?;
        if asked[0] > 0.0 {
            return Ok(true);
        }
        thread::sleep(options.pause);
    }
    Ok(false)
}

fn bench(world: &World, mebibytes: usize) -> Result<()> {
    let mut values = vec![1f32; mebibytes << 18];
    let mut best = f64::INFINITY;
    for _ in 0..6 {
        world.barrier()?;
        let began = Instant::now();
        world.all_reduce(&mut values)?;
        world.barrier()?;
        best = best.min(began.elapsed().as_secs_f64());
    }
    if world.is_first() {
        let bytes = (values.len() * 4) as f64;
        let moved = 2.0 * (world.size() - 1) as f64 / world.size() as f64 * bytes;
        println!(
            "all_reduce of {mebibytes} MiB among {}: {:.1} ms, {:.2} GB/s of the array, {:.2} GB/s sent by each rank",
            world.size(),
            best * 1e3,
            bytes / best / 1e9,
            moved / best / 1e9,
        );
    }
    Ok(())
}

fn member(options: &Options) -> Result<bool> {
    let stop = Arc::new(AtomicBool::new(false));
    if options.orderly {
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, stop.clone()).map_err(|e| Error::Io {
                what: "signals".to_owned(),
                why: Arc::new(e),
            })?;
        }
    }
    let identity = Identity::of_process(&Given::default())?;
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
    let restarted = set("NEXTSCALE_RESTART") || set("TORCHELASTIC_RESTART_COUNT");
    let world = World::join(&identity, options.limits)?;
    let ended = match options.bench {
        0 => steps(&world, options, restarted, &stop),
        mebibytes => bench(&world, mebibytes).map(|()| false),
    };
    match ended {
        Ok(stopped) => {
            let line = format!(
                "{} of {} by {:?} done, local rank {} of {}{}",
                world.member(world.rank()),
                world.size(),
                identity.source,
                world.local_rank(),
                world.local_size(),
                if restarted { ", started again" } else { "" },
            );
            write_line(io::stdout(), line);
            world.finish()?;
            Ok(stopped)
        }
        Err(error) => {
            world.leave(&error.to_string());
            Err(error)
        }
    }
}

/// The exit code.
pub fn run(args: &[String]) -> i32 {
    let Some(options) = read_options(args) else {
        write_line(io::stderr(), format!("unknown flags: {args:?}"));
        return 2;
    };
    // A process that the launcher started has its flags too.
    if options.procs > 0 && std::env::var_os("NEXTSCALE_RANK").is_none() {
        let program = std::env::current_exe().expect("a program has a path");
        let mut launch = Launch::new(options.procs, program);
        launch.args = std::env::args_os().skip(1).collect();
        launch.max_restarts = options.max_restarts;
        launch.patience = options.patience;
        return launch
            .run(|line| write_line(io::stderr(), line.to_owned()))
            .unwrap_or_else(|error| {
                write_line(io::stderr(), error.to_string());
                1
            });
    }
    match member(&options) {
        Ok(false) => 0,
        Ok(true) => 130,
        Err(error) => {
            write_line(io::stderr(), error.to_string());
            if error.is_input() { 2 } else { 1 }
        }
    }
}

#[allow(dead_code)]
fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    ExitCode::from(run(&args) as u8)
}
