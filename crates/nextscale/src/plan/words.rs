//! Plans in words, as a table and as JSON.

use super::efficiency::FLOAT16;
use super::gpus::{COPIES, LINKS, PRODUCTS};
use super::step::{CONTENTION, HELD, IMAGES_A_CORE, SPREAD};
use super::{Kind, Plan, Tokens};
use crate::options::TransformerOptions;
use crate::text::counted;
use nextscale_tensor::cuda::gib;
use serde_json::{Value, json};

impl Plan<'_> {
    /// The command that trains so.
    pub fn command(&self) -> String {
        let c = &self.cluster;
        let start = match (c.gpus, c.hosts()) {
            (1, _) => "nextscale train".to_owned(),
            (gpus, 1) => format!("nextscale train --procs={gpus}"),
            (_, hosts) => format!(
                "srun --nodes={hosts} --ntasks-per-node={} nextscale train",
                c.per_host
            ),
        };
        let mut words = vec![start];
        words.extend(self.flags());
        words.join(" ")
    }

    /// The same by torchrun, where there are several hosts.
    pub fn torchrun(&self) -> Option<String> {
        let c = &self.cluster;
        (c.hosts() > 1).then(|| {
            format!(
                "torchrun --no-python --nnodes={} --nproc-per-node={} --node-rank=N --master-addr=HOST nextscale train {}",
                c.hosts(),
                c.per_host,
                self.flags().join(" ")
            )
        })
    }

    fn flags(&self) -> Vec<String> {
        let o = &self.model.options;
        let mut usual = TransformerOptions::default();
        let mut flags = Vec::new();
        if let Some(recipe) = o.recipe {
            recipe.apply(&mut usual, |_| false);
            flags.push(format!("--recipe={}", recipe.name()));
        }
        let mut say = |flag: &str, value: String, usual: String| {
            if value != usual {
                flags.push(format!("--{flag}={value}"));
            }
        };
        let bit = |on: bool| u8::from(on).to_string();
        let ema = |x: Option<f64>| x.map_or_else(String::new, |d| d.to_string());
        say("depth", o.depth.to_string(), usual.depth.to_string());
        say("pn", o.pn.clone(), usual.pn.clone());
        say("saln", bit(o.saln), bit(usual.saln));
        say("fp16", o.fp16.to_string(), usual.fp16.to_string());
        say("tf32", bit(o.machine.tf32), bit(usual.machine.tf32));
        let (s, usual) = (&o.schedule, &usual.schedule);
        say("bs", self.bs.to_string(), usual.bs.to_string());
        say("ac", self.setting.ac.to_string(), "1".into());
        say("zero", bit(self.setting.zero), bit(false));
        say("recompute", self.setting.recompute.to_string(), "0".into());
        say("ep", s.ep.to_string(), usual.ep.to_string());
        say("ema", ema(s.ema), ema(usual.ema));
        flags.push(match self.model.from {
            Tokens::Images => "--data_path=FOLDER --tokenizer=FILE".into(),
            Tokens::Tokens => "--tokens=FILE".into(),
        });
        flags
    }

    /// The plan for people.
    pub fn lines(&self) -> Vec<String> {
        let (o, c, s, t, m) = (
            &self.model.options,
            &self.cluster,
            &self.setting,
            &self.time,
            &self.memory,
        );
        let config = &self.model.var;
        let mut out = vec![
            format!(
                "model      {}: depth {}, width {}, {:.2} G parameters, {} px, {} tokens an image, from {}, {}",
                self.model.name(),
                config.depth,
                config.width(),
                self.parameters as f64 / 1e9,
                config.pyramid.finest().0 * self.model.vqvae.downsample(),
                config.pyramid.total(),
                self.model.from.name(),
                self.model.math[0].precision().in_words(),
            ),
            format!(
                "gpus       {} of {} on {} ({} each)",
                c.gpus,
                self.kind.name,
                match c.hosts() {
                    1 => "1 host".into(),
                    hosts => format!("{hosts} hosts of {}", c.per_host),
                },
                gib(self.kind.info.memory)
            ),
        ];
        if self.bs != o.schedule.bs {
            out.push(format!(
                "batch      {} images a step instead of {}, which {} GPUs can't share evenly; the learning rate is scaled with it",
                self.bs, o.schedule.bs, c.gpus
            ));
        }
        out.push(format!(
            "take       --bs={} --ac={} --zero={} --recompute={}: {} of a GPU at a time",
            self.bs,
            s.ac,
            u8::from(s.zero),
            s.recompute,
            images(s.batch)
        ));
        out.push(format!("command    {}", self.command()));
        if let Some(other) = self.torchrun() {
            out.push(format!("or         {other}"));
        }
        out.push(String::new());
        out.push("memory of a GPU, predicted".into());
        let rows = [
            ("weights, float32", m.weights),
            ("weights, half precision", m.half),
            ("gradients", m.gradients),
            ("AdamW's moments", m.moments),
            ("average of the weights", m.average),
            ("tokenizer", m.tokenizer),
            ("activations, images", m.activations),
            ("first step, evaluations: beside", m.first),
            ("libraries, NCCL: kept free", m.libraries),
            ("driver's context", m.context),
        ];
        let shown = rows.iter().filter(|(_, bytes)| gib_of(*bytes) >= 0.005);
        out.extend(shown.map(|(what, bytes)| row(what, gib_of(*bytes), "GiB")));
        out.push(row(
            "all, of what the driver shows",
            gib_of(m.needed()),
            "GiB",
        ));
        out.push(row(
            "peak of the pool in steps",
            gib_of(m.peak_of_steps()),
            "GiB",
        ));
        out.push(row("what the pool keeps in the end", gib_of(m.held), "GiB"));
        out.push(String::new());
        out.push("step, predicted".into());
        let rows = [
            ("compute", t.compute),
            ("optimizer", t.optimizer),
            ("sums that nothing hides", t.communication),
            ("sums beside the backward pass", t.contention),
            ("waiting for the slowest GPU", t.waiting),
            ("waiting for images", t.data),
        ];
        let shown = rows.iter().filter(|(_, ms)| *ms >= 0.005);
        out.extend(shown.map(|(what, ms)| row(what, *ms, "ms")));
        out.push(row("all", t.total(), "ms"));
        out.push(String::new());
        out.push(format!(
            "speed      {:.0} images/s{}",
            self.images_per_s(),
            match c.gpus {
                1 => String::new(),
                n => format!(
                    ", {:.1} % of {n} times one GPU with as many images",
                    100.0 * self.scaling()
                ),
            }
        ));
        out.push(format!(
            "training   {} ({} of {}): {}, {:.0} GPU-hours",
            counted(self.steps(), "step", "steps"),
            counted(o.schedule.ep, "epoch", "epochs"),
            counted(self.model.images, "image", "images"),
            days(self.days()),
            self.gpu_hours()
        ));
        out
    }

    /// The plan as one JSON object; memory in bytes, times in milliseconds.
    pub fn json(&self) -> Value {
        let (c, o, k) = (&self.cluster, &self.model.options, &self.kind.ceilings);
        json!({
            "recipe": o.recipe.map(|r| r.name()),
            "depth": o.depth,
            "parameters": self.parameters,
            "from": self.model.from.name(),
            "precision": self.model.math[0].precision().name(),
            "gpu": self.kind.name,
            "gpus": c.gpus,
            "hosts": c.hosts(),
            "bs": self.bs,
            "ac": self.setting.ac,
            "zero": u8::from(self.setting.zero),
            "recompute": self.setting.recompute,
            "batch": self.setting.batch,
            "memory": self.memory,
            "memory_peak_of_steps": self.memory.peak_of_steps(),
            "memory_needed": self.memory.needed(),
            "memory_there": self.kind.info.memory,
            "step_ms": self.time,
            "step_ms_all": self.time.total(),
            "images_per_s": self.images_per_s(),
            "scaling": self.scaling(),
            "steps": self.steps(),
            "days": self.days(),
            "gpu_hours": self.gpu_hours(),
            "command": self.command(),
            "ceilings": {
                "half_tflops": k.half / 1e12,
                "tf32_tflops": k.tf32 / 1e12,
                "f32_tflops": k.f32 / 1e12,
                "copy_gb_per_s": k.bandwidth / 1e9,
                "source": self.kind.source,
            },
            "link_gb_per_s": (c.per_host > 1).then_some(c.link / 1e9),
            "network_gb_per_s": (c.hosts() > 1).then_some(c.network / 1e9),
        })
    }

    /// What it was worked out from.
    pub fn assumptions(&self) -> Vec<String> {
        let (k, c) = (self.kind, &self.cluster);
        let mut out = vec![
            format!(
                "{}: {:.0} TFLOP/s in half precision, {:.0} in TF32, {:.0} in float32, copies at {:.2} TB/s; {}",
                k.name,
                k.ceilings.half / 1e12,
                k.ceilings.tf32 / 1e12,
                k.ceilings.f32 / 1e12,
                k.ceilings.bandwidth / 1e12,
                k.source
            ),
            "memory: a dry run of the step itself; 1.5 GiB are left for libraries, as a run with --fit leaves them, and 0.5 GiB for the driver's context".into(),
            "compute: every operator's work by a dry run, at the share of these ceilings that it reached in a step of depth 16 on an H200".into(),
        ];
        if self.model.math[0].precision() == nextscale_tensor::Precision::Fp16 {
            out.push(format!(
                "float16: products take {FLOAT16} times as long as in bfloat16"
            ));
        }
        if c.per_host > 1 {
            out.push(format!(
                "{}: {:.0} GB/s of bus bandwidth within a host",
                k.link_name,
                c.link / 1e9
            ));
        }
        if c.hosts() > 1 {
            out.push(format!(
                "network: {:.1} GB/s for each GPU between hosts",
                c.network / 1e9
            ));
        }
        if c.gpus > 1 {
            out.push(format!(
                "sums of gradients run beside the backward pass, but for those of the first block and the embeddings, and cost it {:.0} % of their time within a host and {:.0} % of that between hosts; GPUs differ in speed by {:.0} %, and all wait for the slowest",
                100.0 * CONTENTION,
                100.0 * HELD,
                100.0 * SPREAD
            ));
        }
        if self.setting.zero {
            out.push("--zero=1: gradients are shared out instead of summed for all, and weights are collected after each update, with nothing beside".into());
        }
        if self.model.from == Tokens::Images {
            out.push(format!(
                "images are read by {} cores a GPU, {IMAGES_A_CORE:.0} JPEG files of 500×375 a second each",
                self.cores
            ));
        }
        if k.source.starts_with("the vendor") {
            out.push(format!(
                "nothing was run on {}: a data sheet's products times {PRODUCTS}, copies times {COPIES}, links times {LINKS}",
                k.name
            ));
        }
        out.push("days: steps alone, without evaluations, checkpoints and restarts".into());
        out
    }
}

