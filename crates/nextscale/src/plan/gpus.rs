//! Kinds of GPUs: what they can do at most, and how they are linked.

use crate::{Error, Result};
use nextscale_tensor::cuda::{Arch, Ceilings, GpuInfo};

const GIB: f64 = (1u64 << 30) as f64;

/// What large products reach of a data sheet's rate: 812 of 990 TFLOP/s on an H200 (docs/benchmarks.md).
pub(super) const PRODUCTS: f64 = 0.82;
/// What a large copy reaches of a data sheet's memory bandwidth: 4.24 of 4.8 TB/s on an H200 (docs/benchmarks.md).
pub(super) const COPIES: f64 = 0.88;
/// What sums reach of a link's bandwidth in one direction: 330 of 450 GB/s on two H100 by NCCL.
pub(super) const LINKS: f64 = 0.73;

/// A kind of GPU.
#[derive(Clone, Debug)]
pub struct Kind {
    /// Its name on the command line.
    pub name: String,
    /// Where its numbers are from, in words.
    pub source: String,
    /// What the driver says of it.
    pub info: GpuInfo,
    /// What it can do at most.
    pub ceilings: Ceilings,
    /// Speed of attention beside that of Hopper's kernels at the same ceiling.
    pub attention: f64,
    /// Bytes a second that sums within a host move, as NCCL counts bus bandwidth; `None` where it is not known.
    pub link: Option<f64>,
    /// The link in words.
    pub link_name: &'static str,
    /// GPUs of a usual host.
    pub per_host: usize,
    /// Bytes a second of each GPU's share of the network.
    pub network: f64,
}

/// A row of the table, as data sheets have it.
struct Sheet {
    name: &'static str,
    source: &'static str,
    arch: (u32, u32),
    multiprocessors: usize,
    /// GiB that the driver shows.
    memory: f64,
    l2_mib: usize,
    shared_kib: usize,
    /// Multiplications and additions a second, 10¹²: half precision, TF32, float32; dense, with float32 sums.
    tflops: [f64; 3],
    /// TB/s.
    bandwidth: f64,
    attention: f64,
    /// GB/s in one direction.
    link: f64,
    link_name: &'static str,
    per_host: usize,
    /// GB/s.
    network: f64,
}

const VENDOR: &str = "the vendor's data sheet: products times 0.82, copies times 0.88, links times 0.73, as an H200 and two H100 reached";

/// As rows say less where most is said once.
const HOPPER: Sheet = Sheet {
    name: "h100-80g",
    source: "products as measured on an H200, which has the same multiprocessors; copies (3.0 TB/s) and sums over NVLink (330 GB/s) measured on H100 SXM",
    arch: (9, 0),
    multiprocessors: 132,
    memory: 79.1,
    l2_mib: 50,
    shared_kib: 227,
    tflops: [990.0, 495.0, 67.0],
    bandwidth: 3.0 / COPIES,
    attention: 1.0,
    link: 450.0,
    link_name: "NVLink",
    per_host: 8,
    network: 45.0,
};

