//! `nextscale sample`: draw images.

mod args;
mod call;
mod draw;
mod shown;
mod sink;

pub use args::Args;

use super::class_list::Named;
use super::images::pair;
use super::record::{self, Origin, Record};
use super::turns;
use args::Past;
use call::Call;
use draw::Drawing;
use nextscale::checkpoint::class_names::ModelClasses;
use nextscale::checkpoint::open::{OpenPair, open_pair};
use nextscale::generate::Sampler;
use nextscale::{Error, Result, Team, tell};
use nextscale_tensor::Precision;
use shown::Shown;
use sink::Opening;
use std::path::Path;
use std::process::ExitCode;

pub fn run(args: &Args) -> Result<ExitCode> {
    args.processes
        .share_within(turns::limits(), |team| sample(args, team))
}

fn sample(args: &Args, team: &Team) -> Result<()> {
    let record: Option<Record<Call>> = match &args.again {
        Some(file) => Some(record::read(file, "again", "sample")?),
        None => None,
    };
    let past = args.again.as_deref().zip(record.as_ref());
    let model = args.model(past)?;
    let tokenizer = args.tokenizer(past);
    draw_with(args, past, &model, tokenizer.as_deref(), team)
        .map_err(|e| e.of_weights(pair(&model, tokenizer.as_deref())))
}

fn draw_with(
    args: &Args,
    past: Option<Past<'_>>,
    model: &Path,
    tokenizer: Option<&Path>,
    team: &Team,
) -> Result<()> {
    let world = &team.world;
    if args.batch == 0 {
        return Err(Error::input("--batch and --per_class must be at least 1"));
    }
    args.check()?;
    let usual = precision_of(past)?;
    let (device, math) = args.machine.start_in(world, usual)?;
    let kind = args.kind(past)?;
    let opened = open_pair(model, tokenizer, kind)?;
    let precision = args.machine.chosen(device, usual);
    let origin = Origin::of(&opened, (model, tokenizer), kind, (device, precision))?;
    let OpenPair {
        mut var,
        tokenizer: mut tok,
        class_names,
        ..
    } = opened;
    if let Some(past) = past {
        compare(args, past, &origin, world.is_first())?;
    }
    let known = ModelClasses {
        file: &model.display().to_string(),
        names: class_names.as_deref(),
        count: var.config.classes,
    };
    let names = Named::of(args.data_path.as_deref(), &known)?;
    if world.size() > 1 {
        let [model, tokenizer] = [&origin.model, &origin.tokenizer].map(|w| &w.fingerprint);
        let facts = [("`model`", format!("with weights {model} and {tokenizer}"))];
        team.compare(facts)?;
    }
    let call = args.call(past, &names, world.is_first())?;
    if world.size() > 1 {
        let facts = call.facts(args.classes.as_deref(), args.batch);
        team.compare(facts)?;
    }
    var.check_labels(&call.classes)?;
    let tiles = call.tiles();
    var.to_device(device, math)?;
    tok.vqvae.to_device(device, math)?;
    let (h, w) = var.config.pyramid.finest();
    let step = tok.vqvae.config.downsample();
    let extent = (h * step, w * step);
    let classes = names.all();
    let shown = Shown::new(&origin, classes.as_deref(), &tiles, extent, args.frame_ms);
    let drawing = Drawing {
        sampler: Sampler {
            var: &var,
            vqvae: &tok.vqvae,
        },
        call: &call,
        tiles: &tiles,
        batch: args.batch,
        device,
        math,
    };
    drawing.check_memory()?;
    // What comes out is the first process's to write.
    let mut sink = match world.is_first() {
        true => Some(
            Opening {
                out: &args.out,
                force: args.force,
                call: &call,
                tiles: &tiles,
                shown: &shown,
                extent,
                frame_ms: args.frame_ms,
            }
            .open()?,
        ),
        false => None,
    };
    drawing.draw(world, extent, &mut |drawn| match &mut sink {
        Some(sink) => sink.take(&call, drawn),
        None => Ok(()),
    })?;
    sink.map_or(Ok(()), |sink| sink.finish(tiles.len()))
}

/// The precision where none is asked for: that of an earlier picture, else what is usual to draw.
fn precision_of(past: Option<Past<'_>>) -> Result<Precision> {
    let Some((file, record)) = past else {
        return Ok(Precision::Bf16);
    };
    record.origin.precision.parse().map_err(|e| {
        Error::input(format!(
            "--again={}: what it says is damaged: {e}",
            file.display()
        ))
    })
}

/// Refuses other weights than those of an earlier picture, unless they are asked for, and tells what else makes other pixels.
fn compare(args: &Args, (file, record): Past<'_>, origin: &Origin, tells: bool) -> Result<()> {
    let say = |line: String| {
        if tells {
            tell!("{line}");
        }
    };
    let past = &record.origin;
    for (what, flag, now, then) in [
        ("model", "model", &origin.model, &past.model),
        ("tokenizer", "tokenizer", &origin.tokenizer, &past.tokenizer),
    ] {
        if now.fingerprint == then.fingerprint {
            continue;
        }
        let of = now.file.as_ref().or(origin.model.file.as_ref());
        let found = format!(
            "--again={}: it was drawn with other weights of the {what} ({}) than {} has ({})",
            file.display(),
            then.fingerprint,
            of.map_or("its file", String::as_str),
            now.fingerprint
        );
        if !args.other_weights {
            return Err(Error::input(format!(
                "{found}; give the file with --{flag}, or add --other_weights"
            )));
        }
        say(found);
    }
    if (&past.device, &past.precision) != (&origin.device, &origin.precision) {
        say(format!(
            "--again={}: it was drawn on {} in {}; on {} in {} pixels may differ",
            file.display(),
            past.device,
            past.precision,
            origin.device,
            origin.precision
        ));
    } else if past.device != "cpu" || past.version != origin.version {
        say(format!(
            "--again={}: it was drawn on {} by version {}; pixels may differ where the machine or the version is another",
            file.display(),
            past.device,
            past.version
        ));
    }
    Ok(())
}
