//! `nextscale score`: how good pictures are, in the numbers that papers use.

mod args;
mod draw;
mod pairs;
mod report;
mod sides;

pub use args::Args;

use super::images::may_write;
use super::progress::progress;
use draw::Drawing;
use nextscale::console::counted;
use nextscale::data::Transform;
use nextscale::score::pictures::{RelabelledPictures, RestoredPictures};
use nextscale::score::{
    Method, Metric, NEIGHBOURS, OpenNetwork, PictureBatch, Pictures, Scores, Summary, summarize,
    write_statistics,
};
use nextscale::{Error, Result, say, tell};
use nextscale_tensor::Precision;
use pairs::{PairScores, Pairs};
use report::{Report, Row, plot, print_table};
use serde_json::json;
use sides::{Reading, Side, on_canvas};

/// With fewer samples than this the Fréchet distance is too large by much.
const ENOUGH: usize = 10_000;

pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    may_write(&args.out, args.force)?;
    let picture = args.out.with_extension("svg");
    let sweeps = args.sweeps()?;
    if !sweeps.is_empty() {
        may_write(&picture, args.force)?;
    }
    if let Some(file) = &args.save_statistics {
        may_write(file, args.force)?;
    }
    let (device, math) = args.machine.start(Precision::Tf32)?;
    let OpenNetwork { mut network, facts } = OpenNetwork::open(&args.features)?;
    if network.class_names().is_some() && args.given.has("protocol") {
        return Err(Error::input(format!(
            "--protocol={}: {} is {}; protocols are ways to use the Inception network",
            args.protocol[0], facts.file, facts.kind
        )));
    }
    network.to_device(device, math)?;
    let methods = network.methods(&args.protocol);
    let metrics = wanted(args, &methods)?;

    let mut samples = Side::open(&args.samples, args, true)?;
    samples.move_to(device, math)?;
    let canvas = args.canvas.or_as(samples.canvas()).chosen();
    if !sweeps.is_empty() && !matches!(samples, Side::Model(_)) {
        return Err(Error::input(format!(
            "--sweep: {} draws nothing; sweeps are for transformers' checkpoints",
            args.samples
        )));
    }
    let reference = match &args.reference {
        Some(text) => Some((
            text.as_str(),
            on_canvas(Side::open(text, args, false)?, canvas),
        )),
        None if matches!(samples, Side::Tokenizer(_)) => {
            return Err(Error::input(
                "--reference=FOLDER is missing: a tokenizer is judged by what it makes of its images",
            ));
        }
        None => None,
    };
    let samples = on_canvas(samples, canvas);
    let cut = cut_of(args, &samples)?;
    let reading = Reading {
        batch: args.batch,
        cut,
    };
    let labels = Labels(network.class_names());
    let known = match &reference {
        Some((text, side)) => Some(summaries_of(
            side,
            text,
            &methods,
            &metrics,
            (reading, labels),
        )?),
        None => None,
    };
    let mut judge = Judge {
        args,
        methods: &methods,
        metrics: &metrics,
        reference: known.as_deref(),
        rows: Vec::new(),
        count: 0,
    };
    let mut told = json!({ "source": args.samples });
    match &samples {
        Side::Model(pair) => {
            let drawing = Drawing::new(args, pair, device)?;
            told["drawn"] = drawing.facts(&sweeps)?;
            for setting in draw::settings(&sweeps) {
                let pictures = Box::new(drawing.pictures(&setting)?);
                let names = pair.class_names.as_deref();
                let mut pictures = labels.of(pictures, names, pair.var.config.classes);
                let mut seen = progress(args.count, true);
                let found = summarize(&mut pictures, &methods, &metrics, &mut seen)
                    .map_err(|e| e.of_weights(&args.samples))?;
                judge.judge(&found, &setting, PairScores::default())?;
            }
        }
        Side::Tokenizer(tokenizer) => {
            let (text, side) = reference.as_ref().expect("a tokenizer has a reference");
            let mut originals = labels.of_side(side, text, reading)?;
            let mut pairs = Pairs::new(args, device, math)?;
            let mut add = |a: &PictureBatch, b: &PictureBatch| pairs.add(a, b);
            let n = originals.len();
            let mut pictures = RestoredPictures::new(&mut originals, &tokenizer.vqvae, &mut add)?;
            let found = summarize(&mut pictures, &methods, &metrics, &mut progress(n, true))
                .map_err(|e| e.of_weights(&args.samples))?;
            judge.judge(&found, &[], pairs.means())?;
        }
        Side::Stored(_) | Side::Npz { .. } => {
            let found = summaries_of(
                &samples,
                &args.samples,
                &methods,
                &metrics,
                (reading, labels),
            )?;
            judge.judge(&found, &[], PairScores::default())?;
        }
    }
    told["count"] = judge.count.into();
    let mut remarks = judge.remarks();
    remarks.extend(facts.remark.clone());
    let rows = judge.rows;
    let named = reference.as_ref().map(|(text, _)| text);
    say!(
        "{} of {}{}",
        counted(
            told["count"].as_u64().unwrap_or(0) as usize,
            "sample",
            "samples"
        ),
        args.samples,
        named.map_or_else(String::new, |text| format!(" beside {text}"))
    )?;
    let own = network.class_names().is_some();
    print_table(&rows, own)?;
    let plot = (!sweeps.is_empty())
        .then(|| plot(&rows, own, &args.samples))
        .flatten();
    for remark in &remarks {
        tell!("{remark}");
    }
    let report = Report {
        software: "nextscale",
        version: env!("CARGO_PKG_VERSION"),
        samples: told,
        reference: reference.as_ref().map(|(text, _)| {
            let count = known.as_ref().and_then(|k| k[0].count);
            json!({ "source": text, "count": count })
        }),
        network: facts,
        device: if device.is_async() { "cuda" } else { "cpu" },
        precision: args.machine.chosen(device, Precision::Tf32).name(),
        cut: cut.map(|cut| json!({ "side": cut.side(), "mid_reso": args.mid_reso })),
        remarks,
        results: rows,
    };
    report.write(&args.out)?;
    if let Some(plot) = plot {
        plot.save(&picture)?;
        say!("written: {}", picture.display())?;
    }
    say!("written: {}", args.out.display())
}