/// A row of a list of amounts.
fn row(what: &str, amount: f64, unit: &str) -> String {
    format!("  {what:<32} {amount:>10.2} {unit}")
}

fn gib_of(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

fn images(n: usize) -> String {
    match n {
        1 => "1 image".into(),
        n => format!("{n} images"),
    }
}

fn days(days: f64) -> String {
    match days {
        d if d < 1.0 / 24.0 => format!("{:.1} minutes", 24.0 * 60.0 * d),
        d if d < 1.0 => format!("{:.1} hours", 24.0 * d),
        d => format!("{d:.1} days"),
    }
}

/// Many plans as a Markdown table.
pub fn table(plans: &[Result<Plan<'_>, (String, usize, String)>]) -> Vec<String> {
    let mut out = vec![
        "| model | GPUs | images a step | --ac | --zero | --recompute | at a time | memory | step | images/s | scaling | days | GPU-hours |".to_owned(),
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|".to_owned(),
    ];
    for plan in plans {
        out.push(match plan {
            Ok(p) => format!(
                "| {} | {} | {}{} | {} | {} | {} | {} | {:.1} GiB | {:.0} ms | {:.0} | {:.1} % | {:.1} | {:.0} |",
                p.model.name(),
                p.cluster.gpus,
                p.bs,
                if p.bs == p.model.options.schedule.bs { "" } else { "*" },
                p.setting.ac,
                u8::from(p.setting.zero),
                p.setting.recompute,
                p.setting.batch,
                gib_of(p.memory.needed()),
                p.time.total(),
                p.images_per_s(),
                100.0 * p.scaling(),
                p.days(),
                p.gpu_hours()
            ),
            Err((model, gpus, why)) => format!("| {model} | {gpus} | {why} | | | | | | | | | | |"),
        });
    }
    let raised = |p: &Plan<'_>| p.bs != p.model.options.schedule.bs;
    if plans.iter().flatten().any(raised) {
        out.push(String::new());
        out.push("\\* raised from the recipe's, which so many GPUs can't share evenly; the learning rate is scaled with it.".to_owned());
    }
    out
}

/// The kinds of GPUs that there are, as a list.
pub fn kinds() -> Vec<String> {
    let line = |k: Kind| {
        format!(
            "{:<12} {:>6.1} GiB, {:.0} TFLOP/s in half precision, copies at {:.2} TB/s; {}",
            k.name,
            gib_of(k.info.memory),
            k.ceilings.half / 1e12,
            k.ceilings.bandwidth / 1e12,
            k.source
        )
    };
    Kind::all().into_iter().map(line).collect()
}
