use super::super::build::Labels;
use super::*;
use ::tar::{Builder, EntryType, Header};
use proptest::collection::vec;
use proptest::prelude::*;
use std::fs;

const PPM: &[u8] = b"P6 1 1 255\n\x01\x02\x03";

/// The bytes of a tar file.
fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for (name, content) in members {
        let mut header = Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_cksum();
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// What an index says of a shard, the entries' names, and the images.
fn read(bytes: &[u8]) -> Result<(ShardContent, Vec<String>, Vec<Vec<u8>>)> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.tar");
    fs::write(&path, bytes).unwrap();
    let (shard, _) = Shard::open(&path)?;
    let content = index(&shard)?;
    let names = content
        .entries
        .iter()
        .map(|e| name(&shard, e.offset, e.skip));
    let names = names.collect::<Result<_>>()?;
    let images = content.entries.iter().map(|entry| {
        let mut image = vec![0; entry.length as usize];
        shard.read(entry.offset, &mut image)?;
        Ok(image)
    });
    let images = images.collect::<Result<_>>()?;
    Ok((content, names, images))
}

fn indexed(bytes: &[u8]) -> Result<(ShardContent, Vec<String>)> {
    let (content, names, images) = read(bytes)?;
    for image in images {
        if image.len() == PPM.len() {
            assert_eq!(image, PPM);
        }
    }
    Ok((content, names))
}

fn refused(bytes: &[u8]) -> String {
    let error = indexed(bytes).map(|found| found.1).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("a.tar") && !text.contains('\n'), "{text}");
    text
}

