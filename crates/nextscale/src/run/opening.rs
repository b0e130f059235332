//! How a run begins that several processes make: the first one takes the folder, and all make sure that they were given the same.

use super::lock::RunLock;
use super::make_folder;
use crate::data::ImageSource;
use crate::eval::FEW_STEPS;
use crate::format::clean_stale;
use crate::options::{Horizon, ScheduleOptions};
use crate::text::counted;
use crate::world::{self, World};
use crate::{Error, Result};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Options that may be another for each process.
const OWN: [&str; 3] = ["device", "threads", "workers"];
/// How long a folder on another machine may take to show a new file.
const UNTIL_SEEN: Duration = Duration::from_secs(20);

/// What the processes of a run have to have in common, by name. Of one process there is nothing to say.
///
/// # Errors
/// When the program can't be read.
pub(super) fn facts(
    world: &World,
    options: &impl Serialize,
    data: impl FnOnce() -> String,
) -> Result<BTreeMap<String, String>> {
    let mut facts = BTreeMap::new();
    if world.size() == 1 {
        return Ok(facts);
    }
    flatten(
        &serde_json::to_value(options).unwrap_or_default(),
        &mut facts,
    );
    facts.retain(|name, _| !OWN.contains(&name.trim_matches('`')));
    facts.insert("data of".into(), data());
    facts.insert("a program with the checksum".into(), program()?);
    Ok(facts)
}

/// Groups of options are in the command line what they are together.
fn flatten(options: &Value, into: &mut BTreeMap<String, String>) {
    for (name, value) in options.as_object().into_iter().flatten() {
        match value {
            Value::Object(_) => flatten(value, into),
            _ => drop(into.insert(format!("`{name}`"), value.to_string())),
        }
    }
}

/// Images by their labels and the names of their files.
pub(super) fn describe(source: &dyn ImageSource) -> String {
    let mut sum = 0;
    for i in 0..source.len() {
        let name = source.name(i);
        let file = name.rsplit(['/', '\\']).next().unwrap_or_default();
        sum = crc32c::crc32c_append(sum, &source.label(i).to_le_bytes());
        sum = crc32c::crc32c_append(sum, file.as_bytes());
    }
    let classes = source.class_names().len();
    let images = source.len();
    format!(
        "{images} images in {classes} classes, whose names and classes have the checksum {sum:08x}"
    )
}

fn program() -> Result<String> {
    let read = std::env::current_exe().and_then(std::fs::read);
    let bytes = read.map_err(|e| Error::failed(format!("this program can't be read: {e}")))?;
    Ok(format!("{:08x}", crc32c::crc32c(&bytes)))
}

/// Has the first process make and lock the folder of the run; all see then what it writes there.
///
/// # Errors
/// [`Error::Input`] where the folder can't be made or used, or is another one for another process.
pub(super) fn take_folder(out: &Path, world: &World) -> Result<Option<RunLock>> {
    let lock = world::on_first(world, || {
        make_folder(out)?;
        let lock = RunLock::acquire(out)?;
        clean_stale(out)?;
        Ok(lock)
    })?;
    if world.size() > 1 {
        check_shared(out, world)?;
    }
    Ok(lock)
}

/// Whether all processes see the same folder, by a file that is there for a moment.
fn check_shared(out: &Path, world: &World) -> Result<()> {
    let note = world::of_first(world, format!("{}-{:p}", std::process::id(), world))?;
    let path = out.join(format!(".seen-{note}.tmp"));
    let written = world::on_first(world, || {
        std::fs::write(&path, &note).map_err(Error::io(&path))
    })?;
    let seen = world::of_all(world, written.is_some() || is_seen(&path, &note))?;
    if world.is_first() {
        // What is left of it goes with other temporary files.
        let _ = std::fs::remove_file(&path);
    }
    match seen.iter().position(|seen| !seen) {
        None => Ok(()),
        Some(rank) => Err(Error::input(format!(
            "`out`={}: {} does not see there what {} writes; give a folder that all processes share",
            out.display(),
            world.member(rank),
            world.member(0),
        ))),
    }
}

