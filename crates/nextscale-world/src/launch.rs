//! Starts the processes of one machine and stays with them: hands signals on, passes their lines through, names the first that
//! failed, and starts all again where that is asked for.
//!
//! Rank 0 writes to this process's standard output and standard error itself; lines of the others come with their rank in
//! front. Every process is in a group of its own, so a terminal's Ctrl-C reaches the launcher alone, which hands it on. Their
//! standard input is a socket whose end tells them that the launcher is gone, however it ended, and on which they say who is to
//! blame when a member is lost.

use std::ffi::OsString;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use crate::{Error, Result};

/// After SIGTERM, until SIGKILL.
const BEFORE_KILL: Duration = Duration::from_secs(10);
/// How long the last lines are waited for after a process's end.
const LAST_LINES: Duration = Duration::from_secs(2);
/// A longer line is passed on in pieces.
const LONGEST_LINE: usize = 64 << 10;

/// What to start. Make it with [`Launch::new`], and change fields as needed.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Launch {
    /// How many processes.
    pub count: usize,
    /// How often all are started again after one has failed. Never after exit code 2, which says that what the user gave is at
    /// fault, after the codes of a run that was asked to stop (129, 130, 143), or after a signal that the launcher handed on.
    pub max_restarts: usize,
    /// The program of every process.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Further environment variables of each rank; ranks past its end have none.
    pub envs: Vec<Vec<(OsString, OsString)>>,
    /// How long the others may take to end by themselves after one has failed. 20 seconds: members notice at once.
    pub patience: Duration,
}

impl Launch {
    /// `count` processes of `program`, which are not started again.
    pub fn new(count: usize, program: impl Into<PathBuf>) -> Self {
        Self {
            count,
            max_restarts: 0,
            program: program.into(),
            args: Vec::new(),
            envs: Vec::new(),
            patience: Duration::from_secs(20),
        }
    }

    /// Starts them and returns when all have ended: 0, or the exit code of the first that failed, 128 and the signal's number
    /// for one that was ended by a signal. `tell` is given a line when one has failed and when all are started again.
    ///
    /// Signals are handled until it returns, so it is for a process that does nothing else.
    ///
    /// # Errors
    /// When processes can't be started, or there are none to start.
    pub fn run(&self, mut tell: impl FnMut(&str)) -> Result<i32> {
        if self.count == 0 {
            return Err(Error::Input("0 processes: at least 1 is needed".to_owned()));
        }
        let signals = Incoming::listen()?;
        let mut secret = [0; 32];
        getrandom::fill(&mut secret)
            .map_err(|e| Error::io("no random numbers", std::io::Error::other(e.to_string())))?;
        let secret = hex(&secret);
        let mut restarts = 0;
        loop {
            let ended = self
                .start(&secret, restarts)?
                .stay(&signals.events, self, &mut tell);
            let Some(code) = ended.code else {
                return Ok(0);
            };
            // 129, 130, 143: asked to stop, its state saved.
            let wanted = ended.signalled || matches!(code, 2 | 129 | 130 | 143) && !ended.killed;
            if wanted || restarts == self.max_restarts {
                return Ok(code);
            }
            restarts += 1;
            tell(&format!(
                "all {} processes are started again (restart {restarts} of {})",
                self.count, self.max_restarts
            ));
        }
    }

