//! How a run begins that several processes make: the first one takes the folder, and all make sure that they were given the same.

use super::lock::RunLock;
use super::make_folder;
use crate::data::ImageSource;
use crate::format::clean_stale;
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
