use std::fs;

use proptest::prelude::*;
use safetensors::SafeTensors;

use super::*;

fn sample() -> (StateDict, TextMetadata) {
    let mut d = StateDict::new();
    d.insert(
        "z.weight",
        HostTensor::from_f32(&[2, 2], &[1.0, f32::NAN, -0.0, 4.0]).unwrap(),
    );
    d.insert(
        "mask",
        HostTensor::new(HostDType::Bool, vec![3], vec![0, 1, 1]).unwrap(),
    );
    d.insert(
        "a.idx",
        HostTensor::from_i64(&[3], &[1, -2, i64::MAX]).unwrap(),
    );
    d.insert("empty", HostTensor::from_f32(&[0, 5], &[]).unwrap());
    d.insert("scalar \"é\"", HostTensor::from_f32(&[], &[2.0]).unwrap());
    let meta = [("format", "pt"), ("note", "x\"y")]
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .into();
    (d, meta)
}

#[test]
fn round_trip_keeps_order_bits_and_text() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let (d, meta) = sample();
    write_safetensors(&path, &d, &meta).unwrap();
    assert_eq!(read_safetensors(&path).unwrap(), (d.clone(), meta.clone()));
    let first = fs::read(&path).unwrap();
    write_safetensors(&path, &d, &meta).unwrap();
    assert_eq!(
        fs::read(&path).unwrap(),
        first,
        "the same content must give the same bytes"
    );

    // The format's own reader agrees.
    let other = SafeTensors::deserialize(&first).unwrap();
    assert_eq!(other.len(), d.len());
    for (name, t) in d.iter() {
        let view = other.tensor(name).unwrap();
        assert_eq!(
            (view.shape(), view.data()),
            (t.shape.as_slice(), t.data.as_slice())
        );
        let from = view.data().as_ptr() as usize - first.as_ptr() as usize;
        assert!(
            t.data.is_empty() || from.is_multiple_of(t.dtype.size()),
            "{name} is not aligned"
        );
    }
}

#[test]
fn reads_files_of_the_format_s_own_writer() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.safetensors");
    let data = 1.5f32.to_le_bytes();
    let view = safetensors::tensor::TensorView::new(Dtype::F32, vec![1], &data).unwrap();
    fs::write(&path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
    let (d, meta) = read_safetensors(&path).unwrap();
    assert_eq!(
        (d.get("x").unwrap().to_f32_vec(), meta.len()),
        (vec![1.5], 0)
    );
    let odd = safetensors::tensor::TensorView::new(Dtype::U64, vec![0], &[]).unwrap();
    fs::write(&path, safetensors::serialize([("x", odd)], None).unwrap()).unwrap();
    assert!(
        read_safetensors(&path)
            .unwrap_err()
            .to_string()
            .contains("U64")
    );
}

#[test]
fn every_truncation_and_an_extra_byte_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.safetensors");
    let (d, meta) = sample();
    write_safetensors(&path, &d, &meta).unwrap();
    let whole = fs::read(&path).unwrap();
    for len in 0..whole.len() {
        fs::write(&path, &whole[..len]).unwrap();
        let err = read_safetensors(&path).unwrap_err();
        assert!(err.to_string().contains("cut.safetensors"), "{err}");
        assert_eq!(err.exit_code(), 2);
    }
    fs::write(&path, [whole.as_slice(), &[0]].concat()).unwrap();
    assert!(
        read_safetensors(&path)
            .unwrap_err()
            .to_string()
            .contains("longer")
    );
}

#[test]
fn a_name_given_twice_is_refused() {
    let t = HostTensor::from_f32(&[1], &[1.0]).unwrap();
    let list = [("x".to_owned(), &t), ("x".to_owned(), &t)];
    assert!(write_to(&mut Vec::new(), &list, &TextMetadata::new()).is_err());
    assert!(
        write_to(
            &mut Vec::new(),
            &[("__metadata__".to_owned(), &t)],
            &TextMetadata::new()
        )
        .is_err()
    );
}

#[test]
fn a_full_disk_is_an_error() {
    let (d, meta) = sample();
    let list: Vec<_> = d.iter().map(|(n, t)| (n.to_owned(), t)).collect();
    let mut full = File::options().write(true).open("/dev/full").unwrap();
    assert!(write_to(&mut full, &list, &meta).is_err());
}

proptest! {
    #[test]
    fn damaged_files_never_panic(at in 0usize..700, byte: u8, cut in 0usize..900) {
        let (d, meta) = sample();
        let list: Vec<_> = d.iter().map(|(n, t)| (n.to_owned(), t)).collect();
        let mut bytes = Vec::new();
        write_to(&mut bytes, &list, &meta).unwrap();
        let at = at % bytes.len();
        bytes[at] = byte;
        bytes.truncate(cut.max(1));
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), &bytes).unwrap();
        if let Ok((d, _)) = read_safetensors(file.path()) {
            prop_assert!(d.num_bytes() <= bytes.len());
        }
    }
}
