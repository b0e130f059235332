//! `nextscale score`: how good pictures are, in the numbers that papers use.

mod args;
mod draw;
mod judge;
mod looking;
mod outputs;
mod pairs;
mod report;
mod sides;

pub use args::Args;

use super::progress::progress;
use draw::Drawing;
use judge::Judge;
use looking::{Labels, Looking};
use nextscale::console::counted;
use nextscale::data::{Background, Canvas, Transform};
use nextscale::memory::{self, Workload};
use nextscale::model::state::fingerprint;
use nextscale::score::network::where_features_come_from;
use nextscale::score::pictures::RestoredPictures;
use nextscale::score::{
    MadeBy, Method, Metric, Network, NetworkFacts, OpenNetwork, PictureBatch, Pictures, Summary,
    summarize, write_statistics,
};
use nextscale::{Error, Result, say, tell};
use nextscale_tensor::{Device, Math, Precision};
use outputs::Outputs;
use pairs::{PairScores, Pairs};
use report::{Report, plot, print_table};
use serde_json::{Value, json};
use sides::{Reading, Side, on_canvas};

pub fn run(args: &Args) -> Result<()> {
    args.check()?;
    let outputs = Outputs::of(args)?;
    let (device, math) = args.machine.start(Precision::Tf32)?;
    let OpenNetwork { network, facts } = open_network(args, device, math)?;
    let methods = network.methods(&args.protocol);
    let metrics = wanted(args, &methods)?;
    let sides = Sides::open(args, &network, device, math)?;
    let looking = Looking {
        methods: &methods,
        metrics: &metrics,
        reading: Reading {
            batch: args.batch,
            cut: sides.cut,
        },
        labels: Labels(network.class_names()),
        sha256: &facts.sha256,
    };
    let known = match &sides.reference {
        Some((text, side)) => Some(looking.summaries(side, text, true)?),
        None => None,
    };
    let mut judge = Judge {
        args,
        methods: &methods,
        metrics: &metrics,
        reference: known.as_deref(),
        rows: Vec::new(),
        count: None,
        labelled: None,
    };
    let mut pairs = Pairs::new(args, device, math)?;
    let (drawn, last) = judge_all(args, &sides, &looking, &mut judge, &mut pairs, device)?;
    if let (Some(file), Some(summary)) = (&outputs.statistics, last) {
        let made_by = MadeBy {
            protocol: methods[0].name().to_owned(),
            network: facts.sha256.clone(),
        };
        write_statistics(file, &summary, &made_by)?;
    }

    let remarks = [
        judge.remarks(),
        pairs.remarks(),
        sides.remark(args, &network).into_iter().collect(),
        facts.remark.clone().into_iter().collect(),
    ];
    let remarks = remarks.concat();
    let (rows, count) = (judge.rows, judge.count);
    let beside = args.reference.as_ref();
    let picture = plot(&rows, network.is_own(), &args.samples);
    let report = Report {
        software: "nextscale",
        version: env!("CARGO_PKG_VERSION"),
        samples: told_of(args, &sides, count, drawn)?,
        reference: beside.map(|text| {
            let count = known.as_ref().and_then(|k| k[0].count);
            json!({ "source": text, "count": count })
        }),
        network: facts,
        lpips: pairs.lpips_info,
        device: if device.is_async() { "cuda" } else { "cpu" },
        precision: args.machine.chosen(device, Precision::Tf32).name(),
        cut: sides
            .cut
            .map(|cut| json!({ "side": cut.side(), "mid_reso": args.mid_reso })),
        canvas: sides.canvas,
        remarks,
        results: rows,
    };
    // Files first: they are there whatever becomes of the terminal.
    report.write(&outputs.report)?;
    let plotted = picture.zip(outputs.plot.as_ref());
    if let Some((plot, path)) = &plotted {
        plot.save(path)?;
    }
    say!(
        "{}{}{}",
        count.map_or_else(String::new, |n| counted(n, "sample of ", "samples of ")),
        args.samples,
        beside.map_or_else(String::new, |text| format!(" beside {text}"))
    )?;
    say!("network: {}", words_of(&report.network))?;
    print_table(&report.results, network.is_own())?;
    report.remarks.iter().for_each(|remark| tell!("{remark}"));
    let written = [
        plotted.map(|(_, path)| path),
        outputs.statistics.as_ref(),
        Some(&outputs.report),
    ];
    for path in written.into_iter().flatten() {
        say!("written: {}", path.display())?;
    }
    Ok(())
}

