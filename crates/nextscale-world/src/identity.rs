//! Which process of the job this one is, from flags or from what its launcher put into the environment.

use std::fmt;
use std::net::IpAddr;

use crate::slurm::{expand_nodes, expand_tasks};
use crate::{Error, Result};

/// More processes than that are a mistake.
const MOST: usize = 1 << 16;
/// PyTorch's port where none is given.
const USUAL_PORT: u16 = 29500;
/// The fewest bytes of a secret.
const SHORTEST_SECRET: usize = 8;
/// Slurm's numbers of steps from here on are no steps of `srun`: the batch script, an interactive shell.
const NO_STEP: u64 = 0xffff_fff0;

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

/// The environment, where empty is the same as not set.
struct Vars<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Vars<'_> {
    fn text(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str) -> Result<Option<usize>> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        match text.trim().parse() {
            Ok(number) => Ok(Some(number)),
            Err(_) => Err(Error::Input(format!(
                "{name} is '{text}', which is no whole number from 0: launchers set it; unset it to start one process"
            ))),
        }
    }

    /// Rank and size, of which both or none must be set.
    fn pair(&self, rank: &str, size: &str) -> Result<Option<(usize, usize)>> {
        let missing = |there: &str, value: usize, not: &str| {
            Error::Input(format!(
                "{there} is {value}, but {not} is not set: set both, or unset {there} to start one process"
            ))
        };
        match (self.number(rank)?, self.number(size)?) {
            (Some(r), Some(s)) => checked_pair((rank, r), (size, s)).map(Some),
            (Some(r), None) => Err(missing(rank, r, size)),
            (None, Some(s)) => Err(missing(size, s, rank)),
            (None, None) => Ok(None),
        }
    }
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

/// The first launcher that left its variables.
fn by_environment(vars: &Vars<'_>) -> Result<Identity> {
    let found = [by_launch, by_plain, by_slurm, by_open_mpi, by_hydra];
    for find in found {
        if let Some(identity) = find(vars)? {
            return Ok(identity);
        }
    }
    Ok(Identity::alone())
}

fn by_launch(vars: &Vars<'_>) -> Result<Option<Identity>> {
    let Some((rank, size)) = vars.pair("NEXTSCALE_RANK", "NEXTSCALE_WORLD_SIZE")? else {
        return Ok(None);
    };
    let mut identity = Identity::of(Source::Launch, rank, size);
    identity.local_rank = vars.number("NEXTSCALE_LOCAL_RANK")?;
    identity.local_size = vars.number("NEXTSCALE_LOCAL_WORLD_SIZE")?;
    identity.ports = Ports::From(USUAL_PORT);
    identity.incarnation = vars.number("NEXTSCALE_RESTART")?.unwrap_or(0) as u64;
    identity.follows_stdin = vars.text("NEXTSCALE_FOLLOW").as_deref() == Some("stdin");
    Ok(Some(identity))
}

fn by_plain(vars: &Vars<'_>) -> Result<Option<Identity>> {
    let Some((rank, size)) = vars.pair("RANK", "WORLD_SIZE")? else {
        return Ok(None);
    };
    let mut identity = Identity::of(Source::Plain, rank, size);
    identity.local_rank = vars.number("LOCAL_RANK")?;
    identity.local_size = vars.number("LOCAL_WORLD_SIZE")?;
    let port = match vars.number("MASTER_PORT")? {
        None => USUAL_PORT,
        Some(port) => u16::try_from(port)
            .ok()
            .filter(|port| *port > 0)
            .ok_or_else(|| {
                Error::Input(format!(
                    "MASTER_PORT is {port}: a port is a number from 1 to 65535"
                ))
            })?,
    };
    // torchrun's agent listens there itself.
    identity.ports = Ports::After(port);
    match vars.text("MASTER_ADDR") {
        Some(host) => identity.masters = vec![host],
        None if size > 1 && identity.local_size != Some(size) => {
            return Err(Error::Input(format!(
                "WORLD_SIZE is {size}, but MASTER_ADDR is not set: set it to the host of rank 0"
            )));
        }
        None => {}
    }
    let run = vars.text("TORCHELASTIC_RUN_ID").unwrap_or_default();
    identity.job = format!("plain {port} {run}");
    // Of several machines each agent counts for itself. There a new round has a new port, or ranks that wait for the others.
    if identity.is_one_host() {
        identity.incarnation = vars.number("TORCHELASTIC_RESTART_COUNT")?.unwrap_or(0) as u64;
    }
    Ok(Some(identity))
}

