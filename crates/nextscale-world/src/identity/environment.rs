//! What launchers leave in the environment of the processes that they start.

use std::net::IpAddr;

use super::{Identity, Ports, Source, USUAL_PORT, checked_pair};
use crate::slurm::{expand_nodes, expand_tasks};
use crate::{Error, Result};

/// Slurm's numbers of steps from here on are no steps of `srun`: the batch script, an interactive shell.
const NO_STEP: u64 = 0xffff_fff0;

/// The environment, where empty is the same as not set.
pub(super) struct Vars<'a>(pub &'a dyn Fn(&str) -> Option<String>);

impl Vars<'_> {
    pub fn text(&self, name: &str) -> Option<String> {
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

/// The first launcher that left its variables.
pub(super) fn by_environment(vars: &Vars<'_>) -> Result<Identity> {
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
pub(super) fn hydra_helper() -> Option<u32> {
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
