//! GPUs that work together, and how long their sums take.

use super::Kind;
use crate::{Error, Result};

/// What a collective takes beside its bytes, in one process's stream.
const START_MS: f64 = 0.02;
/// And for every doubling of the number of GPUs.
const HOP_MS: f64 = 0.005;

/// GPUs on hosts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cluster {
    /// All GPUs.
    pub gpus: usize,
    /// Those of one host.
    pub per_host: usize,
    /// Bytes a second of sums within a host (bus bandwidth).
    pub link: f64,
    /// Bytes a second of each GPU's share of the network between hosts.
    pub network: f64,
}

impl Cluster {
    /// `gpus` GPUs of a kind on hosts as these usually are, or as given.
    ///
    /// # Errors
    /// [`Error::Input`] where hosts would not have as many each, or a link is not known.
    pub fn new(kind: &Kind, gpus: usize, given: Given) -> Result<Self> {
        if gpus == 0 {
            return Err(Error::field("gpus", gpus, "it must be at least 1"));
        }
        if gpus > MOST_GPUS {
            let why = format!("it must be at most {MOST_GPUS}");
            return Err(Error::field("gpus", gpus, why));
        }
        for (flag, value) in [("link", given.link), ("network", given.network)] {
            if let Some(x) = value.filter(|x| !(x.is_finite() && *x >= LEAST_GB)) {
                let why = format!("give GB/s, at least {LEAST_GB}");
                return Err(Error::field(flag, x, why));
            }
        }
        let per_host = match (given.hosts, given.per_host) {
            (Some(0), _) => return Err(Error::field("hosts", 0, "it must be at least 1")),
            (_, Some(0)) => {
                return Err(Error::field("gpus_per_host", 0, "it must be at least 1"));
            }
            (Some(hosts), Some(each)) if hosts.checked_mul(each) != Some(gpus) => {
                let why = format!("{hosts} hosts of {each} GPUs have another number of them");
                return Err(Error::field("gpus", gpus, why));
            }
            (Some(hosts), _) if !gpus.is_multiple_of(hosts) => {
                let why = format!("{gpus} GPUs can't be shared by so many hosts evenly");
                return Err(Error::field("hosts", hosts, why));
            }
            (Some(hosts), _) => gpus / hosts,
            (None, each) => each.unwrap_or(kind.per_host).min(gpus),
        };
        if !gpus.is_multiple_of(per_host) {
            let why = format!(
                "hosts of {per_host} would not have as many each; give a multiple of {per_host}, `hosts` or `gpus_per_host`"
            );
            return Err(Error::field("gpus", gpus, why));
        }
        let link = match given.link {
            Some(gb) => gb * 1e9,
            None if per_host == 1 => f64::INFINITY,
            None => kind.link.ok_or_else(|| {
                let why = "how these GPUs are linked is not known; give `link` in GB/s";
                Error::field("gpu", &kind.name, why)
            })?,
        };
        Ok(Self {
            gpus,
            per_host,
            link,
            network: given.network.map_or(kind.network, |gb| gb * 1e9),
        })
    }

    /// Hosts.
    pub fn hosts(&self) -> usize {
        self.gpus / self.per_host
    }

    /// Milliseconds in which every GPU gets its part of the sum of `bytes`, or all of them each other's parts: around a ring within
    /// each host, then between the hosts, where every GPU has a part of its host's to bring.
    pub fn half_sum(&self, bytes: f64) -> SumTime {
        let around = |n: usize| (n as f64 - 1.0) / n as f64;
        let each = bytes / self.per_host as f64;
        SumTime {
            within: 1e3 * around(self.per_host) * bytes / self.link,
            between: 1e3 * around(self.hosts()) * each / self.network,
        }
    }

    /// Milliseconds of the sum of `bytes` for all.
    pub fn sum(&self, bytes: f64) -> SumTime {
        self.half_sum(2.0 * bytes)
    }

    /// Milliseconds that `count` collectives take beside their bytes.
    pub fn starts_ms(&self, count: usize) -> f64 {
        if self.gpus == 1 {
            return 0.0;
        }
        count as f64 * (START_MS + HOP_MS * (self.gpus as f64).log2())
    }
}

/// Milliseconds of a sum.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct SumTime {
    /// Within hosts.
    pub within: f64,
    /// Between them.
    pub between: f64,
}

impl SumTime {
    /// One after the other.
    pub fn all(&self) -> f64 {
        self.within + self.between
    }
}

/// GB/s of a link at least.
const LEAST_GB: f64 = 0.001;

/// GPUs at most that a plan is made for.
const MOST_GPUS: usize = 1 << 16;

/// What is known of the machines.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Given {
    /// Hosts.
    pub hosts: Option<usize>,
    /// GPUs of each.
    pub per_host: Option<usize>,
    /// GB/s of sums within a host.
    pub link: Option<f64>,
    /// GB/s of each GPU's share of the network.
    pub network: Option<f64>,
}
