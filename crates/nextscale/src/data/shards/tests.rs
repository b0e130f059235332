use super::*;
use ::tar::{Builder, Header};
use std::fs;
use std::time::{Duration, SystemTime};

/// Writes a tar file of images of one pixel, each with its class as a number and its value.
fn write(path: &Path, images: &[(u32, u8)]) {
    let mut builder = Builder::new(fs::File::create(path).unwrap());
    let mut add = |name: String, content: &[u8]| {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append_data(&mut header, name, content).unwrap();
    };
    for (i, (label, value)) in images.iter().enumerate() {
        add(
            format!("{i}.ppm"),
            &[&b"P6 1 1 255\n"[..], &[*value; 3]].concat(),
        );
        add(format!("{i}.cls"), label.to_string().as_bytes());
    }
    builder.finish().unwrap();
}

fn values(source: &ShardSource) -> Vec<(u32, u8)> {
    let image = |i| (source.label(i), source.image(i).unwrap().data()[0]);
    (0..source.len()).map(image).collect()
}

#[test]
fn an_index_is_made_once_and_for_a_changed_shard_again() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    let [a, b] = ["a.tar", "b.tar"].map(|name| root.join(name));
    write(&a, &[(0, 10), (1, 11)]);
    write(&b, &[(1, 20), (0, 21), (0, 22)]);
    // In the order of their names.
    let open = || ShardSource::open(root, "train", &[b.clone(), a.clone()]);
    let first = open().unwrap();
    let want = [(0, 10), (1, 11), (1, 20), (0, 21), (0, 22)];
    assert_eq!(values(&first), want);
    assert_eq!(first.class_names(), ["0", "1"]);
    assert!(first.name(3).ends_with("b.tar:1.ppm"), "{}", first.name(3));
    let file = root.join(".nextscale-index-train");
    let made = fs::read(&file).unwrap();
    // A shard that can't be read any more shows that the index is believed: same size, same time.
    let time = fs::metadata(&a).unwrap().modified().unwrap();
    let content = fs::read(&a).unwrap();
    fs::write(&a, vec![b'x'; content.len()]).unwrap();
    let set = |path: &Path, time: SystemTime| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(time).unwrap();
    };
    set(&a, time);
    let believed = open().unwrap();
    assert_eq!((believed.len(), believed.label(1)), (5, 1));
    // Now `b` changes: it is indexed again, and `a`, which is no tar file any more, is not.
    write(&b, &[(1, 30)]);
    set(&b, time + Duration::from_secs(7));
    let changed = open().unwrap();
    assert_eq!(changed.len(), 3);
    assert_eq!(
        (changed.label(2), changed.image(2).unwrap().data()[0]),
        (1, 30)
    );
    assert_ne!(fs::read(&file).unwrap(), made);
    // A run that began before is told, and skips nothing of it.
    let error = first.image(3).unwrap_err();
    assert!(
        error.to_string().contains("b.tar: the shard has changed"),
        "{error}"
    );
    assert!(error.exit_code() == 2 && !crate::data::is_of_the_file(&error));
    fs::write(&a, content).unwrap();
    set(&a, time);
    // A damaged or unfinished index is made anew.
    let whole = fs::read(&file).unwrap();
    for bad in [&whole[..whole.len() / 2], &[b'x'; 400], &[]] {
        fs::write(&file, bad).unwrap();
        assert_eq!(values(&open().unwrap()), [(0, 10), (1, 11), (1, 30)]);
        assert_eq!(fs::read(&file).unwrap(), whole);
    }
}

#[test]
fn many_may_open_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<PathBuf> = (0..20u8)
        .map(|i| {
            let path = dir.path().join(format!("{i:02}.tar"));
            write(&path, &[(0, i), (1, i)]);
            path
        })
        .collect();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let source = ShardSource::open(dir.path(), "train", &paths).unwrap();
                let want: Vec<_> = (0..20u8).flat_map(|i| [(0, i), (1, i)]).collect();
                assert_eq!(values(&source), want);
            });
        }
    });
}

#[test]
fn shards_of_one_split_label_in_one_way() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a.tar", "b.tar"].map(|name| dir.path().join(name));
    write(&a, &[(0, 1)]);
    let mut builder = Builder::new(fs::File::create(&b).unwrap());
    let mut header = Header::new_ustar();
    header.set_size(1);
    header.set_cksum();
    builder
        .append_data(&mut header, "cat/1.ppm", &b"x"[..])
        .unwrap();
    builder.finish().unwrap();
    let error = ShardSource::open(dir.path(), "x", &[a.clone(), b.clone()]).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("b.tar: labels its images in another way") && text.ends_with("a.tar"),
        "{text}"
    );
    fs::write(&b, [0; 1024]).unwrap();
    let text = ShardSource::open(dir.path(), "y", &[b])
        .unwrap_err()
        .to_string();
    assert!(text.contains("b.tar: there is no image in it"), "{text}");
    let text = ShardSource::open(dir.path(), "z", &[dir.path().join("none.tar")]).unwrap_err();
    assert_eq!(text.exit_code(), 2);
    let source = ShardSource::open(dir.path(), "w", &[a]).unwrap();
    let text = source.image(1).unwrap_err().to_string();
    assert!(text.contains("no image 1 among 1"), "{text}");
    // A picture that can't be decoded is named with its member.
    fs::write(dir.path().join("c.tar"), {
        let mut builder = Builder::new(Vec::new());
        let mut header = Header::new_ustar();
        header.set_size(3);
        header.set_cksum();
        builder
            .append_data(&mut header, "cat/bad.jpg", &b"xyz"[..])
            .unwrap();
        builder.into_inner().unwrap()
    })
    .unwrap();
    let source = ShardSource::open(dir.path(), "v", &[dir.path().join("c.tar")]).unwrap();
    let error = source.image(0).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("c.tar:cat/bad.jpg: can't be decoded"),
        "{error}"
    );
    assert!(crate::data::is_of_the_file(&error));
}