    fn start(&self, secret: &str, restarts: usize) -> Result<Running> {
        let port = TcpListener::bind("127.0.0.1:0")
            .and_then(|listener| listener.local_addr())
            .map_err(|e| Error::io("no port is free", e))?
            .port();
        let mut running = Running {
            members: Vec::new(),
        };
        for rank in 0..self.count {
            let mut command = Command::new(&self.program);
            command.args(&self.args);
            for (name, value) in [
                ("RANK", rank.to_string()),
                ("WORLD_SIZE", self.count.to_string()),
                ("LOCAL_RANK", rank.to_string()),
                ("LOCAL_WORLD_SIZE", self.count.to_string()),
                ("MASTER", format!("127.0.0.1:{port}")),
                ("JOB", format!("launch {}", std::process::id())),
                ("RESTART", restarts.to_string()),
                ("SECRET", secret.to_owned()),
                ("FOLLOW", "stdin".to_owned()),
            ] {
                command.env(format!("NEXTSCALE_{name}"), value);
            }
            if let Some(envs) = self.envs.get(rank) {
                command.envs(envs.iter().map(|(name, value)| (name, value)));
            }
            let (ours, theirs) = UnixStream::pair()
                .and_then(|(ours, theirs)| ours.set_nonblocking(true).map(|()| (ours, theirs)))
                .map_err(|e| Error::io("no socket for a process", e))?;
            command.process_group(0).stdin(OwnedFd::from(theirs));
            if rank > 0 {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            let child = match command.spawn() {
                Ok(child) => child,
                Err(error) => {
                    running.signal_groups(Signal::KILL);
                    running.members.iter_mut().for_each(|member| {
                        let _ = member.child.wait();
                    });
                    let program = self.program.display();
                    return Err(Error::io(format!("{program} can't be started"), error));
                }
            };
            running.members.push(Member::new(rank, child, ours));
        }
        Ok(running)
    }
}

/// How all ended.
struct Ended {
    /// Of the first that failed.
    code: Option<i32>,
    /// It was ended by a signal and did not exit.
    killed: bool,
    /// A signal was handed on before that.
    signalled: bool,
}

impl Ended {
    fn set(&mut self, rank: usize, status: ExitStatus, tell: &mut impl FnMut(&str)) {
        self.code = Some(code_of(status));
        self.killed = status.signal().is_some();
        if !self.signalled {
            tell(&format!("rank {rank} {}", in_words(status)));
        }
    }
}

struct Running {
    members: Vec<Member>,
}

struct Member {
    rank: usize,
    child: Child,
    status: Option<ExitStatus>,
    lines: Receiver<()>,
    socket: UnixStream,
}

impl Member {
    fn new(rank: usize, mut child: Child, socket: UnixStream) -> Self {
        // Each reader holds a sender: when all are gone, all lines are out.
        let (open, lines) = mpsc::channel();
        if let Some(out) = child.stdout.take() {
            pass(rank, out, std::io::stdout(), open.clone());
        }
        if let Some(err) = child.stderr.take() {
            pass(rank, err, std::io::stderr(), open);
        }
        Self {
            rank,
            child,
            status: None,
            lines,
            socket,
        }
    }

    /// Whose loss made it end, by its own word.
    fn blames(&self) -> Option<usize> {
        let mut rank = [0; 8];
        (&self.socket).read_exact(&mut rank).ok()?;
        usize::try_from(u64::from_le_bytes(rank)).ok()
    }

    fn pid(&self) -> Option<Pid> {
        i32::try_from(self.child.id()).ok().and_then(Pid::from_raw)
    }

