use super::*;
use std::fs;

fn keeper(dir: &Path, keep: usize, held: Option<u64>) -> Keeper {
    let keeper = Keeper::new(dir.join("last.safetensors"), keep, "`lr`", 2, held);
    keeper.tidy();
    keeper
}

fn put<'a>(text: &'a str) -> impl FnMut(&Path) -> Result<()> + 'a {
    move |path| crate::format::write_atomic(path, |w| w.write_all(text.as_bytes()))
}

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    all.sort();
    all
}

#[test]
fn the_checkpoints_before_the_last_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    let mut k = keeper(dir, 3, None);
    for (it, content) in [(2, "a"), (4, "b"), (6, "c"), (8, "d")] {
        assert!(k.save(it, put(content)).unwrap().is_none());
    }
    let all = [
        "last.1.safetensors",
        "last.2.safetensors",
        "last.safetensors",
    ];
    assert_eq!(names(dir), all);
    assert_eq!(all.map(text), ["c", "b", "d"]);
    // The same iteration again is the same checkpoint.
    k.save(8, put("D")).unwrap();
    assert_eq!(all.map(text), ["c", "b", "D"]);
    // What can't be written leaves all as it was.
    let full = |_: &Path| Err(Error::failed("full"));
    assert_eq!(k.save(10, full).unwrap_err().to_string(), "full");
    assert_eq!(names(dir), all);
    assert_eq!(all.map(text), ["c", "b", "D"]);
    assert!(k.holds(8) && !k.holds(10));
    // A name that can't be taken costs the older one, not the state.
    fs::remove_file(dir.join(all[0])).unwrap();
    fs::create_dir_all(dir.join(all[0]).join("x")).unwrap();
    assert!(k.save(12, put("e")).unwrap().is_some());
    assert_eq!(text(all[2]), "e");
}

#[cfg(unix)]
#[test]
fn a_linked_checkpoint_is_kept_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    fs::create_dir(dir.join("other")).unwrap();
    let last = dir.join("last.safetensors");
    fs::write(dir.join("other/real"), "a").unwrap();
    std::os::unix::fs::symlink(dir.join("other/real"), &last).unwrap();
    let mut k = keeper(dir, 2, Some(2));
    k.save(4, put("b")).unwrap();
    assert!(fs::symlink_metadata(&last).unwrap().is_symlink());
    let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(
        (text("other/real"), text("last.1.safetensors")),
        ("b".into(), "a".into())
    );
}

#[test]
fn room_is_made_on_a_full_disk_only() {
    let dir = tempfile::tempdir().unwrap();
    let mut k = keeper(dir.path(), 2, None);
    k.save(2, put("a")).unwrap();
    k.save(4, put("b")).unwrap();
    let of = |kind: std::io::ErrorKind| Error::io("x")(kind.into());
    assert_eq!(k.make_room(&of(std::io::ErrorKind::PermissionDenied)), None);
    assert_eq!(k.make_room(&Error::failed("full")), None);
    let text = k.make_room(&of(std::io::ErrorKind::StorageFull)).unwrap();
    assert!(
        text.contains("removed ") && text.contains("last.1.safetensors"),
        "{text}"
    );
    assert_eq!(names(dir.path()), ["last.safetensors"]);
    assert_eq!(k.make_room(&of(std::io::ErrorKind::StorageFull)), None);
    let e = k.lost(6, of(std::io::ErrorKind::StorageFull));
    assert!(
        e.to_string().contains("after step 3 is not saved; ")
            && e.to_string().contains("holds the state after step 2"),
        "{e}"
    );
    assert_eq!(e.exit_code(), 1);
    // What has diverged is to be forgotten, not missed.
    let bad = k.lost(6, Error::Diverged("NaN".into())).to_string();
    assert_eq!(bad, "NaN");
    assert!(k.missed(6, &e).is_some() && k.missed(6, &e).is_none() && k.missed(8, &e).is_some());
}

#[cfg(unix)]
/// As [`put`] on a disk with room for so many bytes in the folder, the one that is written among them.
fn put_on<'a>(room: u64, text: &'a str) -> impl FnMut(&Path) -> Result<()> + 'a {
    use std::os::unix::fs::MetadataExt;
    move |path| {
        let files = fs::read_dir(path.parent().unwrap()).unwrap();
        let sizes: std::collections::BTreeMap<u64, u64> = files
            .map(|e| e.unwrap().metadata().unwrap())
            .map(|m| (m.ino(), m.len()))
            .collect();
        if sizes.values().sum::<u64>() + text.len() as u64 > room {
            return Err(Error::io(path)(io::ErrorKind::StorageFull.into()));
        }
        put(text)(path)
    }
}

#[cfg(unix)]
fn no_second_names(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(unix)]
#[test]
fn a_copy_of_the_checkpoint_before_never_takes_the_room_of_the_state() {
    for then in [Then::GoesOn, Then::Ends] {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        let text = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
        let mut observers = Observers::default();
        let mut k = keeper(dir, 2, None);
        k.link = no_second_names;
        let mut save = |k: &mut Keeper, it, room, t| {
            k.unsaved = true;
            k.save_then(then, it, &mut observers, put_on(room, t))
                .unwrap();
            !k.unsaved
        };
        // Room for two: the one before is not kept.
        assert!(save(&mut k, 2, 2, "a") && save(&mut k, 4, 2, "b"));
        assert_eq!(
            (names(dir), text("last.safetensors")),
            (vec!["last.safetensors".into()], "b".into())
        );
        // Room for three: it is.
        assert!(save(&mut k, 6, 3, "c"));
        assert_eq!(
            (text("last.1.safetensors"), text("last.safetensors")),
            ("b".into(), "c".into())
        );
        // With that one there it is room for the new state alone.
        assert!(save(&mut k, 8, 3, "d"));
        assert_eq!(
            (text("last.1.safetensors"), text("last.safetensors")),
            ("b".into(), "d".into())
        );
        // Room for none more: the one before goes where nothing comes after.
        let saved = save(&mut k, 10, 2, "e");
        assert_eq!(saved, then == Then::Ends);
        let left = if saved { "e" } else { "d" };
        assert_eq!(text("last.safetensors"), left);
        assert_eq!(dir.join("last.1.safetensors").exists(), !saved);
        assert!(k.holds(if saved { 10 } else { 8 }));
    }
}

