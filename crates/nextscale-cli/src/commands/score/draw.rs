//! Samples that a model draws.

use super::super::class_list::Named;
use super::super::sweep::{Sweep, Swept};
use super::Args;
use nextscale::Result;
use nextscale::checkpoint::class_names::ModelClasses;
use nextscale::checkpoint::open::OpenPair;
use nextscale::generate::{Noise, SampleOptions, Sampler};
use nextscale::memory::{self, Workload};
use nextscale::model::state::fingerprint;
use nextscale::score::pictures::DrawnPictures;
use nextscale_tensor::Device;
use serde_json::{Value, json};

/// Flags that are swept, with a value each.
pub type Setting = Vec<(String, f32)>;

/// Every combination of the values, those of the last flag changing first.
pub fn settings(sweeps: &[Sweep]) -> Vec<Setting> {
    let mut all = vec![Setting::new()];
    for sweep in sweeps {
        let with = |setting: &Setting| {
            let setting = setting.clone();
            let name = sweep.flag.name();
            sweep.values.iter().map(move |value| {
                let mut setting = setting.clone();
                setting.push((name.to_owned(), *value));
                setting
            })
        };
        all = all.iter().flat_map(with).collect();
    }
    all
}

/// A model that draws as the flags say.
pub struct Drawing<'a> {
    args: &'a Args,
    pair: &'a OpenPair,
    classes: Vec<u32>,
    device: Device,
}

impl<'a> Drawing<'a> {
    /// With a model that is on its device.
    ///
    /// # Errors
    /// For classes that the model does not have.
    pub fn new(args: &'a Args, pair: &'a OpenPair, device: Device) -> Result<Self> {
        let known = ModelClasses {
            file: &args.samples,
            names: pair.class_names.as_deref(),
            count: pair.var.config.classes,
        };
        let named = Named::of(None, &known)?;
        let labels = named.list("classes", args.classes.as_deref())?;
        pair.var.check_labels(&labels)?;
        Ok(Self {
            args,
            pair,
            classes: labels.into_iter().map(|label| label as u32).collect(),
            device,
        })
    }

    /// How it draws with these values of swept flags.
    fn options(&self, setting: &Setting) -> SampleOptions {
        let of = |flag: Swept, own: f32| {
            let found = setting.iter().find(|(name, _)| name == flag.name());
            found.map_or(own, |(_, value)| *value)
        };
        SampleOptions {
            cfg: of(Swept::Cfg, self.args.cfg),
            // Values of a sweep are whole where the flag's are.
            top_k: match setting.iter().find(|(name, _)| name == Swept::TopK.name()) {
                Some((_, value)) => *value as usize,
                None => self.args.top_k,
            },
            top_p: of(Swept::TopP, self.args.top_p),
            more_smooth: self.args.more_smooth,
            noise: Noise::Seed(self.args.seed),
        }
    }

    /// The pictures, drawn one batch after the other.
    ///
    /// # Errors
    /// When a batch does not fit into memory.
    pub fn pictures(&self, setting: &Setting) -> Result<DrawnPictures<'a>> {
        let (var, vqvae) = (&self.pair.var, &self.pair.tokenizer.vqvae);
        let options = self.options(setting);
        let (count, batch) = (self.args.count, self.args.batch);
        let workload = Workload::Sample {
            var: &var.config,
            vqvae: &vqvae.config,
            math: var.math,
            options: &options,
        };
        memory::check(self.device, "batch", batch.min(count), workload)?;
        DrawnPictures::new(
            Sampler { var, vqvae },
            options,
            self.classes.clone(),
            (count, batch),
        )
    }

    /// What the report says of it; flags that are swept stand with the results.
    ///
    /// # Errors
    /// When weights can't be read.
    pub fn facts(&self, sweeps: &[Sweep]) -> Result<Value> {
        let options = self.options(&Setting::new());
        let weights = fingerprint(&self.pair.var.params)?;
        let tokenizer = fingerprint(&self.pair.tokenizer.vqvae.params)?;
        let mut facts = json!({
            "weights": weights,
            "tokenizer": tokenizer,
            "seed": self.args.seed,
            "more_smooth": options.more_smooth,
            "classes": self.classes,
        });
        let swept = |flag: Swept| sweeps.iter().any(|s| s.flag == flag);
        let flags = [
            (Swept::Cfg, shortest(options.cfg)),
            (Swept::TopK, json!(options.top_k)),
            (Swept::TopP, shortest(options.top_p)),
        ];
        for (flag, value) in flags {
            if !swept(flag) {
                facts[flag.name()] = value;
            }
        }
        Ok(facts)
    }
}

/// A number as it was given: 0.96, not the nearest that 32 bits hold.
fn shortest(value: f32) -> Value {
    json!(value.to_string().parse::<f64>().unwrap_or(f64::from(value)))
}
