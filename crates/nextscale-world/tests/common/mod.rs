//! What tests of several files need.
#![allow(dead_code, missing_docs)]

use std::net::TcpListener;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nextscale_world::{Given, Identity, Limits, World};

static JOB: AtomicU64 = AtomicU64::new(0);

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

/// A job of `size` threads or processes.
#[derive(Clone)]
pub struct Job {
    pub size: usize,
    port: u16,
    name: String,
}

impl Job {
    pub fn new(size: usize) -> Self {
        let number = JOB.fetch_add(1, Ordering::Relaxed);
        Self {
            size,
            port: free_port(),
            name: format!("{} {number}", std::process::id()),
        }
    }

    pub fn vars(&self, rank: usize) -> Vec<(&'static str, String)> {
        vec![
            ("NEXTSCALE_RANK", rank.to_string()),
            ("NEXTSCALE_WORLD_SIZE", self.size.to_string()),
            ("NEXTSCALE_LOCAL_RANK", rank.to_string()),
            ("NEXTSCALE_LOCAL_WORLD_SIZE", self.size.to_string()),
            ("NEXTSCALE_MASTER", format!("127.0.0.1:{}", self.port)),
            ("NEXTSCALE_JOB", self.name.clone()),
            ("NEXTSCALE_HOST", format!("host-{rank}")),
        ]
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn identity(&self, rank: usize) -> Identity {
        let vars = self.vars(rank);
        let found = Identity::find(&Given::default(), |name| {
            let (_, value) = vars.iter().find(|(key, _)| *key == name)?;
            Some(value.clone())
        });
        found.unwrap()
    }
}

/// Short ones for tests.
pub fn limits() -> Limits {
    Limits {
        rendezvous: Duration::from_secs(30),
        silence: Duration::from_secs(10),
        ..Limits::default()
    }
}

/// Runs `body` as every rank of a job, a thread each, and gives what they return.
pub fn members<T: Send>(size: usize, body: impl Fn(World) -> T + Sync) -> Vec<T> {
    let job = Job::new(size);
    thread::scope(|scope| {
        let (job, body) = (&job, &body);
        let threads: Vec<_> = (0..size)
            .map(|rank| {
                scope.spawn(move || body(World::join(&job.identity(rank), limits()).unwrap()))
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    })
}