/// What the report says of the samples.
fn told_of(
    args: &Args,
    sides: &Sides<'_>,
    count: Option<usize>,
    drawn: Option<Value>,
) -> Result<Value> {
    let mut samples = json!({ "source": args.samples, "count": count });
    if let Side::Tokenizer(tokenizer) = &sides.samples {
        samples["tokenizer"] = fingerprint(&tokenizer.vqvae.params)?.into();
    }
    if let Some(drawn) = drawn {
        samples["drawn"] = drawn;
    }
    Ok(samples)
}

/// Draws, restores or reads the samples, and judges them. Returns what the report says of drawing, and what is kept of the last set as
/// the first method sees it.
fn judge_all(
    args: &Args,
    sides: &Sides<'_>,
    looking: &Looking<'_>,
    judge: &mut Judge<'_>,
    pairs: &mut Pairs,
    device: Device,
) -> Result<(Option<Value>, Option<Summary>)> {
    let mut drawn = None;
    let mut found: Vec<Summary> = Vec::new();
    match &sides.samples {
        Side::Model(pair) => {
            let drawing = Drawing::new(args, pair, device)?;
            let sweeps = args.sweeps()?;
            drawn = Some(drawing.facts(&sweeps)?);
            for setting in draw::settings(&sweeps) {
                let pictures = Box::new(drawing.pictures(&setting)?);
                let names = pair.class_names.as_deref();
                let labels = looking.labels;
                let mut pictures = labels.of(pictures, names, pair.var.config.classes);
                found = looking
                    .at(&args.samples, &mut pictures)
                    .map_err(|e| e.of_weights(&args.samples))?;
                judge.judge(&found, &setting, PairScores::default())?;
            }
        }
        Side::Tokenizer(tokenizer) => {
            let Some((text, side)) = &sides.reference else {
                return Err(Error::failed("a tokenizer has lost its images"));
            };
            let mut originals = looking.pictures(side, text)?;
            let n = originals.len();
            let mut add = |a: &PictureBatch, b: &PictureBatch| pairs.add(a, b);
            let mut pictures = RestoredPictures::new(&mut originals, &tokenizer.vqvae, &mut add)?;
            let mut seen = progress(n, true);
            found = summarize(&mut pictures, looking.methods, looking.metrics, &mut seen)
                .map_err(|e| e.of_weights(&args.samples))?;
            judge.judge(&found, &[], pairs.means())?;
        }
        Side::Stored(_) | Side::Npz { .. } => {
            // Its own statistics count only where there are no images.
            let kept = matches!(
                sides.samples,
                Side::Npz {
                    pictures: false,
                    ..
                }
            );
            found = looking.summaries(&sides.samples, &args.samples, kept)?;
            judge.judge(&found, &[], PairScores::default())?;
        }
    }
    Ok((drawn, found.into_iter().next()))
}

/// The network that judges, where it computes.
fn open_network(args: &Args, device: Device, math: Math) -> Result<OpenNetwork> {
    let Some(file) = &args.features else {
        return Err(Error::input(format!(
            "--features=FILE is missing, the network by whose features images are compared: {}",
            where_features_come_from()
        )));
    };
    let mut open = OpenNetwork::open(file)?;
    if open.network.is_own() && args.given.has("protocol") {
        return Err(Error::input(format!(
            "--protocol={}: {} is {}; protocols are ways to use the Inception network",
            args.protocol[0], open.facts.file, open.facts.kind
        )));
    }
    open.network.to_device(device, math)?;
    let workload = Workload::Score {
        network: &open.network,
        math,
    };
    memory::check(device, "batch", args.batch, workload)?;
    Ok(open)
}

/// The network, in a line.
fn words_of(facts: &NetworkFacts) -> String {
    let published = match facts.published {
        Some(true) => ", the published file",
        Some(false) | None => "",
    };
    format!(
        "{}, {}, SHA-256 {}{published}",
        facts.file, facts.kind, facts.sha256
    )
}

