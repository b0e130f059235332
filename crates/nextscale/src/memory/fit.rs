//! Whether a training run fits into the memory of its device, and with which accumulation it does.

use super::{Estimate, Need, Room, Workload, accumulation, known, largest};
use crate::options::{ScheduleOptions, process_batch};
use crate::world::World;
use crate::{Error, Result};
use nextscale_tensor::Device;
use nextscale_tensor::cuda::gib;

/// How a training run fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitting {
    /// Accumulated iterations.
    pub ac: usize,
    /// What `--fit` has chosen, in words.
    pub note: Option<String>,
    /// Bytes that an iteration needs, where it is known.
    pub need: Option<usize>,
    /// The same and what there is, in words.
    pub memory: Option<String>,
}

impl Fitting {
    /// With this accumulation, of a run whose memory nobody has looked at.
    pub(crate) fn unknown(ac: usize) -> Self {
        Self {
            ac,
            ..Self::default()
        }
    }
}

/// A training run, as far as its memory goes.
pub struct Fit<'a> {
    /// One iteration, with the evaluations between.
    pub workload: Workload<'a>,
    /// Where it runs.
    pub device: Device,
    /// How many processes share a step.
    pub processes: usize,
    /// How many of them are on this machine.
    pub local: usize,
    /// The flags that say how large the model is, as given.
    pub model: String,
    /// The flag that makes it smaller.
    pub smaller: &'static str,
    /// The flag and value for half precision.
    pub half: &'static str,
}

impl<'a> Fit<'a> {
    /// Of one process that trains a tokenizer of this width.
    pub fn of_tokenizer(ch: usize, device: Device, workload: Workload<'a>) -> Self {
        Self {
            workload,
            device,
            processes: 1,
            local: 1,
            model: format!("`ch`={ch}"),
            smaller: "`ch`",
            half: "`precision`=bf16",
        }
    }

    /// Of one process that trains a transformer of this depth.
    pub fn of_transformer(depth: usize, device: Device, workload: Workload<'a>) -> Self {
        Self {
            workload,
            device,
            processes: 1,
            local: 1,
            model: format!("`depth`={depth}"),
            smaller: "`depth`",
            half: "`fp16`=2",
        }
    }

    /// The same of as many processes as `world` has.
    #[must_use]
    pub fn shared(self, world: &World) -> Self {
        Self {
            processes: world.size(),
            local: world.local_size(),
            ..self
        }
    }
}

