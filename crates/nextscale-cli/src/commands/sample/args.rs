//! The flags of `sample`, and the call that they make with what an earlier picture says.

use super::super::class_list::Named;
use super::super::images::in_range;
use super::super::machine::MachineArgs;
use super::super::processes::ProcessArgs;
use super::super::record::{Record, kind_text};
use super::super::sweep;
use super::super::weights_args::WeightsArgs;
use super::call::{Call, MOST_FRAMES, Scales, check_count};
use clap::builder::ArgPredicate::IsPresent;
use nextscale::checkpoint::WeightsKind;
use nextscale::options::Given;
use nextscale::options::values::parse_bool;
use nextscale::{Error, Result, tell};
use std::fmt::Display;
use std::path::{Path, PathBuf};

/// Flags of `sample`.
#[derive(clap::Args)]
#[command(rename_all = "snake_case")]
pub struct Args {
    #[command(flatten)]
    given: Given,
    /// The transformer: a training checkpoint or weights, .safetensors or .pth
    #[arg(long, value_name = "FILE", required_unless_present = "again")]
    pub model: Option<PathBuf>,
    /// The tokenizer, where the model's file does not hold it
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Draw again what a PNG file of sample shows, with the model and the flags that stand in it; flags that are given too come before
    /// those
    #[arg(long, value_name = "FILE")]
    pub again: Option<PathBuf>,
    /// Of a grid drawn --again one image alone: its number, row by row from 0 on
    #[arg(long, value_name = "N", requires = "again")]
    pub tile: Option<usize>,
    /// Draw --again though the weights are others than those that the file was drawn with
    #[arg(long, requires = "again")]
    pub other_weights: bool,
    /// Classes, separated by commas: names, as the model's file or the folders under --data_path have them, or numbers from 0 on (a
    /// class whose name is a number goes by its name); a name with a comma in double quotes: '"a, x",b'. Without it one image
    /// of each
    #[arg(long, value_name = "LIST", visible_alias = "class")]
    pub classes: Option<String>,
    /// A data folder whose class folders give names to the classes where the model's file does not, or builtin:shapes
    #[arg(long, value_name = "DIR")]
    pub data_path: Option<String>,
    /// Images of each class
    #[arg(long, value_name = "N", default_value_t = 1)]
    per_class: usize,
    /// Guidance: 0 none, larger values follow the class more strictly
    #[arg(long, value_name = "X", default_value_t = 1.5)]
    cfg: f32,
    /// Draw from the k likeliest codes; 0: from all; 1: always the likeliest
    #[arg(long, value_name = "N", default_value_t = 900)]
    top_k: usize,
    /// Draw from the likeliest codes that make up this probability; 0: from all
    #[arg(long, value_name = "X", default_value_t = 0.96)]
    top_p: f32,
    /// Seed; image number n of a seed is drawn with the same numbers whatever --batch is
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Blend codes for smoother pictures
    #[arg(long)]
    more_smooth: bool,
    /// One picture with a row for each value of a flag, cfg, top_k or top_p: cfg=0:3:0.5 (from, to, step) or cfg=1,1.5,2. All rows have
    /// the same classes and random numbers
    #[arg(long, value_name = "FLAG=VALUES", conflicts_with = "scales")]
    sweep: Option<String>,
    /// Images on the way from one class to another: two classes, as --classes has them, whose embeddings are blended, with the same
    /// random numbers in every image; --per_class rows of them, or a GIF where --out ends in .gif
    #[arg(long, value_name = "A,B", conflicts_with_all = ["classes", "sweep", "scales"])]
    interpolate: Option<String>,
    /// Images of --interpolate, its two classes included
    #[arg(long, value_name = "N", default_value_t = 8, requires = "interpolate")]
    frames: usize,
    /// Images drawn at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    pub batch: usize,
    /// Output: a folder for PNG files, or a file ending in .png, .jpg or .webp (one grid), .npz (all images, as FID tools read them) or,
    /// with --interpolate or --scales=gif, .gif. PNG files say how they were drawn. Where it is not given with --again again.png, with
    /// --sweep sweep.png, with --interpolate between.png
    #[arg(
        long,
        value_name = "PATH",
        default_value = "samples",
        default_value_ifs([
            ("again", IsPresent, "again.png"),
            ("sweep", IsPresent, "sweep.png"),
            ("interpolate", IsPresent, "between.png"),
        ])
    )]
    pub out: PathBuf,
    /// Also write the picture after every scale, as files, as a strip or as an animated GIF for each image (to a folder; of one image
    /// the strip or GIF itself where --out names such a file)
    #[arg(long, value_enum, value_name = "KIND", num_args = 0..=1, require_equals = true, default_missing_value = "files")]
    pub scales: Option<Scales>,
    /// How long an image of a GIF stands, in milliseconds; the last one four times as long
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    pub frame_ms: u32,
    /// Images a row of the grid; 0: as many as there are of a class, or 8
    #[arg(long, value_name = "N", default_value_t = 0)]
    columns: usize,
    /// Names of classes and values of --sweep beside a grid, where they are known
    #[arg(long, value_name = "0|1", value_parser = parse_bool, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "1", default_value_t = true)]
    labels: bool,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub weights: WeightsArgs,
    #[command(flatten)]
    pub machine: MachineArgs,
    #[command(flatten)]
    pub processes: ProcessArgs,
}

