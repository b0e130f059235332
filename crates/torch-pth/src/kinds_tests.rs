//! Files that are no zip archive of a state dict: the format from before PyTorch 1.6, and TorchScript programs.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

const LEGACY: &[u8] = include_bytes!("../../../fixtures/pth/legacy.pth");
const SCRIPT: &[u8] = include_bytes!("../../../fixtures/pth/script.pt");

fn open(bytes: &[u8]) -> Result<(PthFile<Cursor<&[u8]>>, Value)> {
    PthFile::new(Cursor::new(bytes), "w.pth")
}

/// All tensors of an object's `model`.
fn model(bytes: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let (mut file, object) = open(bytes)?;
    match object.get("model") {
        Some(Value::Dict(dict)) => file.state_dict(dict, "model"),
        _ => Ok(vec![]),
    }
}

/// All tensors of a program's module.
fn module(bytes: &[u8]) -> Result<Vec<(String, Tensor)>> {
    let (mut file, object) = PthFile::new_script(Cursor::new(bytes), "w.pt")?;
    let mut all = vec![];
    for (name, view) in object.module_tensors() {
        all.push((name, file.tensor(view)?));
    }
    Ok(all)
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let numbers = tensor.data().as_chunks::<4>().0;
    numbers.iter().map(|&b| f32::from_le_bytes(b)).collect()
}

