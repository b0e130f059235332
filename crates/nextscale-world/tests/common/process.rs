//! Processes of a test: this test's own program, which becomes the example `world_member` when it is told to.
#![allow(dead_code)]

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::common::Job;
use crate::world_member;

const ARGS: &str = "WORLD_MEMBER_ARGS";
/// Far more than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);

/// Called by the test `member_process`, which in a child never returns.
pub fn become_member() {
    if let Ok(args) = std::env::var(ARGS) {
        let args: Vec<String> = args.split_whitespace().map(str::to_owned).collect();
        std::process::exit(world_member::run(&args));
    }
}

pub struct Process {
    child: Child,
    out: JoinHandle<String>,
    err: JoinHandle<String>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

fn read(mut from: impl Read + Send + 'static) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = from.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

impl Process {
    pub fn start(args: &str, vars: &[(&str, String)]) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "member_process", "--nocapture", "--quiet"]);
        command.env(ARGS, args).env("RUST_BACKTRACE", "0");
        for (name, value) in vars {
            command.env(name, value);
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self {
            out: read(child.stdout.take().unwrap()),
            err: read(child.stderr.take().unwrap()),
            child,
        }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn end(mut self) -> Ended {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > until {
                let _ = self.child.kill();
                panic!("a process hangs: {}", self.err.join().unwrap());
            }
            thread::sleep(Duration::from_millis(10));
        };
        Ended {
            code: status.code(),
            out: self.out.join().unwrap(),
            err: self.err.join().unwrap(),
        }
    }
}

impl Job {
    pub fn start(&self, rank: usize, args: &str) -> Process {
        self.start_with(rank, args, &[])
    }

    /// Further variables count more.
    pub fn start_with(&self, rank: usize, args: &str, more: &[(&'static str, &str)]) -> Process {
        let mut vars = self.vars(rank);
        vars.extend(
            more.iter()
                .map(|(name, value)| (*name, (*value).to_owned())),
        );
        Process::start(args, &vars)
    }

    /// All ranks with the same flags.
    pub fn run(&self, args: &str) -> Vec<Ended> {
        let processes: Vec<_> = (0..self.size).map(|rank| self.start(rank, args)).collect();
        processes.into_iter().map(Process::end).collect()
    }
}