/// What an earlier picture says, and its file.
pub type Past<'a> = (&'a Path, &'a Record<Call>);

impl Args {
    /// Checks what needs no model.
    pub fn check(&self) -> Result<()> {
        in_range("cfg", f64::from(self.cfg), 0.0..=1000.0)?;
        in_range("top_p", f64::from(self.top_p), 0.0..=1.0)?;
        check_count(self.per_class)?;
        self.sweep
            .as_deref()
            .map_or(Ok(()), |text| sweep::of_flag(text).map(|_| ()))
    }

    /// The model's file.
    pub fn model(&self, past: Option<Past<'_>>) -> Result<PathBuf> {
        if let Some(model) = &self.model {
            return Ok(model.clone());
        }
        let (file, record) =
            past.ok_or_else(|| Error::input("give the model with --model=FILE"))?;
        let model = record.origin.model.file.as_ref().map(PathBuf::from);
        let model = model.unwrap_or_default();
        if !model.exists() {
            return Err(Error::input(format!(
                "--again={}: it was drawn with {}, which is not there; give the model with --model=FILE",
                file.display(),
                model.display()
            )));
        }
        Ok(model)
    }

    /// The tokenizer's file, where it is another.
    pub fn tokenizer(&self, past: Option<Past<'_>>) -> Option<PathBuf> {
        // That of another model lies in its file, unless a flag says where.
        let past = past.filter(|_| self.model.is_none());
        let said = || Some(PathBuf::from(past?.1.origin.tokenizer.file.as_ref()?));
        self.tokenizer.clone().or_else(said)
    }

    /// Which weights of the model's file are taken.
    pub fn kind(&self, past: Option<Past<'_>>) -> Result<Option<WeightsKind>> {
        let Some((file, record)) = past.filter(|_| self.weights.kind.is_none()) else {
            return Ok(self.weights.kind);
        };
        let Some(name) = &record.origin.model.weights else {
            return Ok(None);
        };
        let all = <WeightsKind as clap::ValueEnum>::value_variants();
        match all.iter().find(|kind| kind_text(**kind) == *name) {
            Some(kind) => Ok(Some(*kind)),
            None => Err(Error::input(format!(
                "--again={}: it was drawn with weights={name}, which this version does not know",
                file.display()
            ))),
        }
    }

    /// What is to be drawn; `names` knows the model's classes. Where flags take the place of an earlier picture's, `tells` decides
    /// whether that is said.
    pub fn call(&self, past: Option<Past<'_>>, names: &Named, tells: bool) -> Result<Call> {
        let mut call = match past {
            Some((file, record)) => self.past_call(file, record)?,
            None => self.flags(names)?,
        };
        if let Some((file, _)) = past {
            let given = &self.given;
            let rule = Overrule { given, file, tells };
            self.overrule(&mut call, &rule, names)?;
        }
        call.check()?;
        Ok(call)
    }

    /// The call of the command line alone.
    fn flags(&self, names: &Named) -> Result<Call> {
        let (classes, interpolate) = self.conditions(names)?;
        let sweep = self.sweep.as_deref().map(sweep::of_flag).transpose()?;
        if let Some(sweep) = &sweep
            && self.given.has(sweep.flag.name())
        {
            let flag = sweep.flag.name();
            return Err(Error::input(format!(
                "--{flag} and --sweep={sweep}: both say what {flag} is; give one of them"
            )));
        }
        let all = names.all();
        let known = |&class: &i32| all.as_ref()?.get(usize::try_from(class).ok()?).cloned();
        Ok(Call {
            names: classes.iter().map(known).collect(),
            classes,
            interpolate,
            per_class: self.per_class,
            seed: self.seed,
            first: 0,
            cfg: self.cfg,
            top_k: self.top_k,
            top_p: self.top_p,
            more_smooth: self.more_smooth,
            sweep,
            scales: self.scales,
            scale: None,
            columns: self.columns,
            labels: self.labels,
            alone: false,
        })
    }