/// The numbers to compute; refuses those that no method knows.
fn wanted(args: &Args, methods: &[Method<'_>]) -> Result<Vec<Metric>> {
    let wanted = args.wanted();
    let is_known = |metric: &Metric| methods.iter().any(|m| m.metrics().contains(metric));
    let unknown = wanted.iter().find(|m| !is_known(m));
    if let (false, Some(metric)) = (args.metrics.is_empty(), unknown) {
        let known = Metric::ALL.iter().filter(|m| is_known(m));
        let known: Vec<&str> = known.map(|m| m.name()).collect();
        let names: Vec<&str> = methods.iter().map(Method::name).collect();
        return Err(Error::input(format!(
            "--metrics={}: {} has no such number, only {}",
            metric.name(),
            names.join(","),
            known.join(", ")
        )));
    }
    Ok(wanted)
}

/// What is judged and what it is held against.
struct Sides<'a> {
    samples: Side,
    reference: Option<(&'a str, Side)>,
    /// How images of files are cut before the protocol's own preparation.
    cut: Option<Transform>,
    /// What images of files are laid on.
    canvas: Canvas,
}

impl<'a> Sides<'a> {
    fn open(args: &'a Args, network: &Network, device: Device, math: Math) -> Result<Self> {
        let own_side = match network {
            Network::Own(own) => Some(own.classifier.config.side),
            Network::Inception(_) => None,
        };
        let mut samples = Side::open(&args.samples, args, true, own_side)?;
        samples.move_to(device, math)?;
        let side = samples.model_side().or(own_side);
        let cut = cut_of(args, &samples, side)?;
        args.check_for(&samples, cut.is_some())?;
        // Protocols look at the colours under transparency, as Pillow's conversion to RGB leaves them.
        let usual = match network {
            Network::Own(own) => own.canvas,
            Network::Inception(_) => Canvas {
                background: Background::Drop,
                ..Canvas::default()
            },
        };
        let trained = args.canvas.or_as(samples.canvas());
        let canvas = trained.or_as(Some(usual)).chosen();
        let reference = match &args.reference {
            Some(text) => {
                let reference = Side::open(text, args, false, side)?;
                Some((text.as_str(), on_canvas(reference, canvas)))
            }
            None if matches!(samples, Side::Tokenizer(_)) => {
                return Err(Error::input(
                    "--reference=FOLDER is missing: a tokenizer is judged by what it makes of its images",
                ));
            }
            None => None,
        };
        if let (
            Side::Tokenizer(_),
            Some((
                text,
                Side::Npz {
                    pictures: false, ..
                },
            )),
        ) = (&samples, &reference)
        {
            return Err(Error::input(format!(
                "--reference={text}: holds statistics and no images; a tokenizer is judged by what it makes of images"
            )));
        }
        Ok(Self {
            samples: on_canvas(samples, canvas),
            reference,
            cut,
            canvas,
        })
    }

    /// That images are cut otherwise than those which a classifier has learnt from.
    fn remark(&self, args: &Args, network: &Network) -> Option<String> {
        let (Network::Own(own), true) = (network, self.cut.is_some()) else {
            return None;
        };
        let learnt = own.record.mid_reso;
        let is_drawn = matches!(self.samples, Side::Model(_) | Side::Tokenizer(_));
        (is_drawn && learnt != args.mid_reso).then(|| {
            format!(
                "the network of features has learnt from images cut with --mid_reso={learnt}, and those of the reference are cut with {}; where the model was trained with {learnt} too, give --mid_reso={learnt}",
                args.mid_reso
            )
        })
    }
}

/// How pictures of both sides are cut before the protocol's own preparation; `usual` is the side without `--size`.
fn cut_of(args: &Args, samples: &Side, usual: Option<usize>) -> Result<Option<Transform>> {
    let side = args.size.or(usual).unwrap_or(0);
    if let (Side::Tokenizer(_), Some(made_for)) = (samples, samples.model_side())
        && side != made_for
    {
        return Err(Error::input(format!(
            "--size={side}: the tokenizer is made for images of {made_for}x{made_for}"
        )));
    }
    match side {
        0 => Ok(None),
        side => Ok(Some(Transform::new(side, args.mid_reso, false)?)),
    }
}