const TABLE: [Sheet; 8] = [
    HOPPER,
    Sheet {
        name: "h200-141g",
        source: "products and copies measured on an H200 (812 TFLOP/s, 4.24 TB/s), sums over NVLink on two H100",
        memory: 139.8,
        bandwidth: 4.24 / COPIES,
        ..HOPPER
    },
    Sheet {
        name: "b200-180g",
        source: VENDOR,
        arch: (10, 0),
        multiprocessors: 148,
        memory: 178.3,
        l2_mib: 126,
        tflops: [2250.0, 1125.0, 75.0],
        bandwidth: 7.7,
        // The portable kernels, which took 2.35 ms where Hopper's take 1.52 on an H200 (docs/log.md), at that absolute rate.
        attention: 0.3,
        link: 900.0,
        ..HOPPER
    },
    Sheet {
        name: "a100-80g",
        source: VENDOR,
        arch: (8, 0),
        multiprocessors: 108,
        memory: 79.1,
        l2_mib: 40,
        shared_kib: 163,
        tflops: [312.0, 156.0, 19.5],
        bandwidth: 2.039,
        link: 300.0,
        network: 22.5,
        ..HOPPER
    },
    Sheet {
        name: "a100-40g",
        source: VENDOR,
        arch: (8, 0),
        multiprocessors: 108,
        memory: 39.4,
        l2_mib: 40,
        shared_kib: 163,
        tflops: [312.0, 156.0, 19.5],
        bandwidth: 1.555,
        link: 300.0,
        network: 22.5,
        ..HOPPER
    },
    Sheet {
        name: "l40s-48g",
        source: VENDOR,
        arch: (8, 9),
        multiprocessors: 142,
        memory: 44.4,
        l2_mib: 96,
        shared_kib: 99,
        tflops: [362.0, 183.0, 91.6],
        bandwidth: 0.864,
        link: 28.0,
        link_name: "PCIe 4",
        network: 5.6,
        ..HOPPER
    },
    Sheet {
        name: "rtx4090-24g",
        source: VENDOR,
        arch: (8, 9),
        multiprocessors: 128,
        memory: 23.6,
        l2_mib: 72,
        shared_kib: 99,
        tflops: [165.2, 82.6, 82.6],
        bandwidth: 1.008,
        // No GPU reads another's memory: all goes through the host's.
        link: 14.0,
        link_name: "PCIe 4 through the host's memory",
        per_host: 4,
        network: 2.8,
        ..HOPPER
    },
    Sheet {
        name: "rtx3090-24g",
        source: VENDOR,
        arch: (8, 6),
        multiprocessors: 82,
        memory: 23.7,
        l2_mib: 6,
        shared_kib: 99,
        tflops: [71.0, 35.6, 35.6],
        bandwidth: 0.936,
        link: 14.0,
        link_name: "PCIe 4 through the host's memory",
        per_host: 4,
        network: 2.8,
        ..HOPPER
    },
];

impl Sheet {
    fn kind(&self) -> Kind {
        let products = |tera: f64| tera * 1e12 * PRODUCTS;
        Kind {
            name: self.name.into(),
            source: self.source.into(),
            info: GpuInfo {
                ordinal: 0,
                name: self.name.into(),
                arch: Arch {
                    major: self.arch.0,
                    minor: self.arch.1,
                },
                multiprocessors: self.multiprocessors,
                memory: (self.memory * GIB) as usize,
                l2: self.l2_mib << 20,
                shared: self.shared_kib << 10,
            },
            ceilings: Ceilings {
                half: products(self.tflops[0]),
                tf32: products(self.tflops[1]),
                f32: products(self.tflops[2]),
                bandwidth: self.bandwidth * 1e12 * COPIES,
            },
            attention: self.attention,
            link: Some(self.link * 1e9 * LINKS),
            link_name: self.link_name,
            per_host: self.per_host,
            network: self.network * 1e9,
        }
    }
}

impl Kind {
    /// All kinds of the table.
    pub fn all() -> Vec<Self> {
        TABLE.iter().map(Sheet::kind).collect()
    }

    /// Their names, for messages.
    pub fn names() -> String {
        let names: Vec<&str> = TABLE.iter().map(|s| s.name).collect();
        names.join(", ")
    }

    /// The kind of this name.
    ///
    /// # Errors
    /// [`Error::Input`] with the names that there are.
    pub fn named(name: &str) -> Result<Self> {
        let found = TABLE.iter().find(|s| s.name.eq_ignore_ascii_case(name));
        found.map(Sheet::kind).ok_or_else(|| {
            let why = format!(
                "no such kind of GPU; there are {}, and `gpu`=this measures the one at hand",
                Self::names()
            );
            Error::field("gpu", name, why)
        })
    }

    /// The GPU at hand with what was measured on it. How it is linked is taken from a kind of the table whose name it has.
    pub fn measured(info: &GpuInfo, ceilings: Ceilings) -> Self {
        let own = info.name.to_lowercase().replace([' ', '-'], "");
        let like = TABLE.iter().find(|s| {
            let model = s.name.split('-').next().unwrap_or(s.name);
            own.contains(model)
        });
        let mut kind = like.unwrap_or(&HOPPER).kind();
        if like.is_none() {
            kind.link = None;
            kind.attention = if info.arch.major == 9 { 1.0 } else { 0.65 };
        }
        Self {
            name: info.name.clone(),
            source: "measured on this GPU".into(),
            info: info.clone(),
            ceilings,
            ..kind
        }
    }
}