#[cfg(unix)]
#[test]
fn a_second_name_is_not_given_up_for_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut k = keeper(dir.path(), 2, None);
    k.save(2, put("a")).unwrap();
    let mut tries = 0;
    let full = |path: &Path| {
        tries += 1;
        Err(Error::io(path)(io::ErrorKind::QuotaExceeded.into()))
    };
    assert!(k.save(4, full).is_err());
    assert_eq!(
        (tries, names(dir.path())),
        (1, vec!["last.safetensors".into()])
    );
}

#[test]
fn a_kill_in_the_middle_of_a_save_loses_no_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let file = |name: &str| dir.join(name);
    let text = |name: &str| fs::read_to_string(file(name)).unwrap();
    let (last, aside) = ("last.safetensors", "last.replaced.safetensors");
    let all = ["last.1.safetensors", "last.2.safetensors", last];
    for (name, content) in all.iter().zip(["b", "a", "d"]) {
        fs::write(file(name), content).unwrap();
    }
    // After the new one was written: what it has replaced is the one before.
    fs::write(file(aside), "c").unwrap();
    keeper(dir, 3, Some(8));
    assert_eq!(names(dir), all);
    assert_eq!(all.map(text), ["c", "b", "d"]);
    // Before it was: a second name of the last, or a copy.
    fs::hard_link(file(last), file(aside)).unwrap();
    keeper(dir, 3, Some(8));
    assert_eq!(names(dir), all);
    fs::write(file(aside), "d").unwrap();
    keeper(dir, 3, Some(8));
    assert_eq!(
        (names(dir), all.map(text)),
        (
            all.map(String::from).to_vec(),
            ["c", "b", "d"].map(String::from)
        )
    );
    // Who asks for one gets no more.
    fs::write(file(aside), "c").unwrap();
    keeper(dir, 1, Some(8));
    assert_eq!(all.map(text), ["c", "b", "d"]);
    assert!(!file(aside).exists());
    // Without a last one it is the newest that there is.
    fs::rename(file(last), file(aside)).unwrap();
    let line = last_is_there(&file(last)).unwrap_err().to_string();
    assert!(
        line.contains("last.replaced.safetensors, is there"),
        "{line}"
    );
}

#[test]
fn one_checkpoint_is_kept_where_one_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut k = keeper(dir.path(), 1, None);
    k.save(2, put("a")).unwrap();
    k.save(4, put("b")).unwrap();
    assert_eq!(names(dir.path()), ["last.safetensors"]);
}

#[test]
fn advice_names_files_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut k = keeper(dir.path(), 2, None);
    let line = |k: &Keeper| k.diverged("the loss is NaN").to_string();
    assert_eq!(
        line(&k),
        "the loss is NaN: the run has diverged; nothing was saved before; start again with a lower `lr`"
    );
    k.save(2, put("a")).unwrap();
    let text = line(&k);
    assert!(
        text.contains("last.safetensors, saved after step 1, by"),
        "{text}"
    );
    assert!(!text.contains("last.1"), "{text}");
    k.save(4, put("b")).unwrap();
    let text = line(&k);
    assert!(
        text.contains("after step 2") && text.contains("last.1.safetensors over it"),
        "{text}"
    );
    let bad = k.save(6, |_| Err(Error::Diverged("weights".into())));
    let bad = bad.unwrap_err();
    assert!(
        matches!(&bad, Error::Diverged(t) if t.starts_with("weights: the run has diverged; go on")),
        "{bad}"
    );
}

#[test]
fn only_what_is_known_to_be_missing_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let last = dir.path().join("last.safetensors");
    assert!(!last_is_there(&last).unwrap());
    fs::write(&last, "x").unwrap();
    assert!(last_is_there(&last).unwrap());
    // A path through a file, and names too long to exist, say nothing of the file.
    assert!(is_there(&last.join("below")).is_err());
    assert!(is_there(&dir.path().join("n".repeat(300))).is_err());
    fs::rename(&last, before(&last, 1)).unwrap();
    let line = last_is_there(&last).unwrap_err().to_string();
    assert!(
        line.contains("last.1.safetensors, is there: rename"),
        "{line}"
    );
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(dir.path().join("nowhere"), &last).unwrap();
        let e = last_is_there(&last).unwrap_err();
        assert!(e.to_string().contains("is a link to a file"), "{e}");
        assert_eq!(e.exit_code(), 2);
        fs::remove_file(&last).unwrap();
        std::os::unix::fs::symlink(&last, &last).unwrap();
        assert!(last_is_there(&last).is_err(), "a link to itself");
    }
}

#[test]
fn no_number_is_never_the_best() {
    let lower = |now, best| is_better(now, best, |a, b| a < b);
    assert!(lower(1.0, None) && lower(1.0, Some(2.0)) && !lower(2.0, Some(2.0)));
    assert!(lower(1.0, Some(f64::NAN)));
    assert!(
        !lower(f64::NAN, None) && !lower(f64::NAN, Some(f64::NAN)) && !lower(f64::NAN, Some(1.0))
    );
    assert!(!lower(f64::NEG_INFINITY, Some(1.0)));
}