impl Fit<'_> {
    /// What there is and what is needed; `None` where the system does not tell what there is.
    fn estimate(&self) -> Result<Option<(Room, Estimate<'_>)>> {
        let mut known = known(self.device, self.workload)?;
        if let (Device::Cpu, Some((room, _))) = (self.device, &mut known) {
            room.bytes /= self.local.max(1);
        }
        Ok(known)
    }

    fn fewest(
        &self,
        o: &ScheduleOptions,
        fits: impl FnMut(usize) -> Result<bool>,
    ) -> Result<Option<usize>> {
        accumulation(o.bs, o.ac, self.processes, fits)
    }

    /// Before a run: the accumulation to train with, and with `--fit` what to tell of it.
    ///
    /// # Errors
    /// [`Error::Input`] where it can't fit, or does not without `--fit`.
    pub fn accumulation(&self, o: &ScheduleOptions) -> Result<Fitting> {
        let Some((room, estimate)) = self.estimate()? else {
            return Ok(Fitting::unknown(o.ac));
        };
        let free = room.bytes;
        let memory = |need: &Need| {
            let (need, free) = (gib(need.bytes()), gib(free));
            Some(format!("needs about {need} of {free} of memory"))
        };
        if !o.fit {
            let need = match estimate.need(process_batch(o.bs, o.ac, self.processes)?) {
                Err(e) if e.is_memory() => return Err(self.too_large(o, &room, &estimate)?),
                need => need?,
            };
            // Refused where it can't but fail; what is only likely to is tried.
            let fits = match self.device {
                // A full GPU is an error where it happens; a full machine ends the program.
                Device::Cpu => need.fits(free),
                _ => need.least <= free,
            };
            return if fits {
                Ok(Fitting {
                    ac: o.ac,
                    note: None,
                    need: Some(need.bytes()),
                    memory: memory(&need),
                })
            } else {
                Err(self.too_large(o, &room, &estimate)?)
            };
        }
        let well = self.fewest(o, |b| estimate.fits_well(b, free))?;
        let found = match well {
            Some(ac) => Some(ac),
            None => self.fewest(o, |b| estimate.fits(b, free))?,
        };
        let Some(ac) = found else {
            return Err(self.too_large(o, &room, &estimate)?);
        };
        let batch = process_batch(o.bs, ac, self.processes)?;
        let need = estimate.need(batch)?;
        let (needed, free) = (gib(need.bytes()), gib(free));
        Ok(Fitting {
            ac,
            note: Some(format!(
                "`fit`: `ac`={ac}, {ac} x {batch} images a step; {batch} at a time need {needed} of the {free} that can be had"
            )),
            need: Some(need.bytes()),
            memory: memory(&need),
        })
    }

    /// The same of a run that goes on with `--fit`: the accumulation `ac` that it began with.
    ///
    /// # Errors
    /// [`Error::Input`] where it does not fit any more.
    pub fn kept(&self, o: &ScheduleOptions, ac: usize) -> Result<Fitting> {
        let given = ScheduleOptions {
            ac,
            fit: false,
            ..o.clone()
        };
        let now = self.accumulation(&given)?;
        Ok(Fitting {
            note: Some(format!("`fit`: `ac`={ac}, as the run began")),
            ..now
        })
    }

    /// The error to show for one of a run: where the memory is full, what would fit.
    pub fn explain(&self, e: Error, o: &ScheduleOptions) -> Error {
        if !e.is_memory() {
            return e;
        }
        let line = || -> Result<Error> {
            match self.estimate()? {
                Some((room, estimate)) => self.too_large(o, &room, &estimate),
                None => Err(Error::failed("not known")),
            }
        };
        // Where nothing more can be said, the cause is.
        line().unwrap_or(e)
    }

    /// The line for a batch that does not fit.
    fn too_large(
        &self,
        o: &ScheduleOptions,
        room: &Room,
        estimate: &Estimate<'_>,
    ) -> Result<Error> {
        let batch = process_batch(o.bs, o.ac, self.processes)?;
        let fits = |b| estimate.fits(b, room.bytes);
        // A batch that failed is too large whatever the estimate says.
        let most = largest(batch - 1, fits)?;
        let Self {
            model,
            smaller,
            half,
            ..
        } = self;
        let what_to_do = match most {
            Some(n) => {
                let ac = self.fewest(o, |b| Ok(b <= n))?.unwrap_or(o.bs);
                format!(
                    "the largest that fits is {n} (`bs`={}); `ac`={ac} keeps `bs`={}, and `fit` chooses it by itself",
                    n * o.ac,
                    o.bs
                )
            }
            None if self.device == Device::Cpu => format!(
                "not even one image at a time fits: use a smaller model ({smaller}) or a machine with more memory"
            ),
            None => format!(
                "not even one image at a time fits: use a smaller model ({smaller}), {half} or another GPU"
            ),
        };
        let room_for_all = match self.makes_room(batch, room) {
            Some(how) => format!("; {how} makes room for all {batch}"),
            None => String::new(),
        };
        Ok(Error::input(format!(
            "{model} `bs`={} `ac`={}: {}; {what_to_do}{room_for_all}",
            o.bs,
            o.ac,
            estimate.shortage(batch, room)?
        )))
    }

    /// What would make so many images at a time fit that is not done yet: shares of the optimizer, blocks that are run again, or both.
    fn makes_room(&self, batch: usize, room: &Room) -> Option<&'static str> {
        let Workload::Train {
            recompute, shares, ..
        } = self.workload
        else {
            return None;
        };
        let ways = [
            ("`zero`=1", recompute, self.processes),
            ("`recompute`", 1, shares),
            ("`recompute` with `zero`=1", 1, self.processes),
        ];
        ways.into_iter().find_map(|(how, again, among)| {
            if (again, among) == (recompute, shares) {
                return None;
            }
            let mut workload = self.workload;
            if let Workload::Train {
                recompute, shares, ..
            } = &mut workload
            {
                (*recompute, *shares) = (again, among);
            }
            let estimate = Estimate::of(self.device, workload).ok()?;
            let fits = estimate.fits(batch, room.bytes).ok()?;
            fits.then_some(how)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::RESERVE;
    use crate::model::Pyramid;
    use crate::model::var::VarConfig;
    use crate::model::vqvae::VqvaeConfig;
    use crate::options::TransformerOptions;
    use crate::train::tokenizer_trainer::TokenizerSettings;
    use nextscale_tensor::cuda::{Arch, GpuInfo, dry};
    use nextscale_tensor::{Math, Precision};

    /// Both trainers on a GPU with so many bytes.
    fn each(memory: usize, check: impl Fn(&Fit<'_>)) {
        let pyramid = Pyramid::square(&[1, 2]).unwrap();
        let vqvae = VqvaeConfig {
            ch: 32,
            vocab: 32,
            ..VqvaeConfig::published(pyramid.clone())
        };
        let var = VarConfig {
            vocab: 32,
            ..VarConfig::of_depth(1, 10, pyramid)
        };
        let transformer = Workload::Train {
            var: &var,
            vqvae: &vqvae,
            from_tokens: false,
            math: [Math::FULL, Math::FULL],
            ema: None,
            recompute: 0,
            shares: 1,
        };
        let tokenizer = Workload::TrainTokenizer {
            vqvae: &vqvae,
            math: Math::FULL,
            settings: TokenizerSettings::default(),
            perceptual: None,
        };
        for (workload, model) in [(transformer, "`depth`=16"), (tokenizer, "`ch`=160")] {
            let device = dry::device(&GpuInfo {
                ordinal: 0,
                name: "small".into(),
                arch: Arch::LEAST,
                multiprocessors: 80,
                memory,
                l2: 40 << 20,
                shared: 163 << 10,
            });
            check(&Fit {
                workload,
                device,
                processes: 1,
                local: 1,
                model: model.to_owned(),
                smaller: "`depth`",
                half: "`fp16`=2",
            });
        }
    }

    fn options(bs: usize, fit: bool) -> ScheduleOptions {
        ScheduleOptions {
            bs,
            fit,
            ..ScheduleOptions::default()
        }
    }

    #[test]
    fn what_fits_is_left_alone() {
        each(100 << 30, |m| {
            for fit in [false, true] {
                let fitting = m.accumulation(&options(64, fit)).unwrap();
                assert_eq!((fitting.ac, fitting.note.is_some()), (1, fit));
                assert!(fitting.memory.unwrap().starts_with("needs about "));
            }
        });
    }

    #[test]
    fn what_does_not_fit_is_refused_in_one_line_or_accumulated() {
        each(RESERVE + (256 << 20), |m| {
            let o = options(4096, false);
            let e = m.accumulation(&o).unwrap_err();
            let text = e.to_string();
            assert_eq!(e.exit_code(), 2);
            for part in [
                " `bs`=4096 `ac`=1: ",
                "GPU",
                "(small)",
                "the largest that fits is ",
                "`ac`=",
                "`fit`",
            ] {
                assert!(text.contains(part), "{part} in {text}");
            }
            assert!(text.starts_with(&m.model) && !text.contains('\n'), "{text}");
            // What the line advises is taken.
            let advised = text
                .split("; `ac`=")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap();
            let advised = ScheduleOptions {
                ac: advised.parse().unwrap(),
                ..o.clone()
            };
            assert_eq!(m.accumulation(&advised).unwrap().ac, advised.ac);
            let Fitting { ac, note, .. } = m.accumulation(&options(4096, true)).unwrap();
            assert!(ac >= advised.ac && 4096 % ac == 0, "{ac}");
            let rate = |ac| {
                let o = TransformerOptions {
                    schedule: ScheduleOptions { ac, ..o.clone() },
                    ..TransformerOptions::default()
                };
                o.resolve(1).unwrap().lr
            };
            assert_eq!(rate(ac), rate(1), "a step has as many images");
            assert!(note.unwrap().starts_with(&format!("`fit`: `ac`={ac}, ")));
        });
    }

    #[test]
    fn what_would_make_room_is_told() {
        let pyramid = Pyramid::square(&[1, 2, 3, 4, 5, 6, 8, 10, 13, 16]).unwrap();
        let vqvae = VqvaeConfig::published(pyramid.clone());
        let var = VarConfig::of_depth(30, 1000, pyramid);
        let text = |gib: usize, processes: usize, recompute: usize| {
            let device = dry::device(&GpuInfo {
                ordinal: 0,
                name: "large".into(),
                arch: Arch::LEAST,
                multiprocessors: 132,
                memory: gib << 30,
                l2: 50 << 20,
                shared: 227 << 10,
            });
            let fit = Fit {
                workload: Workload::Train {
                    var: &var,
                    vqvae: &vqvae,
                    from_tokens: true,
                    math: [Precision::Bf16.math(); 2],
                    ema: None,
                    recompute,
                    shares: 1,
                },
                device,
                processes,
                local: processes,
                model: "`depth`=30".to_owned(),
                smaller: "`depth`",
                half: "`fp16`=2",
            };
            let o = options(64 * processes, false);
            fit.accumulation(&o).unwrap_err().to_string()
        };
        // What is told fits: see `Need` of the same in the tests of memory.
        for (gib, processes, recompute, want) in [
            (79, 1, 0, "; `recompute` makes room for all 64"),
            (85, 8, 0, "; `zero`=1 makes room for all 64"),
            (
                40,
                8,
                0,
                "; `recompute` with `zero`=1 makes room for all 64",
            ),
            (40, 8, 1, "; `zero`=1 makes room for all 64"),
        ] {
            let text = text(gib, processes, recompute);
            assert!(
                text.ends_with(want),
                "{gib} {processes} {recompute}: {text}"
            );
        }
        let text = text(40, 1, 1);
        assert!(!text.contains("makes room"), "{text}");
    }

    #[test]
    fn a_model_that_never_fits_is_refused() {
        each(1 << 20, |m| {
            for fit in [false, true] {
                let text = m.accumulation(&options(4, fit)).unwrap_err().to_string();
                assert!(text.contains("not even one image"), "{text}");
            }
        });
    }

    #[test]
    fn full_memory_is_explained_and_nothing_else() {
        each(RESERVE + (256 << 20), |m| {
            let o = options(512, false);
            let full = nextscale_tensor::Error::Memory("full".into()).into();
            let text = m.explain(full, &o).to_string();
            let start = format!("{} `bs`=512 `ac`=1: 512 images at a time need ", m.model);
            assert!(text.starts_with(&start), "{text}");
            assert_eq!(m.explain(Error::failed("else"), &o).to_string(), "else");
        });
    }
}
