//! Tar shards: every image with its label, and where it lies.
//!
//! Members are grouped as WebDataset does it: what stands before the first dot of a file's name, with its folder, is the key of a sample,
//! and the rest says what the member is. The image's class is the number in the sample's `.cls`, or in its `.json`; where it has neither,
//! the folder that the image lies in, so that a tar of class folders is read too.

mod headers;
#[cfg(test)]
mod tests;

use serde_json::Value as Json;

use super::build::{Found, Label, ShardContent};
use super::codec::Codec;
use super::entry::Entry;
use super::files::Shard;
use crate::data::MAX_FILE_BYTES;
use crate::data::folder::is_image_name;
use crate::{Error, Result};
use headers::{Member, Members};

/// The longest label or description that is read, in bytes.
const MAX_LABEL: u64 = 1 << 20;

/// Keys of a description that hold the class.
const JSON_KEYS: [&str; 3] = ["label", "cls", "class"];

/// Endings of members that hold the class as a number.
const NUMBER_ENDINGS: [&str; 2] = ["cls", "class"];

/// Indexes a tar file.
///
/// # Errors
/// One line that names the file, and the member where one is at fault.
pub(super) fn index(shard: &Shard) -> Result<ShardContent> {
    let mut found = Found::default();
    let mut group: Vec<Member> = Vec::new();
    for member in Members::new(shard) {
        let member = member?;
        if is_hidden(&member.name) {
            found.hidden(&member.name);
            continue;
        }
        if group
            .first()
            .is_some_and(|first| key(&first.name) != key(&member.name))
        {
            sample(shard, &group, &mut found)?;
            group.clear();
        }
        group.push(member);
    }
    sample(shard, &group, &mut found)?;
    Ok(found.finish())
}

/// What member the headers from `back` bytes before `offset` on are of.
pub(super) fn name(shard: &Shard, offset: u64, back: u32) -> Result<String> {
    let headers = offset.saturating_sub(u64::from(back));
    match Members::starting_at(shard, headers).next() {
        Some(member) => Ok(member?.name),
        None => Err(shard.bad("it is truncated")),
    }
}

/// Adds the images of members that share a key.
fn sample(shard: &Shard, group: &[Member], found: &mut Found) -> Result<()> {
    let ending = |member: &Member| key_and_ending(&member.name).1.to_lowercase();
    let label = group.iter().find(|m| NUMBER_ENDINGS.contains(&&*ending(m)));
    let described = match label {
        Some(member) => Some(Label::Number(number(shard, member)?)),
        None => match group.iter().find(|m| ending(m) == "json") {
            Some(member) => description(shard, member)?,
            None => None,
        },
    };
    let exact = |m: &&Member| is_image_name(&format!(".{}", ending(m))) && !ending(m).contains('.');
    let images: Vec<&Member> = group.iter().filter(|m| is_image_name(&m.name)).collect();
    let Some(described) = described else {
        for member in images {
            let folder = member.name.rsplit('/').nth(1).unwrap_or_default();
            if matches!(folder, "" | "." | "..") {
                return Err(bad(
                    shard,
                    member,
                    "has no label: there is no .cls or .json with a label beside it, and no folder that names its class",
                ));
            }
            add(shard, member, Label::Name(folder.to_owned()), found)?;
        }
        return Ok(());
    };
    let mut chosen: Vec<&Member> = group.iter().filter(exact).collect();
    if chosen.is_empty() {
        chosen = images;
    }
    match (chosen.as_slice(), group.first()) {
        ([image], _) => add(shard, image, described, found),
        ([], Some(first)) => {
            found.without_image(&first.name);
            Ok(())
        }
        ([_, second, ..], _) => Err(bad(
            shard,
            second,
            "is the second image of its sample; a sample has one",
        )),
        ([], None) => Ok(()),
    }
}

fn add(shard: &Shard, member: &Member, label: Label, found: &mut Found) -> Result<()> {
    let entry = entry(shard, member)?;
    found
        .add(entry, label)
        .map_err(|what| bad(shard, member, what))
}

fn entry(shard: &Shard, member: &Member) -> Result<Entry> {
    if member.size == 0 {
        return Err(bad(shard, member, "is empty"));
    }
    if member.size > MAX_FILE_BYTES {
        let text = format!(
            "has {} bytes; images of at most {MAX_FILE_BYTES} bytes are read",
            member.size
        );
        return Err(bad(shard, member, text));
    }
    Ok(Entry {
        codec: Codec::Stored,
        offset: member.offset,
        stored: member.size as u32,
        skip: u32::try_from(member.offset - member.headers)
            .map_err(|_| bad(shard, member, "has headers that are too long"))?,
        length: member.size as u32,
        label: 0,
    })
}

/// The number that a label's member holds.
fn number(shard: &Shard, member: &Member) -> Result<i64> {
    let text = content(shard, member)?;
    let text = text.trim();
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(20).collect();
        bad(
            shard,
            member,
            format!("holds {shown:?}, not the number of a class"),
        )
    })
}

/// The class that a description names.
fn description(shard: &Shard, member: &Member) -> Result<Option<Label>> {
    let text = content(shard, member)?;
    let json: Json =
        serde_json::from_str(&text).map_err(|e| bad(shard, member, format!("is no JSON: {e}")))?;
    for key in JSON_KEYS {
        match json.get(key) {
            None | Some(Json::Null) => {}
            Some(Json::Number(n)) if n.is_i64() => return Ok(n.as_i64().map(Label::Number)),
            Some(Json::String(name)) if !name.is_empty() => {
                return Ok(Some(Label::Name(name.clone())));
            }
            Some(other) => {
                let text = format!("has {other} as {key:?}; expected a class's number or name");
                return Err(bad(shard, member, text));
            }
        }
    }
    Ok(None)
}

fn content(shard: &Shard, member: &Member) -> Result<String> {
    if member.size > MAX_LABEL {
        let text = format!("has {} bytes; a label has at most {MAX_LABEL}", member.size);
        return Err(bad(shard, member, text));
    }
    let mut bytes = vec![0; member.size as usize];
    shard.read(member.offset, &mut bytes)?;
    String::from_utf8(bytes).map_err(|_| bad(shard, member, "is no text"))
}

/// Bad input: the file, the member, and what is wrong with it.
fn bad(shard: &Shard, member: &Member, what: impl std::fmt::Display) -> Error {
    Error::input(format!(
        "{}:{}: {what}",
        shard.path().display(),
        member.name
    ))
}

/// A member's folder with its name up to the first dot, and what follows that dot.
fn key_and_ending(name: &str) -> (&str, &str) {
    let base = name.rfind('/').map_or(0, |at| at + 1);
    match name[base..].find('.') {
        Some(dot) => (&name[..base + dot], &name[base + dot + 1..]),
        None => (name, ""),
    }
}

fn key(name: &str) -> &str {
    key_and_ending(name).0
}

/// Whether programs put members of this name beside a user's own.
fn is_hidden(name: &str) -> bool {
    let mut parts = name.rsplit('/');
    parts.next().is_some_and(|base| base.starts_with('.'))
        || parts.any(|folder| {
            folder == "__MACOSX" || folder.starts_with('.') && folder != "." && folder != ".."
        })
}