fn is_seen(path: &Path, note: &str) -> bool {
    let until = std::time::Instant::now() + UNTIL_SEEN;
    loop {
        if std::fs::read_to_string(path).is_ok_and(|text| text == note) {
            return true;
        }
        if std::time::Instant::now() > until {
            return false;
        }
        // A network's file system keeps what it knows of a folder for a while; listing it looks again.
        let _ = path.parent().map(std::fs::read_dir);
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What of a run's length and batch keeps it from learning much from so many images, a line each.
pub(super) fn schedule_warnings(
    o: &ScheduleOptions,
    horizon: &Horizon,
    images: usize,
) -> Vec<String> {
    let mut lines = Vec::new();
    if o.bs > images {
        lines.push(format!(
            "`bs`={}: there are only {images} training images, so a step takes some of them more than once; give at most `bs`={}",
            o.bs,
            (images / 4).max(1)
        ));
    }
    let steps = horizon.max_it / o.ac as u64;
    if steps < FEW_STEPS {
        let longer = match o.steps {
            Some(_) => format!("raise `steps` to {FEW_STEPS} or more"),
            None => {
                let epochs = (FEW_STEPS * o.ac as u64).div_ceil(horizon.its_per_epoch);
                format!("raise `ep` to {epochs} or more, or lower `bs`")
            }
        };
        lines.push(format!(
            "the whole run has {}, in which a model learns little: {longer}",
            counted(steps, "step", "steps")
        ));
    }
    if horizon.warmup_its >= horizon.max_it as f64 {
        lines.push(format!(
            "`wp`={}: the learning rate is still warming up when the run ends; give less, or more epochs",
            o.wp
        ));
    }
    lines
}

/// A run on a CPU that takes longer than this is told of.
const LONG: Duration = Duration::from_secs(24 * 3600);

/// What to tell once it is known that a run on a CPU takes so long.
pub(super) fn long_warning(remaining: Duration) -> Option<String> {
    (remaining >= LONG).then(|| {
        format!(
            "warning: at this speed {:.1} more days are needed; fewer epochs (`ep`) or `steps`, smaller images (`size`) or a smaller model need less, and nextscale learn chooses what a given time allows",
            remaining.as_secs_f64() / 86_400.0
        )
    })
}

/// The largest of what all processes found of a number that they have to share.
///
/// # Errors
/// When another process is gone.
pub(super) fn largest(world: &World, own: usize) -> Result<usize> {
    Ok(world::of_all(world, own)?.into_iter().max().unwrap_or(own))
}

/// Tells the others why this process ends, where that is an error.
pub(super) fn leaving<T>(world: &World, ended: Result<T>) -> Result<T> {
    ended.inspect_err(|e| world.leave(&e.to_string()))
}

/// What to tell of the processes; nothing of one.
pub(super) fn introduction(world: &World, batch: usize) -> Option<String> {
    let size = world.size();
    (size > 1).then(|| {
        let mut hosts: Vec<&str> = (0..size).map(|rank| world.host(rank)).collect();
        hosts.dedup();
        format!(
            "{size} processes on {}, {} of each at a time",
            hosts.join(", "),
            counted(batch, "image", "images")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::TokenizerOptions;

    fn warnings(images: usize, change: impl FnOnce(&mut ScheduleOptions)) -> Vec<String> {
        let mut options = TokenizerOptions::default();
        options.schedule.ep = 100;
        change(&mut options.schedule);
        let horizon = options.resolve(1).unwrap().horizon(images).unwrap();
        schedule_warnings(&options.schedule, &horizon, images)
    }

    #[test]
    fn short_runs_and_large_batches_are_warned_of() {
        assert!(warnings(6400, |_| ()).is_empty());
        let lines = warnings(40, |_| ());
        assert!(lines[0].starts_with("`bs`=64: there are only 40 training images"));
        assert!(lines[0].ends_with("at most `bs`=10"), "{lines:?}");
        assert!(lines[1].contains("has 100 steps") && lines[1].contains("`ep` to 500"));
        let lines = warnings(6400, |o| o.steps = Some(1));
        assert!(lines[0].contains("has 1 step, ") && lines[0].contains("`steps` to 500"));
    }

    #[test]
    fn runs_of_days_are_warned_of() {
        let days = |days: f64| long_warning(LONG.mul_f64(days));
        assert_eq!(days(0.9), None);
        assert!(days(12.34).unwrap().contains("12.3 more days"));
    }

    #[test]
    fn a_warm_up_to_the_end_is_warned_of() {
        let lines = warnings(64 * 600, |o| (o.steps, o.wp) = (Some(600), 2.0));
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].starts_with("`wp`=2: the learning rate is still warming up"));
        assert!(warnings(64 * 600, |o| (o.steps, o.wp) = (Some(600), 0.5)).is_empty());
    }
}