    /// Labels, and shares where images lie between two.
    fn conditions(&self, names: &Named) -> Result<(Vec<i32>, Option<Vec<f32>>)> {
        let Some(pair) = &self.interpolate else {
            return Ok((names.list("classes", self.classes.as_deref())?, None));
        };
        let classes = names.list("interpolate", Some(pair))?;
        if classes.len() != 2 {
            return Err(Error::input(format!(
                "--interpolate={pair}: expected two classes, not {}",
                classes.len()
            )));
        }
        if !(2..=MOST_FRAMES).contains(&self.frames) {
            return Err(Error::input(format!(
                "--frames={}: it must be from 2 to {MOST_FRAMES}",
                self.frames
            )));
        }
        let last = (self.frames - 1) as f32;
        let shares = (0..self.frames).map(|i| i as f32 / last).collect();
        Ok((classes, Some(shares)))
    }

    /// The call of an earlier picture, or of one image of it.
    fn past_call(&self, file: &Path, record: &Record<Call>) -> Result<Call> {
        let call = record.flags.clone();
        call.check().map_err(|e| {
            Error::input(format!(
                "--again={}: what it says is damaged: {e}",
                file.display()
            ))
        })?;
        let Some(n) = self.tile else {
            return Ok(call);
        };
        let tiles = call.tiles();
        match tiles.get(n) {
            Some(tile) => Ok(call.of_tile(tile)),
            None => Err(Error::input(format!(
                "--tile={n}: {} shows {} images; give a number from 0 to {}",
                file.display(),
                tiles.len(),
                tiles.len().saturating_sub(1)
            ))),
        }
    }

    /// Puts flags that were given in place of an earlier picture's, and says so.
    fn overrule(&self, call: &mut Call, rule: &Overrule<'_>, names: &Named) -> Result<()> {
        let own = self.flags(names)?;
        let before = call.clone();
        if ["classes", "interpolate"].iter().any(|f| self.given.has(f)) {
            call.classes = own.classes;
            call.names = own.names;
            call.interpolate = own.interpolate;
            if (&call.classes, &call.interpolate) != (&before.classes, &before.interpolate) {
                rule.say("other classes are drawn, as the command line has them");
            }
        }
        rule.take("per_class", &mut call.per_class, own.per_class);
        rule.take("cfg", &mut call.cfg, own.cfg);
        rule.take("top_k", &mut call.top_k, own.top_k);
        rule.take("top_p", &mut call.top_p, own.top_p);
        rule.take("seed", &mut call.seed, own.seed);
        rule.take("more_smooth", &mut call.more_smooth, own.more_smooth);
        rule.take("columns", &mut call.columns, own.columns);
        rule.take("labels", &mut call.labels, own.labels);
        for flag in ["cfg", "top_k", "top_p"] {
            if self.given.has(flag) && call.sweep.as_ref().is_some_and(|s| s.flag.name() == flag) {
                rule.say(&format!("its rows of --{flag} are left out"));
                call.sweep = None;
            }
        }
        if self.given.has("sweep") {
            call.sweep = own.sweep;
            if call.interpolate.take().is_some() {
                rule.say("its two classes are drawn, and nothing between them");
            }
        } else if self.given.has("interpolate") && call.sweep.take().is_some() {
            rule.say("its rows of --sweep are left out");
        }
        if self.given.has("scales") {
            call.scales = own.scales;
            call.scale = None;
        }
        // What was one image has become several.
        if call.tiles().len() > 1 {
            call.alone = false;
            if let Some(scale) = call.scale.take() {
                rule.say(&format!(
                    "it was the picture after scale {scale}; whole ones are drawn"
                ));
            }
        }
        Ok(())
    }
}

/// What flags do to an earlier picture's.
struct Overrule<'a> {
    given: &'a Given,
    file: &'a Path,
    /// Whether this process is the one that tells of it.
    tells: bool,
}

impl Overrule<'_> {
    fn say(&self, what: &str) {
        if self.tells {
            tell!("--again={}: {what}", self.file.display());
        }
    }

    fn take<T: PartialEq + Display>(&self, flag: &str, value: &mut T, own: T) {
        if !self.given.has(flag) || *value == own {
            return;
        }
        self.say(&format!(
            "it was drawn with {flag}={value}; --{flag}={own} is taken"
        ));
        *value = own;
    }
}