/// A step of `srun`. The script of `sbatch` and the shell of `salloc` see the job's variables too, but are started once: they
/// are no step, and so one process.
fn by_slurm(vars: &Vars<'_>) -> Result<Option<Identity>> {
    let step = vars
        .text("SLURM_STEP_ID")
        .and_then(|step| step.parse::<u64>().ok());
    let Some(step) = step.filter(|step| *step < NO_STEP) else {
        return Ok(None);
    };
    // In an allocation mpirun starts its helpers by srun, and these the processes: the inner launcher counts.
    if vars.text("OMPI_COMM_WORLD_RANK").is_some() {
        return Ok(None);
    }
    let size = match vars.text("SLURM_STEP_NUM_TASKS") {
        Some(_) => "SLURM_STEP_NUM_TASKS",
        None => "SLURM_NTASKS",
    };
    let Some((rank, size)) = vars.pair("SLURM_PROCID", size)? else {
        return Ok(None);
    };
    if let (Some(other), Some(others)) = (vars.number("PMI_RANK")?, vars.number("PMI_SIZE")?)
        && (other, others) != (rank, size)
    {
        return Ok(None);
    }
    let mut identity = Identity::of(Source::Slurm, rank, size);
    identity.local_rank = vars.number("SLURM_LOCALID")?;
    identity.hosts = slurm_hosts(vars)?;
    identity.masters = identity.hosts.iter().take(1).cloned().collect();
    let tasks = vars
        .text("SLURM_STEP_TASKS_PER_NODE")
        .and_then(|list| expand_tasks(&list));
    let node = vars.number("SLURM_NODEID")?;
    identity.local_size = match (identity.hosts.len(), tasks, node) {
        (1, _, _) => Some(size),
        (_, Some(tasks), Some(node)) => tasks.get(node).copied(),
        _ => None,
    };
    if identity.hosts.len() == 1 {
        identity.masters = vec!["127.0.0.1".to_owned()];
    }
    let text = |name| vars.text(name).unwrap_or_default();
    let (cluster, job) = (text("SLURM_CLUSTER_NAME"), text("SLURM_JOB_ID"));
    identity.job = format!("slurm {cluster} {job}.{step}");
    identity.incarnation = vars.number("SLURM_RESTART_COUNT")?.unwrap_or(0) as u64;
    Ok(Some(identity))
}

fn slurm_hosts(vars: &Vars<'_>) -> Result<Vec<String>> {
    for name in ["SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"] {
        if let Some(list) = vars.text(name) {
            return expand_nodes(&list).ok_or_else(|| {
                Error::Input(format!(
                    "{name} is '{list}', which is no list of nodes: start the program by srun"
                ))
            });
        }
    }
    Ok(Vec::new())
}

fn by_open_mpi(vars: &Vars<'_>) -> Result<Option<Identity>> {
    let found = vars.pair("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")?;
    let Some((rank, size)) = found else {
        return Ok(None);
    };
    let mut identity = Identity::of(Source::OpenMpi, rank, size);
    identity.local_rank = vars.number("OMPI_COMM_WORLD_LOCAL_RANK")?;
    identity.local_size = vars.number("OMPI_COMM_WORLD_LOCAL_SIZE")?;
    let space = vars.text("PMIX_NAMESPACE");
    let job = space
        .clone()
        .or_else(|| vars.text("OMPI_MCA_ess_base_jobid"));
    identity.job = format!("ompi {}", job.unwrap_or_default());
    if !identity.is_one_host() {
        // mpirun's own machine, which mostly is rank 0's, and the first of the allocation.
        identity.hosts = slurm_hosts(vars).unwrap_or_default();
        identity.masters = identity.hosts.iter().take(1).cloned().collect();
        let uri = vars.text("OMPI_MCA_orte_hnp_uri").unwrap_or_default();
        identity.masters.extend(addresses_of_uri(&uri));
        identity
            .masters
            .extend(host_of_namespace(space.as_deref().unwrap_or("")));
    }
    Ok(Some(identity))
}

/// The addresses in `1234.0;tcp://10.0.0.1,10.1.0.1:5000;tcp6://[fd00::1]:5001`.
fn addresses_of_uri(uri: &str) -> Vec<String> {
    let lists = uri.split(';').filter_map(|part| {
        let (_, rest) = part.split_once("://")?;
        rest.rsplit_once(':').map(|(hosts, _)| hosts)
    });
    lists
        .flat_map(|hosts| hosts.trim_matches(['[', ']']).split(','))
        .filter(|host| {
            host.parse::<IpAddr>()
                .is_ok_and(|address| !address.is_loopback())
        })
        .map(str::to_owned)
        .collect()
}

/// The host in Open MPI 5's `prterun-HOST-PID@1`.
fn host_of_namespace(space: &str) -> Option<String> {
    let (_, rest) = space.split_once('@')?.0.split_once('-')?;
    let (host, pid) = rest.rsplit_once('-')?;
    (!host.is_empty() && pid.bytes().all(|b| b.is_ascii_digit())).then(|| host.to_owned())
}

fn by_hydra(vars: &Vars<'_>) -> Result<Option<Identity>> {
    let Some((rank, size)) = vars.pair("PMI_RANK", "PMI_SIZE")? else {
        return Ok(None);
    };
    let mut identity = Identity::of(Source::Hydra, rank, size);
    identity.local_rank = vars.number("MPI_LOCALRANKID")?;
    identity.local_size = vars.number("MPI_LOCALNRANKS")?;
    if !identity.is_one_host() {
        identity.hosts = slurm_hosts(vars).unwrap_or_default();
        identity.masters = identity.hosts.iter().take(1).cloned().collect();
        if let Some(port) = vars.text("PMI_PORT")
            && let Some((host, _)) = port.rsplit_once(':')
        {
            identity.masters.push(host.to_owned());
        }
    }
    Ok(Some(identity))
}

/// The number of the process above this one that is hydra's helper.
fn hydra_helper() -> Option<u32> {
    let mut pid = std::process::id();
    for _ in 0..16 {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name stands in parentheses and may hold anything.
        let (head, tail) = stat.rsplit_once(')')?;
        if head.split_once('(')?.1.starts_with("hydra") {
            return Some(pid);
        }
        pid = tail.split_whitespace().nth(1)?.parse().ok()?;
    }
    None
}

#[cfg(test)]
#[path = "identity_tests.rs"]
mod tests;