/// The numbers to compute; refuses those that no method knows.
fn wanted(args: &Args, methods: &[Method<'_>]) -> Result<Vec<Metric>> {
    let wanted = args.wanted();
    let known = |metric: &Metric| methods.iter().any(|m| m.metrics().contains(metric));
    if let (false, Some(metric)) = (args.metrics.is_empty(), wanted.iter().find(|m| !known(m))) {
        use clap::ValueEnum;
        let name = metric.to_possible_value();
        return Err(Error::input(format!(
            "--metrics={}: {} has no such number",
            name.as_ref().map_or("", |n| n.get_name()),
            methods
                .iter()
                .map(Method::name)
                .collect::<Vec<_>>()
                .join(",")
        )));
    }
    Ok(wanted)
}

/// How pictures of both sides are cut before the protocol's own preparation.
fn cut_of(args: &Args, samples: &Side) -> Result<Option<Transform>> {
    let side = args.size.or(samples.model_side()).unwrap_or(0);
    if let (Side::Tokenizer(_), Some(own)) = (samples, samples.model_side())
        && side != own
    {
        return Err(Error::input(format!(
            "--size={side}: the tokenizer is made for images of {own}x{own}"
        )));
    }
    match side {
        0 => Ok(None),
        side => Ok(Some(Transform::new(side, args.mid_reso, false)?)),
    }
}

/// What is kept of a side that is no model.
fn summaries_of(
    side: &Side,
    text: &str,
    methods: &[Method<'_>],
    metrics: &[Metric],
    (reading, labels): (Reading, Labels<'_>),
) -> Result<Vec<Summary>> {
    if !side.needs_pictures(methods, metrics) {
        return side.summaries(text, methods, metrics, None, &mut |_| {});
    }
    let mut pictures = labels.of_side(side, text, reading)?;
    let mut seen = progress(pictures.len(), true);
    side.summaries(text, methods, metrics, Some(&mut pictures), &mut seen)
}

/// The labels by which the network knows classes, where it knows pictures' own.
#[derive(Clone, Copy)]
struct Labels<'a>(Option<&'a [String]>);

impl Labels<'_> {
    /// Pictures of classes called `names`, with these labels.
    fn of<'p>(
        self,
        pictures: Box<dyn Pictures + 'p>,
        names: Option<&[String]>,
        count: usize,
    ) -> RelabelledPictures<'p> {
        RelabelledPictures::new(pictures, names, count, self.0.unwrap_or_default())
    }

    /// Pictures of a side that is no model.
    fn of_side(
        self,
        side: &Side,
        text: &str,
        reading: Reading,
    ) -> Result<RelabelledPictures<'static>> {
        let pictures = side.pictures(text, reading)?;
        let count = self.0.map_or(0, <[String]>::len);
        Ok(self.of(pictures, side.class_names(), count))
    }
}