#[test]
fn the_format_from_before_version_1_6_is_read() {
    let (_, object) = open(LEGACY).unwrap();
    assert_eq!(object.get("epoch"), Some(&Value::Int(3)));
    let tensors = model(LEGACY).unwrap();
    let get = |name: &str| &tensors.iter().find(|(n, _)| n == name).unwrap().1;
    assert_eq!(floats(get("a")), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(get("a_turned").shape(), [3, 2]);
    assert_eq!(floats(get("a_turned")), [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    assert_eq!(floats(get("row")), [3.0, 4.0, 5.0]);
    assert_eq!(get("half").dtype(), DType::F16);
    assert_eq!(get("half").data(), [0x00, 0x3e, 0x00, 0xc0]);
    assert_eq!(get("count").data(), 7i64.to_le_bytes());
    assert_eq!(get("bytes").data(), [1, 2, 255]);
}

/// A file of the old format as Python 2 and PyTorch before 0.4 wrote it: one storage of `numel` numbers, the list of `keys`, and what
/// stands behind it.
fn old(numel: u8, keys: &[&str], data: &[u8]) -> Vec<u8> {
    let magic = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
    let version = b"\x80\x02M\xe9\x03.";
    let system = b"\x80\x02}U\x0dlittle_endian\x88s.";
    let object = [
        b"\x80\x02}U\x05modelccollections\nOrderedDict\n](](U\x01wctorch._utils\n_rebuild_tensor\n((U\x07storage".as_slice(),
        b"ctorch\nFloatStorage\nU\x0244U\x06cuda:0K", &[numel], b"NtQK\0K\x01K\x02\x86K\x02K\x01\x86tRee\x85Rs.",
    ]
    .concat();
    let mut list = b"\x80\x02](".to_vec();
    for key in keys {
        list.extend([&[b'U', key.len() as u8], key.as_bytes()].concat());
    }
    list.extend(b"e.");
    [magic.as_slice(), version, system, &object, &list, data].concat()
}

#[test]
fn files_of_python_2_and_the_first_pytorch_are_read() {
    let data = [
        &2u64.to_le_bytes()[..],
        &1.5f32.to_le_bytes(),
        &(-2f32).to_le_bytes(),
    ]
    .concat();
    let tensors = model(&old(2, &["44"], &data)).unwrap();
    assert_eq!(tensors[0].0, "w");
    assert_eq!(tensors[0].1.shape(), [1, 2]);
    assert_eq!(floats(&tensors[0].1), [1.5, -2.0]);

    let refused = |bytes: &[u8]| model(bytes).unwrap_err().to_string();
    assert!(refused(&old(2, &["44"], &data[..15])).contains("cut off"));
    assert!(refused(&old(3, &["44"], &data)).contains("2 elements"));
    assert!(refused(&old(2, &["45"], &data)).contains("no tensor looks at"));
    assert!(refused(&old(2, &["44", "44"], &data)).contains("one twice"));
    assert!(refused(&old(2, &[], &data)).contains("is missing"));
    let other = old(2, &["44"], &data);
    let at = other.windows(2).position(|w| w == [0xe9, 3]).unwrap();
    let mut version = other.clone();
    version[at] = 0;
    assert!(refused(&version).contains("version of PyTorch's old format"));
    // The storage is a part of another one.
    let at = other.windows(3).position(|w| w == b"NtQ").unwrap();
    let mut part = other;
    part[at] = b')';
    assert!(refused(&part).contains("part of another"));
}

#[test]
fn a_cut_off_file_of_the_old_format_is_refused_at_any_length() {
    for len in 0..LEGACY.len() {
        assert!(model(&LEGACY[..len]).is_err(), "{len}");
    }
}

#[test]
fn a_program_s_tensors_are_read_and_nothing_else() {
    let tensors = module(SCRIPT).unwrap();
    let names: Vec<&str> = tensors.iter().map(|(n, _)| n.as_str()).collect();
    let expected = ["conv.weight", "conv.beta", "conv_1.weight", "conv_1.beta"];
    assert_eq!(names, expected);
    assert_eq!(tensors[0].1.shape(), [2, 3]);
    assert_eq!(floats(&tensors[0].1), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    assert_eq!(floats(&tensors[3].1), [0.0, 0.25, 0.5, 0.75]);
    let (_, object) = PthFile::new_script(Cursor::new(SCRIPT), "w.pt").unwrap();
    let conv = object.get("conv").unwrap();
    assert_eq!(conv.get("label"), Some(&Value::str("layer")));
    let sizes = Value::List(vec![Value::Int(3), Value::Int(2)]);
    assert_eq!(conv.get("sizes"), Some(&sizes));

    // Where weights are asked for, a program is none; and weights are no program.
    let error = open(SCRIPT).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    assert!(module(LEGACY).is_err());
    assert!(PthFile::is_script(Cursor::new(SCRIPT)));
    assert!(!PthFile::is_script(Cursor::new(LEGACY)));
    // Its classes are known nowhere else.
    let class = b"\x80\x02c__torch__\nLayer\n)\x81}X\x01\0\0\0aK\x01sb.";
    assert!(pickle::from_bytes(class).is_err());
    let value = pickle::from_script(class).unwrap();
    assert_eq!(value.get("a"), Some(&Value::Int(1)));
    for hostile in [
        b"\x80\x02cos\nsystem\n)R.".as_slice(),
        b"\x80\x02c__torch__x\nLayer\n)\x81.",
        // Attributes twice, an object inside itself, an object as a type.
        b"\x80\x02c__torch__\nL\n)\x81}X\x01\0\0\0aK\x01sb}X\x01\0\0\0bK\x01sb.",
        b"\x80\x02c__torch__\nL\n)\x81q\0}X\x01\0\0\0ah\0sb.",
        b"\x80\x02c__torch__\nL\n.",
    ] {
        assert!(pickle::from_script(hostile).is_err(), "{hostile:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(800))]

    #[test]
    fn damaged_files_never_panic(changes in prop::collection::vec((0usize..1_000_000, any::<u8>()), 1..8), cut in 0usize..40) {
        for bytes in [LEGACY, SCRIPT] {
            let mut bytes = bytes.to_vec();
            let n = bytes.len();
            for &(at, b) in &changes {
                bytes[at % n] = b;
            }
            bytes.truncate(n - cut / 4);
            for read in [model(&bytes), module(&bytes)].into_iter().flatten() {
                let size: usize = read.iter().map(|(_, t)| t.data().len()).sum();
                prop_assert!(size <= 8 * n + (64 << 20));
            }
        }
    }

    /// The program's pickle without the archive's checksums around it.
    #[test]
    fn damaged_modules_never_panic(changes in prop::collection::vec((0usize..1_000_000, any::<u8>()), 1..8)) {
        let mut zip = zip::ZipArchive::new(Cursor::new(SCRIPT)).unwrap();
        let mut pickle = vec![];
        std::io::copy(&mut zip.by_name("script/data.pkl").unwrap(), &mut pickle).unwrap();
        let n = pickle.len();
        for (at, b) in changes {
            pickle[at % n] = b;
        }
        if let Ok(value) = pickle::from_script(&pickle) {
            let _ = value.module_tensors();
        }
    }
}
