//! Which process of the job this one is, from flags or from what its launcher put into the environment.

mod environment;

use std::fmt;
use std::net::IpAddr;

use self::environment::{Vars, by_environment, hydra_helper};
use crate::{Error, Result};

/// More processes than that are a mistake.
const MOST: usize = 1 << 16;
/// PyTorch's port where none is given.
const USUAL_PORT: u16 = 29500;
/// The fewest bytes of a secret.
const SHORTEST_SECRET: usize = 8;

/// What the user gave by flags. Each given field counts more than the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// This process's number, from 0; together with `world_size`.
    pub rank: Option<usize>,
    /// The number of processes.
    pub world_size: Option<usize>,
    /// This process's number on its machine.
    pub local_rank: Option<usize>,
    /// `HOST` or `HOST:PORT` of rank 0.
    pub master: Option<String>,
    /// Names or addresses of all machines. Without a secret only these are let in.
    pub hosts: Vec<String>,
}

/// A secret of the job's processes; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub(crate) Vec<u8>);

impl Secret {
    /// A secret of these bytes.
    ///
    /// # Errors
    /// When they are fewer than 8.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self> {
        let bytes = bytes.into();
        match bytes.len() >= SHORTEST_SECRET {
            true => Ok(Self(bytes)),
            false => Err(Error::Input(format!(
                "NEXTSCALE_SECRET is shorter than {SHORTEST_SECRET} characters: take more words"
            ))),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Who said which process this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Source {
    /// Nobody: it is alone.
    Nobody,
    /// Flags.
    Flags,
    /// This crate's own launcher: `NEXTSCALE_RANK` and others.
    Launch,
    /// `RANK`, `WORLD_SIZE` and others: torchrun, Kubernetes.
    Plain,
    /// `srun`.
    Slurm,
    /// Open MPI's `mpirun`.
    OpenMpi,
    /// MPICH's or Intel MPI's `mpiexec`.
    Hydra,
}

/// At which ports rank 0 may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// This one and some after it.
    From(u16),
    /// Some after this one, which another program uses.
    After(u16),
    /// Some that follow from the job's name.
    OfJob,
}

/// Which process of the job this one is, and where the others are found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Identity {
    /// This process's number, from 0.
    pub rank: usize,
    /// The number of processes.
    pub size: usize,
    /// Its number on its machine, where the launcher says so.
    pub local_rank: Option<usize>,
    /// The number of processes on its machine, where the launcher says so.
    pub local_size: Option<usize>,
    /// Where rank 0 may be: names or addresses, tried in turn.
    pub masters: Vec<String>,
    /// At which ports.
    pub ports: Ports,
    /// Names or addresses of all machines, where they are known.
    pub hosts: Vec<String>,
    /// What tells this job from others.
    pub job: String,
    /// What tells a restarted job from what is left of it.
    pub incarnation: u64,
    /// What the members know and others don't.
    pub secret: Option<Secret>,
    /// What this machine is called in messages.
    pub host: String,
    /// Name and version of the program: members of another one are refused.
    pub program: String,
    /// Whether the end of standard input means that the launcher is gone.
    pub follows_stdin: bool,
    /// Who said all this.
    pub source: Source,
}

impl Identity {
    /// Of this process.
    ///
    /// # Errors
    /// When flags or variables contradict each other or can't be read.
    pub fn of_process(given: &Given) -> Result<Self> {
        let mut identity = Self::find(given, |name| std::env::var(name).ok())?;
        if identity.source == Source::Hydra && identity.job.is_empty() && identity.is_one_host() {
            // Hydra gives its jobs no name; its helper is the parent of all of a machine.
            identity.job = hydra_helper().map_or_else(String::new, |pid| format!("hydra {pid}"));
        }
        Ok(identity)
    }

    /// From flags and a look-up of environment variables.
    ///
    /// # Errors
    /// When flags or variables contradict each other or can't be read.
    pub fn find(given: &Given, env: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let vars = Vars(&env);
        let mut identity = match by_flags(given)? {
            Some(identity) => identity,
            None => by_environment(&vars)?,
        };
        if let Some(rank) = given.local_rank {
            identity.local_rank = Some(rank);
        }
        match (&given.master, vars.text("NEXTSCALE_MASTER")) {
            (Some(master), _) => identity.set_master("`master`", master)?,
            (None, Some(master)) => identity.set_master("NEXTSCALE_MASTER", &master)?,
            (None, None) => {}
        }
        if !given.hosts.is_empty() {
            identity.hosts.clone_from(&given.hosts);
        } else if let Some(hosts) = vars.text("NEXTSCALE_HOSTS") {
            let hosts = hosts
                .split(',')
                .map(str::trim)
                .filter(|host| !host.is_empty());
            identity.hosts = hosts.map(str::to_owned).collect();
        }
        if let Some(job) = vars.text("NEXTSCALE_JOB") {
            identity.job = job;
        }
        if let Some(host) = vars.text("NEXTSCALE_HOST") {
            identity.host = host;
        }
        identity.secret = vars.text("NEXTSCALE_SECRET").map(Secret::new).transpose()?;
        identity.checked()
    }