/// Turns what is kept of samples into rows.
struct Judge<'a> {
    args: &'a Args,
    methods: &'a [Method<'a>],
    metrics: &'a [Metric],
    reference: Option<&'a [Summary]>,
    rows: Vec<Row>,
    count: usize,
}

impl Judge<'_> {
    fn judge(
        &mut self,
        found: &[Summary],
        settings: &[(String, f32)],
        pairs: PairScores,
    ) -> Result<()> {
        for (i, (method, own)) in self.methods.iter().zip(found).enumerate() {
            let reference = self.reference.map(|all| &all[i]);
            let known: Vec<Metric> = self
                .metrics
                .iter()
                .filter(|m| method.metrics().contains(m))
                .copied()
                .collect();
            self.rows.push(Row {
                protocol: method.name().to_owned(),
                settings: settings.to_vec(),
                scores: Scores::of(own, reference, &known)?,
                pairs,
            });
        }
        self.count = found.first().and_then(|s| s.count).unwrap_or(0);
        match &self.args.save_statistics {
            Some(file) => write_statistics(file, &found[0]).map(|_| ()),
            None => Ok(()),
        }
    }

    /// What is to be known of the numbers.
    fn remarks(&self) -> Vec<String> {
        let mut remarks = Vec::new();
        let of_reference = self.reference.and_then(|all| all[0].count);
        let fewest = self.count.min(of_reference.unwrap_or(usize::MAX));
        if self.metrics.contains(&Metric::Pr) && self.reference.is_some() && fewest <= NEIGHBOURS {
            remarks.push(format!(
                "precision and recall need more than {NEIGHBOURS} images of either side, not {fewest}"
            ));
        }
        let distances = self
            .metrics
            .iter()
            .any(|m| matches!(m, Metric::Fid | Metric::Sfid));
        if !distances || self.reference.is_none() {
            return remarks;
        }
        let counts = [
            ("samples", Some(self.count)),
            ("images of the reference", of_reference),
        ];
        for (what, count) in counts {
            let Some(count) = count else { continue };
            let width = self.methods[0].width();
            if count <= width {
                remarks.push(format!(
                    "{count} {what} for {width} features: the covariance is singular; the distance is computed as the protocol does, and means little"
                ));
            } else if count < ENOUGH {
                remarks.push(format!(
                    "{count} {what}: with fewer than {ENOUGH} the distance is too large (about in proportion to one by the number of images); compare it with such of as many alone"
                ));
            }
        }
        remarks
    }
}