    /// Signals go only to processes that have not been waited for: their numbers are still theirs.
    fn signal(&self, signal: Signal, send: fn(Pid, Signal) -> rustix::io::Result<()>) {
        if let (None, Some(pid)) = (self.status, self.pid()) {
            let _ = send(pid, signal);
        }
    }
}

impl Running {
    /// Stays until all have ended.
    fn stay(
        mut self,
        events: &Receiver<i32>,
        launch: &Launch,
        tell: &mut impl FnMut(&str),
    ) -> Ended {
        let mut ended = Ended {
            code: None,
            killed: false,
            signalled: false,
        };
        let mut failed_at: Option<Instant> = None;
        let (mut termed, mut killed) = (false, false);
        // One that ended because of another, whose end is waited for.
        let mut because: Option<(usize, ExitStatus)> = None;
        loop {
            if let Some((rank, status)) = self.sweep()
                && failed_at.is_none()
            {
                failed_at = Some(Instant::now());
                let blamed = self.members[rank].blames();
                match blamed.filter(|blamed| *blamed != rank && *blamed < self.members.len()) {
                    Some(blamed) => because = Some((blamed, status)),
                    None => ended.set(rank, status, tell),
                }
            }
            if let Some((blamed, status)) = because {
                if let Some(status) = self.members[blamed].status {
                    because = None;
                    ended.set(blamed, status, tell);
                } else if termed {
                    because = None;
                    ended.code = Some(code_of(status));
                    tell(&format!("rank {blamed} did not end by itself"));
                }
            }
            if self.members.iter().all(|member| member.status.is_some()) {
                break;
            }
            if let Some(at) = failed_at {
                if !termed && at.elapsed() >= launch.patience {
                    termed = true;
                    self.signal(Signal::TERM);
                }
                if !killed && at.elapsed() >= launch.patience + BEFORE_KILL {
                    killed = true;
                    self.signal_groups(Signal::KILL);
                }
            }
            let pause = match failed_at {
                Some(_) => Duration::from_millis(100),
                None => Duration::from_secs(1),
            };
            match events.recv_timeout(pause) {
                Ok(SIGCHLD) | Err(RecvTimeoutError::Timeout) => {}
                Ok(signal) => {
                    ended.signalled = true;
                    if let Some(signal) = Signal::from_named_raw(signal) {
                        self.signal(signal);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => thread::sleep(pause),
            }
        }
        let until = Instant::now() + LAST_LINES;
        for member in &self.members {
            let left = until.saturating_duration_since(Instant::now());
            let _ = member.lines.recv_timeout(left);
        }
        ended
    }

    /// Notes who has ended, and gives the one to blame if one has failed.
    fn sweep(&mut self) -> Option<(usize, ExitStatus)> {
        let mut failed = Vec::new();
        for member in &mut self.members {
            if member.status.is_none()
                && let Ok(Some(status)) = member.child.try_wait()
            {
                member.status = Some(status);
                if !status.success() {
                    failed.push((member.rank, status));
                }
            }
        }
        // Several at once: who was killed, or refused what it was given, did not end because of another.
        failed.into_iter().min_by_key(|(rank, status)| {
            let order = match (status.signal(), status.code()) {
                (Some(_), _) => 0,
                (None, Some(2)) => 1,
                _ => 2,
            };
            (order, *rank)
        })
    }

    fn signal(&self, signal: Signal) {
        for member in &self.members {
            member.signal(signal, kill_process);
        }
    }

    fn signal_groups(&self, signal: Signal) {
        for member in &self.members {
            member.signal(signal, kill_process_group);
        }
    }
}

fn code_of(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn in_words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => match signal_hook::low_level::signal_name(signal) {
            Some(name) => format!("ended by signal {signal} ({name})"),
            None => format!("ended by signal {signal}"),
        },
        (None, None) => "ended".to_owned(),
    }
}

/// Copies lines with the rank in front.
fn pass(
    rank: usize,
    from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    open: Sender<()>,
) {
    thread::spawn(move || {
        let mut from = BufReader::new(from);
        let mut line = format!("[rank {rank}] ").into_bytes();
        let start = line.len();
        loop {
            line.truncate(start);
            let read = from
                .by_ref()
                .take(LONGEST_LINE as u64)
                .read_until(b'\n', &mut line);
            if !matches!(read, Ok(n) if n > 0) {
                break;
            }
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            let _ = to.write_all(&line).and_then(|()| to.flush());
        }
        drop(open);
    });
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Signals of this process, while it lives.
struct Incoming {
    events: Receiver<i32>,
    handle: Handle,
}

impl Incoming {
    fn listen() -> Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGCHLD])
            .map_err(|e| Error::io("signals can't be handled", e))?;
        let handle = signals.handle();
        let (send, events) = mpsc::channel();
        thread::spawn(move || {
            for signal in signals.forever() {
                if send.send(signal).is_err() {
                    break;
                }
            }
        });
        Ok(Self { events, handle })
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.handle.close();
    }
}