    /// One process.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            size: 1,
            local_rank: None,
            local_size: None,
            masters: Vec::new(),
            ports: Ports::OfJob,
            hosts: Vec::new(),
            job: String::new(),
            incarnation: 0,
            secret: None,
            host: rustix::system::uname()
                .nodename()
                .to_string_lossy()
                .into_owned(),
            program: concat!("nextscale ", env!("CARGO_PKG_VERSION")).to_owned(),
            follows_stdin: false,
            source: Source::Nobody,
        }
    }

    fn of(source: Source, rank: usize, size: usize) -> Self {
        Self {
            source,
            rank,
            size,
            ..Self::alone()
        }
    }

    fn set_master(&mut self, what: &str, master: &str) -> Result<()> {
        // An address of IPv6 has colons of its own.
        let (host, port) = match master.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => (host, Some(port)),
            _ => (master, None),
        };
        if let Some(port) = port {
            self.ports = Ports::From(port.parse().ok().filter(|port| *port > 0).ok_or_else(
                || {
                    Error::Input(format!(
                        "{what} is '{master}', whose port is no number from 1 to 65535: give HOST or HOST:PORT"
                    ))
                },
            )?);
        }
        if host.is_empty() {
            return Err(Error::Input(format!(
                "{what} is '{master}', which names no host: give HOST or HOST:PORT"
            )));
        }
        self.masters = vec![host.to_owned()];
        Ok(())
    }

    /// Whether all processes are known to be on this machine.
    pub fn is_one_host(&self) -> bool {
        self.local_size == Some(self.size) || self.hosts.len() == 1
    }

    /// Whether all addresses of rank 0 are this machine's own for itself.
    pub(crate) fn has_loopback_master(&self) -> bool {
        !self.masters.is_empty() && self.masters.iter().all(|host| is_loopback(host))
    }

    fn checked(mut self) -> Result<Self> {
        if let (Some(rank), Some(size)) = (self.local_rank, self.local_size)
            && rank >= size
        {
            return Err(Error::Input(format!(
                "the rank on this machine is {rank} of {size}: it goes from 0 to {}",
                size.saturating_sub(1)
            )));
        }
        if self.local_size.is_some_and(|local| local > self.size) {
            return Err(Error::Input(format!(
                "{} processes on this machine are more than the {} of the job",
                self.local_size.unwrap_or(0),
                self.size
            )));
        }
        if self.size > 1 && self.masters.is_empty() {
            if self.is_one_host() {
                self.masters = vec!["127.0.0.1".to_owned()];
            } else {
                return Err(Error::Input(format!(
                    "where rank 0 of {} runs is not known here: set NEXTSCALE_MASTER (or `master`) to its host",
                    self.size
                )));
            }
        }
        Ok(self)
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn checked_pair(rank: (&str, usize), size: (&str, usize)) -> Result<(usize, usize)> {
    if size.1 == 0 || size.1 > MOST {
        return Err(Error::Input(format!(
            "{} is {}: a job has 1 to {MOST} processes",
            size.0, size.1
        )));
    }
    if rank.1 >= size.1 {
        return Err(Error::Input(format!(
            "{} is {}, but {} is {}: ranks go from 0 to {}",
            rank.0,
            rank.1,
            size.0,
            size.1,
            size.1 - 1
        )));
    }
    Ok((rank.1, size.1))
}

fn by_flags(given: &Given) -> Result<Option<Identity>> {
    match (given.rank, given.world_size) {
        (Some(rank), Some(size)) => {
            let (rank, size) = checked_pair(("`rank`", rank), ("`world_size`", size))?;
            let mut identity = Identity::of(Source::Flags, rank, size);
            identity.ports = Ports::From(USUAL_PORT);
            identity.job = "flags".to_owned();
            Ok(Some(identity))
        }
        (Some(rank), None) => Err(Error::Input(format!(
            "`rank` is {rank}, but `world_size` is not given: give both"
        ))),
        (None, Some(size)) => Err(Error::Input(format!(
            "`world_size` is {size}, but `rank` is not given: give both"
        ))),
        (None, None) => Ok(None),
    }
}

#[cfg(test)]
mod tests;
