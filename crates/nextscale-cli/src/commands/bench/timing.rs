//! How passes are timed, and the line that says what was found.

use super::table::{self, Detail};
use super::{Args, Target, numbers};
use nextscale::{Error, Result, World, say};
use nextscale_tensor::cuda::{Ceilings, Gpu, Profile};
use serde_json::{Value, json};
use std::time::Instant;

/// Most passes that are put into a GPU's stream before the profiled one.
const MOST_AHEAD: f64 = 64.0;

/// One run of what is timed.
#[derive(Clone, Copy, Debug)]
pub enum Pass {
    /// The whole pass, results read, by its number from 0.
    Timed(u64),
    /// The pass as in a timed run, left in the stream; nothing waits for it, so reports are kept unread.
    Ahead,
    /// The pass operator by operator, left in the stream as well.
    Profiled,
}

impl Pass {
    /// What keys random draws.
    pub fn number(self) -> u64 {
        match self {
            Self::Timed(n) => n,
            Self::Ahead | Self::Profiled => 0,
        }
    }
}

/// What one benchmark needs besides its passes.
pub struct Bench<'a> {
    args: &'a Args,
    target: Target,
    gpu: Option<(&'static Gpu, Ceilings)>,
    setup_s: f64,
    /// The processes that make the same passes together.
    world: World,
}

impl<'a> Bench<'a> {
    /// After models were built since `begun`; measures what a GPU can do at most.
    pub fn new(args: &'a Args, target: Target, begun: Instant) -> Result<Self> {
        let gpu = target.0.gpu()?;
        if let Some(gpu) = gpu {
            gpu.synchronize()?;
        }
        let setup_s = begun.elapsed().as_secs_f64();
        let gpu = match gpu {
            None => None,
            Some(gpu) => {
                let ceilings = Ceilings::measure(gpu, target.1.operands, &numbers())?;
                gpu.trim()?;
                gpu.reset_peak();
                Some((gpu, ceilings))
            }
        };
        Ok(Self {
            args,
            target,
            gpu,
            setup_s,
            world: World::alone(),
        })
    }

    /// The same with passes that several processes make together. What is printed is then the slowest's median; memory, profile and
    /// the single times are the first's.
    pub fn among(self, world: &World) -> Self {
        Self {
            world: world.clone(),
            ..self
        }
    }

    /// Runs `pass` twice to warm up, then as often as asked for; prints the median with what goes with it and, on a GPU, where
    /// the time goes. Memory is the peak of the timed passes.
    pub fn run(
        &self,
        name: &str,
        images: usize,
        more: &[(&str, Value)],
        mut pass: impl FnMut(Pass) -> Result<()>,
    ) -> Result<()> {
        let mut ms = Vec::new();
        for i in 0..self.args.steps + 2 {
            let start = Instant::now();
            pass(Pass::Timed(i as u64))?;
            if let Some((gpu, _)) = self.gpu {
                gpu.synchronize()?;
            }
            ms.push(1e3 * start.elapsed().as_secs_f64());
            if let (1, Some((gpu, _))) = (i, self.gpu) {
                gpu.reset_peak();
            }
        }
        let first_s = ms[0] / 1e3;
        let mut ms = ms.split_off(2);
        let in_order = ms.iter().copied().map(round).collect::<Vec<_>>();
        ms.sort_by(f64::total_cmp);
        let median = self.of_slowest(ms[ms.len() / 2])?;
        let images = images * self.world.size();
        let (device, math) = self.target;
        let mut line = json!({
            "bench": name,
            "preset": format!("{:?}", self.args.preset).to_lowercase(),
            "device": device.to_string(),
            "operands": self.gpu.map(|_| math.operands.name()),
            "batch": images,
            "processes": self.world.size(),
            "threads": nextscale::compute_threads(),
            "steps": ms.len(),
            "median_ms": round(median),
            "min_ms": round(ms[0]),
            "all_ms": in_order,
            "images_per_s": round(images as f64 / median * 1e3),
            "setup_s": round(self.setup_s),
            "first_s": round(first_s),
            "peak_rss_mib": peak_rss_mib(),
        });
        for (key, value) in more {
            line[*key] = value.clone();
        }
        let Some((gpu, ceilings)) = self.gpu else {
            return self.tell(&line.to_string());
        };
        line["gpu"] = json!(gpu.info().name);
        line["peak_gpu_mib"] = json!(gpu.usage().peak >> 20);
        let profile = self.profile(gpu, median, &mut pass)?;
        let (flops, bytes) = (
            profile.flops() / median * 1e3,
            profile.bytes() / median * 1e3,
        );
        let gemm = ceilings.of(math.precision());
        line["tflops"] = json!(round(flops / 1e12));
        line["gemm_share"] = json!(thousandths(flops / gemm));
        line["gb_per_s"] = json!(round(bytes / 1e9));
        line["bandwidth_share"] = json!(thousandths(bytes / ceilings.bandwidth));
        line["gemm_tflops"] = json!(round(gemm / 1e12));
        line["copy_gb_per_s"] = json!(round(ceilings.bandwidth / 1e9));
        if self.world.size() > 1 {
            let waits = profile.rows.iter().filter(|row| row.name == "nccl wait");
            line["nccl_wait_ms"] = json!(round(waits.map(|row| row.ms).sum()));
        }
        self.tell(&line.to_string())?;
        match self.args.table {
            Some(Detail::None) => Ok(()),
            detail => {
                let detail = detail.unwrap_or(Detail::Operators);
                self.tell(table::of(&profile, &ceilings, detail).trim_end())
            }
        }
    }

    /// Profiles a pass at the GPU's own pace: enough work goes into the stream before it that the CPU stays ahead.
    fn profile(
        &self,
        gpu: &'static Gpu,
        median: f64,
        pass: &mut impl FnMut(Pass) -> Result<()>,
    ) -> Result<Profile> {
        let start = Instant::now();
        pass(Pass::Profiled)?;
        let asked = self.of_slowest(1e3 * start.elapsed().as_secs_f64())?;
        let ahead = (asked / median).ceil().clamp(0.0, MOST_AHEAD) as usize + 1;
        gpu.synchronize()?;
        for _ in 0..ahead {
            pass(Pass::Ahead)?;
        }
        Ok(gpu.profile(|| pass(Pass::Profiled))?.0)
    }

    /// The longest of all processes' times, so that all make as many passes.
    fn of_slowest(&self, ms: f64) -> Result<f64> {
        let all = self.world.gather(&ms.to_le_bytes())?;
        let all = all.iter().map(|bytes| {
            let bytes = bytes.as_slice().try_into();
            bytes.map(f64::from_le_bytes)
        });
        let all = all.collect::<std::result::Result<Vec<_>, _>>();
        let all = all.map_err(|_| Error::failed("another process sent a time that is none"))?;
        Ok(all.into_iter().fold(ms, f64::max))
    }

    /// Prints lines, once.
    fn tell(&self, text: &str) -> Result<()> {
        if self.world.is_first() {
            for line in text.lines() {
                say!("{line}")?;
            }
        }
        Ok(())
    }
}

fn round(x: f64) -> f64 {
    (x * 100.0).round() / 100.0
}

fn thousandths(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

/// Largest resident size of this process so far, where the system tells.
fn peak_rss_mib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|l| l.starts_with("VmHWM:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
