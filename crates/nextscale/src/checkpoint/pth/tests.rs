//! Reading files of PyTorch, writing and reading back, and damaged archives.

use std::fs;
use std::io::{Cursor, Seek, SeekFrom, Write};

use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

use super::*;
use crate::checkpoint::fixtures::unpacked;
use crate::checkpoint::host::{HostDType, HostTensor};
use crate::checkpoint::pickle::{self, Storage, TensorRef};
use crate::checkpoint::safetensors::read_safetensors;
use crate::{Error, Result};

fn read_state(path: &std::path::Path) -> Result<StateDict> {
    let (mut file, value) = PthFile::open(path)?;
    match value {
        Value::Dict(d) => file.state_dict(&d, "the file"),
        _ => Err(Error::input("not a dict")),
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

fn try_bytes(bytes: &[u8]) -> Result<StateDict> {
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), bytes).unwrap();
    read_state(file.path())
}

fn view(dtype: HostDType, key: &str, numel: u64, shape: &[usize]) -> Value {
    Value::Tensor(std::sync::Arc::new(TensorRef::contiguous(
        Storage {
            dtype,
            key: key.into(),
            numel,
        },
        shape,
    )))
}

fn pickled(pairs: impl IntoIterator<Item = (String, Value)>) -> Vec<u8> {
    pickle::to_bytes(&Value::Dict(Dict::from_pairs(pairs))).unwrap()
}

fn sample() -> StateDict {
    let mut d = StateDict::new();
    d.insert(
        "a.b.weight",
        HostTensor::from_f32(&[2, 3], &[1.0, -0.0, f32::NAN, 4.0, 5.0, 6.0]).unwrap(),
    );
    d.insert(
        "a.b.flag",
        HostTensor::new(HostDType::Bool, vec![2], vec![1, 0]).unwrap(),
    );
    d.insert("a.n", HostTensor::from_i64(&[], &[-9]).unwrap());
    d.insert(
        "none",
        HostTensor::new(HostDType::BF16, vec![0, 4], vec![]).unwrap(),
    );
    d
}

fn sample_bytes() -> Vec<u8> {
    let d = sample();
    let mut b = PthBuilder::new();
    let value = b.state_dict(&d);
    let mut out = Cursor::new(Vec::new());
    b.write_to(&mut out, "x", &pickle::to_bytes(&value).unwrap())
        .unwrap();
    out.into_inner()
}

#[test]
fn pytorch_s_files_equal_their_safetensors() {
    for name in ["vae/vae_weights", "var/l2_weights", "var/saln_weights"] {
        let (_a, pth) = unpacked(&format!("{name}.pth"));
        let (_b, st) = unpacked(&format!("{name}.safetensors"));
        let from_pth = read_state(&pth).unwrap();
        let (mut from_st, _) = read_safetensors(&st).unwrap();
        let order: Vec<String> = from_pth.names().map(str::to_owned).collect();
        from_st.sort_by_key(|n| order.iter().position(|o| o == n));
        assert!(from_pth == from_st, "{name}");
        assert!(
            from_pth
                .module_versions
                .as_ref()
                .unwrap()
                .iter()
                .all(|(_, v)| *v == 1)
        );
    }
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
    assert_eq!(back, sample());
    let versions = ["", "a", "a.b"].map(|p| (p.to_owned(), 1)).to_vec();
    assert_eq!(back.module_versions, Some(versions));
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
    let storage = std::sync::Arc::new(Storage {
        dtype: HostDType::I16,
        key: "0".into(),
        numel: 6,
    });
    let of = |offset, shape: &[usize], stride: &[usize]| {
        Value::Tensor(std::sync::Arc::new(TensorRef {
            storage: storage.clone(),
            offset,
            shape: shape.into(),
            stride: stride.into(),
        }))
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
    let ints = |n: &str| d.get(n).unwrap().to_i64_vec().unwrap();
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
            view(HostDType::U8, "0", numel, &[numel as usize]),
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
            view(HostDType::U8, &i.to_string(), 5000, &[5000]),
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
    let p = pickled([(
        "a".to_owned(),
        view(HostDType::U8, "0", 1 << 20, &[1 << 20]),
    )]);
    let bomb = archive(&[("m/data.pkl", &p), ("m/data/0", &zeros)], deflated);
    assert!(
        try_bytes(&bomb)
            .unwrap_err()
            .to_string()
            .contains("compressed")
    );

    // A repeated view of one byte: a terabyte from a file of a few hundred.
    let wide = Value::Tensor(std::sync::Arc::new(TensorRef {
        storage: std::sync::Arc::new(Storage {
            dtype: HostDType::U8,
            key: "0".into(),
            numel: 1,
        }),
        offset: 0,
        shape: vec![1 << 20, 1 << 20],
        stride: vec![0, 0],
    }));
    let p = pickled([("a".to_owned(), wide)]);
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
        let one = std::sync::Arc::new(Storage {
            dtype: HostDType::U8,
            key: "0".into(),
            numel: 1,
        });
        let view = TensorRef {
            storage: one,
            offset: 0,
            shape: vec![rows, 1 << 20],
            stride: vec![0, 0],
        };
        let p = pickled([("a".to_owned(), Value::Tensor(std::sync::Arc::new(view)))]);
        let members = [
            ("m/data.pkl", &*p),
            ("m/data/0", b"x"),
            ("m/data/1", &padding),
        ];
        try_bytes(&archive(&members, stored()))
    };
    assert_eq!(wide(32).unwrap().get("a").unwrap().numel(), 32 << 20);
    let text = wide(65).unwrap_err().to_string();
    assert!(text.contains("larger than the file"), "{text}");

    // Many tensors on one storage.
    let p =
        pickled((0..200).map(|i| (i.to_string(), view(HostDType::U8, "0", 1 << 20, &[1 << 20]))));
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
    let mut b = PthBuilder::new();
    let value = b.state_dict(&d);
    let pickle = pickle::to_bytes(&value).unwrap();
    let whole = sample_bytes().len();
    for room in (0..whole).step_by(13) {
        assert!(
            b.write_to(&mut FullDisk(Cursor::default(), room), "x", &pickle)
                .is_err(),
            "{room}"
        );
    }
    b.write_to(&mut FullDisk(Cursor::default(), whole), "x", &pickle)
        .unwrap();
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