#[test]
fn classes_come_from_numbers_descriptions_and_folders() {
    let long = format!("deep/{}/x.jpg", "folder".repeat(30));
    let (content, names) = indexed(&tar(&[
        ("./s/0.jpg", PPM),
        ("./s/0.cls", b" 7\n"),
        ("s/0.txt", b"a caption"),
        ("s/1.cls", b"0"),
        ("s/1.seg.png", b"a mask"),
        ("s/1.PNG", PPM),
        ("s/1.json", br#"{"label": 9}"#),
        ("s/2.json", br#"{"width": 3, "label": null, "cls": 5}"#),
        ("s/2.webp", PPM),
    ]))
    .unwrap();
    assert_eq!(content.labels, Labels::Numbers(None));
    assert_eq!(
        content.entries.iter().map(|e| e.label).collect::<Vec<_>>(),
        [7, 0, 5]
    );
    assert_eq!(names, ["s/0.jpg", "s/1.PNG", "s/2.webp"]);
    assert_eq!(content.left_out, Default::default());
    let (content, names) = indexed(&tar(&[
        ("train/b/x.v1.jpg", PPM),
        ("train/b/x.v2.jpg", PPM),
        ("train/b/notes.txt", b"nothing"),
        ("train/b/._x.jpg", b"what macOS leaves"),
        ("__MACOSX/b/x.jpg", b"the same"),
        (&long, PPM),
        ("train/a/y.jpg", PPM),
        ("train/a/z.jpg", PPM),
        ("train/a/z.json", br#"{"label": "other"}"#),
    ]))
    .unwrap();
    let folder = "folder".repeat(30);
    assert_eq!(
        content.labels,
        Labels::Names(["b", &folder, "a", "other"].map(String::from).into())
    );
    assert_eq!(
        content.entries.iter().map(|e| e.label).collect::<Vec<_>>(),
        [0, 0, 1, 2, 3]
    );
    assert_eq!(names[2], long);
    assert!(
        content.entries[2].skip > 512,
        "its long name stands in a header of its own"
    );
    assert_eq!(
        (content.left_out.hidden, content.left_out.without_image),
        (2, 0)
    );
    let (content, _) = indexed(&tar(&[
        ("0.cls", b"1"),
        ("0.txt", b"no image"),
        ("1.jpg", PPM),
        ("1.cls", b"1"),
    ]))
    .unwrap();
    assert_eq!(
        (content.left_out.without_image, content.entries.len()),
        (1, 1)
    );
    assert_eq!(content.left_out.example, "0.cls");
}

#[test]
fn extended_headers_are_followed() {
    let mut builder = Builder::new(Vec::new());
    let records: [(&str, &[u8]); 3] = [
        ("path", "ä/b.jpg".as_bytes()),
        ("comment", b"two\nlines"),
        ("size", b"14"),
    ];
    builder.append_pax_extensions(records).unwrap();
    let mut header = Header::new_ustar();
    header.set_path("short.jpg").unwrap();
    header.set_size(PPM.len() as u64);
    header.set_cksum();
    builder.append(&header, PPM).unwrap();
    let mut folder = Header::new_gnu();
    folder.set_entry_type(EntryType::Directory);
    folder.set_path("ä/").unwrap();
    folder.set_size(0);
    folder.set_cksum();
    builder.append(&folder, &[][..]).unwrap();
    let (content, names) = indexed(&builder.into_inner().unwrap()).unwrap();
    assert_eq!(PPM.len(), 14);
    assert_eq!((content.entries.len(), names[0].as_str()), (1, "ä/b.jpg"));
}

#[test]
fn what_can_not_be_used_is_named() {
    let good = tar(&[("a/0.jpg", &[7; 700]), ("a/1.jpg", PPM)]);
    for (end, part) in [
        (0, "a tar file ends with empty blocks"),
        (300, "truncated"),
        (512, "a/0.jpg: it is truncated: the member has 700 bytes"),
        (1000, "a/0.jpg: it is truncated"),
        (1536, "a tar file ends with empty blocks"),
        (1700, "truncated"),
    ] {
        let text = refused(&good[..end]);
        assert!(text.contains(part), "{end}: {text}");
    }
    let mut damaged = good.clone();
    damaged[1536 + 20] ^= 1;
    assert!(refused(&damaged).contains("byte 1536"));
    assert!(refused(&[5; 2048]).contains("is no tar file"));
    assert!(refused(&[&[0x1f, 0x8b][..], &[5; 2048]].concat()).contains("gunzip"));
    for (members, parts) in [
        (vec![("0.jpg", PPM)], ["a.tar:0.jpg", "has no label"]),
        (
            vec![("0.jpg", PPM), ("0.cls", b"cat")],
            ["a.tar:0.cls", "\"cat\""],
        ),
        (
            vec![("0.jpg", PPM), ("0.cls", b"-1")],
            ["a.tar:0.jpg", "label -1"],
        ),
        (
            vec![("0.jpg", PPM), ("0.cls", b"99999999999")],
            ["a.tar:0.jpg", "label 99999999999"],
        ),
        (
            vec![("0.jpg", PPM), ("0.cls", &[255, 1])],
            ["a.tar:0.cls", "is no text"],
        ),
        (
            vec![("0.jpg", PPM), ("0.json", b"{")],
            ["a.tar:0.json", "no JSON"],
        ),
        (
            vec![("0.jpg", PPM), ("0.json", br#"{"label": [1]}"#)],
            ["a.tar:0.json", "[1]"],
        ),
        (
            vec![("0.jpg", PPM), ("0.png", PPM), ("0.cls", b"1")],
            ["a.tar:0.png", "second image"],
        ),
        (
            vec![("0.jpg", b""), ("0.cls", b"1")],
            ["a.tar:0.jpg", "is empty"],
        ),
        (
            vec![("0.jpg", PPM), ("0.cls", b"1"), ("b/1.jpg", PPM)],
            ["a.tar:b/1.jpg", "a name as its class"],
        ),
        (
            vec![("b/1.jpg", PPM), ("c/0.jpg", PPM), ("c/0.cls", b"1")],
            ["a.tar:c/0.jpg", "a number as its class"],
        ),
    ] {
        let text = refused(&tar(&members));
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
    }
    let mut sparse = Header::new_gnu();
    sparse.set_entry_type(EntryType::GNUSparse);
    sparse.set_path("a/s.jpg").unwrap();
    sparse.set_size(0);
    sparse.set_cksum();
    assert!(
        refused(&[&sparse.as_bytes()[..], &[0; 1024]].concat())
            .contains("a/s.jpg is a sparse file")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn damage_anywhere_is_an_error_or_other_content(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        fix in any::<bool>(),
    ) {
        let mut bytes = tar(&[("a/0.jpg", PPM), ("a/0.cls", b"3"), (&format!("{}/1.jpg", "n".repeat(120)), PPM)]);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
            let block = at / 512 * 512;
            if fix && bytes[block..block + 512].iter().any(|b| *b != 0) {
                // With the right sum, so that what lies behind it is reached.
                let mut header = Header::from_byte_slice(&bytes[block..block + 512]).clone();
                header.set_cksum();
                bytes[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        match read(&bytes) {
            Ok((content, names, _)) => prop_assert_eq!(content.entries.len(), names.len()),
            Err(error) => prop_assert_eq!(error.exit_code(), 2),
        }
    }

    #[test]
    fn records_are_what_they_say(
        records in vec(("[a-zA-Z.]{1,9}", vec(any::<u8>(), 0..30)), 1..5),
        noise in vec(any::<u8>(), 0..60),
    ) {
        let mut builder = Builder::new(Vec::new());
        builder.append_pax_extensions(records.iter().map(|(k, v)| (k.as_str(), v.as_slice()))).unwrap();
        let bytes = builder.into_inner().unwrap();
        let size = Header::from_byte_slice(&bytes[..512]).entry_size().unwrap();
        let mut rest = &bytes[512..512 + size as usize];
        for (key, value) in &records {
            let (k, v, after) = headers::record(rest).unwrap();
            prop_assert_eq!((k, v), (key.as_bytes(), value.as_slice()));
            rest = after;
        }
        prop_assert!(rest.is_empty());
        let _ = headers::record(&noise);
    }
}
