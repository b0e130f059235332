//! Reading files of PyTorch, writing and reading back, and damaged archives.

use std::fs;
use std::io::{Cursor, Seek, SeekFrom, Write};

use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;

/// What a file holds: names and tensors, and the versions beside them.
#[derive(Debug, Clone, PartialEq)]
struct Content {
    tensors: Vec<(String, Tensor)>,
    versions: Option<Vec<(String, i64)>>,
}

impl Content {
    fn get(&self, name: &str) -> &Tensor {
        let found = self.tensors.iter().find(|(n, _)| n == name);
        &found.unwrap().1
    }

    fn num_bytes(&self) -> usize {
        self.tensors.iter().map(|(_, t)| t.data().len()).sum()
    }
}

fn read_content(path: &std::path::Path) -> Result<Content> {
    let (mut file, value) = PthFile::open(path)?;
    match value {
        Value::Dict(d) => Ok(Content {
            tensors: file.state_dict(&d, "the file")?,
            versions: d.module_versions(),
        }),
        other => Err(Error::Invalid {
            path: path.to_path_buf(),
            message: format!("{other:?}"),
        }),
    }
}

/// An archive from its members.
fn archive(members: &[(&str, &[u8])], options: SimpleFileOptions) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, bytes) in members {
        zip.start_file(*name, options).unwrap();
        zip.write_all(bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

fn stored() -> SimpleFileOptions {
    SimpleFileOptions::default().compression_method(CompressionMethod::Stored)
}

fn try_bytes(bytes: &[u8]) -> Result<Content> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    read_content(file.path())
}

fn storage(dtype: DType, key: &str, numel: u64) -> Storage {
    Storage {
        dtype,
        key: key.into(),
        numel,
    }
}

fn view(dtype: DType, key: &str, numel: u64, shape: &[usize]) -> Value {
    Value::Tensor(TensorRef::whole(storage(dtype, key, numel), shape).into())
}

fn pickled(pairs: impl IntoIterator<Item = (String, Value)>) -> Vec<u8> {
    pickle::to_bytes(&Value::Dict(Dict::from_pairs(pairs))).unwrap()
}

fn sample() -> Vec<(String, Tensor)> {
    let floats = [1.0, -0.0, f32::NAN, 4.0, 5.0, 6.0].map(f32::to_le_bytes);
    let of = |name: &str, dtype, shape: &[usize], data: &[u8]| {
        let tensor = Tensor::new(dtype, shape.to_vec(), data.to_vec());
        (name.to_owned(), tensor.unwrap())
    };
    vec![
        of("a.b.weight", DType::F32, &[2, 3], floats.as_flattened()),
        of("a.b.flag", DType::Bool, &[2], &[1, 0]),
        of("a.n", DType::I64, &[], &(-9i64).to_le_bytes()),
        of("none", DType::BF16, &[0, 4], &[]),
    ]
}

/// Names and views, as writing wants them.
fn entries(tensors: &[(String, Tensor)]) -> impl Iterator<Item = (&str, TensorView<'_>)> {
    tensors.iter().map(|(name, t)| (name.as_str(), t.view()))
}

fn sample_bytes() -> Vec<u8> {
    let tensors = sample();
    let mut w = PthWriter::new();
    let value = w.state_dict(entries(&tensors), None);
    let mut out = Cursor::new(Vec::new());
    w.archive(&value).unwrap().write_to(&mut out, "x").unwrap();
    out.into_inner()
}

#[test]
fn what_is_written_is_read_back_and_aligned() {
    let bytes = sample_bytes();
    assert_eq!(
        bytes,
        sample_bytes(),
        "the same content must give the same bytes"
    );
    let back = try_bytes(&bytes).unwrap();
    assert_eq!(back.tensors, sample());
    let versions = ["", "a", "a.b"].map(|p| (p.to_owned(), 1)).to_vec();
    assert_eq!(back.versions, Some(versions));
    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    for i in 0..zip.len() {
        let member = zip.by_index(i).unwrap();
        assert_eq!(member.compression(), CompressionMethod::Stored);
        assert_eq!(
            member.data_start().unwrap() % 64,
            0,
            "{}",
            member.name().unwrap()
        );
    }
}

#[test]
fn views_share_a_storage_and_big_endian_files_are_turned_around() {
    let storage = std::sync::Arc::new(storage(DType::I16, "0", 6));
    let of = |offset, shape: &[i64], stride: &[i64]| {
        let view = TensorRef::new(storage.clone(), offset, shape, stride);
        Value::Tensor(view.unwrap().into())
    };
    let pairs = [
        ("all", of(0, &[6], &[1])),
        ("transposed", of(0, &[3, 2], &[1, 3])),
        ("tail", of(4, &[2], &[1])),
        ("repeated", of(1, &[4], &[0])),
    ];
    let data: Vec<u8> = (0..6i16).flat_map(i16::to_be_bytes).collect();
    let pickle = pickled(pairs.map(|(k, v)| (k.to_owned(), v)));
    let d = try_bytes(&archive(
        &[
            ("m/data.pkl", &pickle),
            ("m/byteorder", b"big"),
            ("m/data/0", &data),
        ],
        stored(),
    ))
    .unwrap();
    let ints = |n: &str| -> Vec<i16> {
        let pairs = d.get(n).data().as_chunks::<2>().0;
        pairs.iter().map(|&b| i16::from_le_bytes(b)).collect()
    };
    assert_eq!(ints("all"), [0, 1, 2, 3, 4, 5]);
    assert_eq!(ints("transposed"), [0, 3, 1, 4, 2, 5]);
    assert_eq!(ints("tail"), [4, 5]);
    assert_eq!(ints("repeated"), [1, 1, 1, 1]);
}

#[test]
fn unsound_archives_are_refused() {
    let one = |numel| {
        pickled([(
            "a".to_owned(),
            view(DType::U8, "0", numel, &[numel as usize]),
        )])
    };
    let text = |members: &[(&str, &[u8])]| {
        try_bytes(&archive(members, stored()))
            .unwrap_err()
            .to_string()
    };
    assert!(text(&[("m/x", b"")]).contains("without data.pkl"));
    assert!(text(&[("m/data.pkl", &one(1)), ("n/data.pkl", &one(1))]).contains("several"));
    assert!(text(&[("m/data.pkl", &one(4))]).contains("data/0"));
    assert!(text(&[("m/data.pkl", &one(4)), ("m/data/0", b"abc")]).contains("needs 4"));
    assert!(text(&[("m/data.pkl", &one(2)), ("m/data/0", b"abc")]).contains("needs 2"));
    assert!(text(&[("m/data.pkl", &one(1 << 60)), ("m/data/0", b"abc")]).contains("needs"));
    assert!(text(&[("m/data.pkl", &one(1)), ("m/constants.pkl", b"")]).contains("TorchScript"));
    assert!(
        text(&[
            ("m/data.pkl", &one(1)),
            ("m/byteorder", b"odd"),
            ("m/data/0", b"a")
        ])
        .contains("byte order")
    );
    assert!(text(&[("m/data.pkl", b"\x80\x02cos\nsystem\n.")]).contains("os.system"));
    let number = pickled([("a".to_owned(), Value::Int(1))]);
    assert!(text(&[("m/data.pkl", &number)]).contains("is of type int"));
}

#[test]
fn members_that_lie_over_each_other_are_refused() {
    let views = (0..9).map(|i| {
        (
            i.to_string(),
            view(DType::U8, &i.to_string(), 5000, &[5000]),
        )
    });
    let (p, data) = (pickled(views), [7; 5000]);
    let names: Vec<String> = (0..9).map(|i| format!("m/data/{i}")).collect();
    let mut members = vec![("m/data.pkl", &*p)];
    members.extend(names.iter().map(|name| (&**name, b"x".as_slice())));
    members[1].1 = &data;
    let mut bytes = archive(&members, stored());
    // Entries of the directory: checksum and sizes stand at 16 to 28, the place at 42 to 46.
    let entries: Vec<usize> = (0..bytes.len())
        .filter(|&at| bytes[at..].starts_with(b"PK\x01\x02"))
        .collect();
    assert_eq!(entries.len(), 10);
    for &to in &entries[2..] {
        for range in [16..28, 42..46] {
            let from = entries[1];
            bytes.copy_within(from + range.start..from + range.end, to + range.start);
        }
    }
    let text = try_bytes(&bytes).unwrap_err().to_string();
    assert!(text.contains("over each other"), "{text}");
}

#[test]
fn zip_bombs_are_refused() {
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let zeros = vec![0u8; 1 << 20];
    let p = pickled([("a".to_owned(), view(DType::U8, "0", 1 << 20, &[1 << 20]))]);
    let bomb = archive(&[("m/data.pkl", &p), ("m/data/0", &zeros)], deflated);
    assert!(
        try_bytes(&bomb)
            .unwrap_err()
            .to_string()
            .contains("compressed")
    );

    // A repeated view of one byte: a terabyte from a file of a few hundred.
    let repeated = |rows| {
        let one = storage(DType::U8, "0", 1).into();
        let view = TensorRef::new(one, 0, &[rows, 1 << 20], &[0, 0]);
        pickled([("a".to_owned(), Value::Tensor(view.unwrap().into()))])
    };
    let p = repeated(1 << 20);
    let bomb = archive(&[("m/data.pkl", &p), ("m/data/0", b"x")], stored());
    assert!(
        try_bytes(&bomb)
            .unwrap_err()
            .to_string()
            .contains("larger than the file")
    );

    // What nothing looks at buys nothing.
    let padding = vec![0u8; 4 << 20];
    let wide = |rows| {
        let p = repeated(rows);
        let members = [
            ("m/data.pkl", &*p),
            ("m/data/0", b"x"),
            ("m/data/1", &padding),
        ];
        try_bytes(&archive(&members, stored()))
    };
    assert_eq!(wide(32).unwrap().get("a").data().len(), 32 << 20);
    let text = wide(65).unwrap_err().to_string();
    assert!(text.contains("larger than the file"), "{text}");

    // Many tensors on one storage.
    let p = pickled((0..200).map(|i| (i.to_string(), view(DType::U8, "0", 1 << 20, &[1 << 20]))));
    let bomb = archive(&[("m/data.pkl", &p), ("m/data/0", &zeros)], stored());
    assert!(
        try_bytes(&bomb)
            .unwrap_err()
            .to_string()
            .contains("larger than the file")
    );
}

#[test]
fn damage_is_noticed() {
    let whole = sample_bytes();
    for len in (0..whole.len()).step_by(7) {
        assert!(try_bytes(&whole[..len]).is_err(), "{len}");
    }
    // One flipped bit in a tensor's data.
    let at = whole
        .windows(4)
        .position(|w| w == 5.0f32.to_le_bytes())
        .unwrap();
    let mut flipped = whole.clone();
    flipped[at] ^= 1;
    assert!(
        try_bytes(&flipped)
            .unwrap_err()
            .to_string()
            .contains("damaged")
    );
}

/// A disk that is full after so many bytes.
struct FullDisk(Cursor<Vec<u8>>, usize);

impl Write for FullDisk {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        if self.0.position() as usize + buf.len() > self.1 {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.0.write(buf)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Seek for FullDisk {
    fn seek(&mut self, pos: SeekFrom) -> std::io::Result<u64> {
        self.0.seek(pos)
    }
}

#[test]
fn a_full_disk_is_an_error_wherever_it_strikes() {
    let d = sample();
    let mut w = PthWriter::new();
    let value = w.state_dict(entries(&d), None);
    let archive = w.archive(&value).unwrap();
    let whole = sample_bytes().len();
    for room in (0..whole).step_by(13) {
        let mut disk = FullDisk(Cursor::default(), room);
        assert!(archive.write_to(&mut disk, "x").is_err(), "{room}");
    }
    let mut disk = FullDisk(Cursor::default(), whole);
    archive.write_to(&mut disk, "x").unwrap();
}

#[test]
fn errors_tell_what_kind_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let error = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        let error = PthFile::open(&path).unwrap_err();
        assert_eq!(error.path(), path);
        assert!(
            error
                .to_string()
                .starts_with(&format!("{}: ", path.display()))
        );
        error
    };
    let one = |pickle: &[u8]| archive(&[("m/data.pkl", pickle)], stored());
    assert!(matches!(error(b"PK"), Error::Invalid { .. }));
    assert!(matches!(error(&one(b"\x80\x02N")), Error::Invalid { .. }));
    let unknown = one(b"\x80\x02cos\nsystem\n.");
    assert!(matches!(error(&unknown), Error::Unsupported { .. }));
    let script = archive(&[("m/data.pkl", b""), ("m/constants.pkl", b"")], stored());
    assert!(matches!(error(&script), Error::Unsupported { .. }));
    let gone = PthFile::open(dir.path().join("none.pth")).unwrap_err();
    assert!(
        matches!(gone, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
    );
    let folder = PthFile::open(dir.path()).unwrap_err();
    assert!(folder.to_string().ends_with(": is not a file"), "{folder}");
    let not_there = dir.path().join("no/folder.pth");
    assert!(matches!(
        write_state_dict(not_there, []),
        Err(Error::Io { .. })
    ));
}

#[test]
fn a_file_of_one_state_dict_is_written_and_read_in_one_call() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w.pth");
    let tensors = sample();
    write_state_dict(&path, entries(&tensors)).unwrap();
    assert_eq!(read_state_dict(&path).unwrap(), tensors);
    // The folder inside is named after the file.
    let zip = zip::ZipArchive::new(fs::File::open(&path).unwrap()).unwrap();
    assert!(zip.index_for_name("w/data.pkl").is_some());
    // A number is no state dict, and a dict with a number neither.
    for (object, text) in [
        (Value::Int(1), "holds a int and not a dict"),
        (
            Value::Dict(Dict::from_pairs([("a", Value::Int(1))])),
            "the file is not a dict of tensors: \"a\" is of type int",
        ),
    ] {
        PthWriter::new().write(&path, &object).unwrap();
        let error = read_state_dict(&path).unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn versions_of_modules_are_kept() {
    let tensors = sample();
    let stated = [(String::new(), 1), ("a".to_owned(), 7)];
    let mut w = PthWriter::new();
    let value = w.state_dict(entries(&tensors), Some(&stated));
    let mut out = Cursor::new(Vec::new());
    w.archive(&value).unwrap().write_to(&mut out, "x").unwrap();
    let back = try_bytes(out.get_ref()).unwrap();
    assert_eq!(back.versions.as_deref(), Some(stated.as_slice()));
    // Anything else beside a state dict is no list of versions.
    let mut odd = Dict::default();
    odd.attrs.push(("_metadata".into(), Value::Int(1)));
    assert_eq!(odd.module_versions(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn damaged_archives_never_panic(changes in prop::collection::vec((0usize..1_000_000, any::<u8>()), 1..8), cut in 0usize..40) {
        let mut bytes = sample_bytes();
        let n = bytes.len();
        for (at, b) in changes {
            bytes[at % n] = b;
        }
        bytes.truncate(n - cut / 4);
        if let Ok(d) = try_bytes(&bytes) {
            prop_assert!(d.num_bytes() <= 8 * n + (64 << 20));
        }
    }
}
