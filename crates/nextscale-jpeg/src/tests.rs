use std::collections::BTreeMap;
use std::path::PathBuf;

use super::*;

fn folder() -> PathBuf {
    PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../fixtures/images/jpeg"
    ))
}

fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).unwrap()
}

type Picture = (usize, usize, Vec<u8>);

fn decoded(bytes: &[u8], colors: Colors, own: bool) -> Result<Picture, String> {
    let (mut size, mut pixels) = ((0, 0), Vec::new());
    decode_by(bytes, colors, own, |Frame { width, height, .. }| {
        size = (width, height);
        pixels.resize(3 * width * height, 0);
        Ok(&mut pixels)
    })?;
    Ok((size.0, size.1, pixels))
}

fn crc(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

/// What Pillow makes of each file: width, height, checksum.
fn expected() -> BTreeMap<String, (usize, usize, u32)> {
    let text = std::fs::read_to_string(folder().join("pixels.txt")).unwrap();
    let line = |line: &str| {
        let parts: Vec<_> = line.split(' ').collect();
        let number = |i: usize| parts[i].parse().unwrap();
        let crc = u32::from_str_radix(parts[3], 16).unwrap();
        (parts[0].to_owned(), (number(1), number(2), crc))
    };
    text.lines().map(line).collect()
}

#[test]
fn pixels_are_those_of_pillow_to_the_bit() {
    let expected = expected();
    assert_eq!(expected.len(), 40);
    for (name, want) in expected {
        let bytes = file(&name);
        for own in [true, false] {
            let (width, height, pixels) = decoded(&bytes, Colors::Marked, own).unwrap();
            assert_eq!((width, height, crc(&pixels)), want, "{name} {own}");
        }
    }
}

#[test]
fn damaged_files_and_unknown_kinds_are_refused_with_the_reason() {
    for (name, part) in [
        ("cut", "truncated"),
        ("no_end_marker", "truncated"),
        ("cut_then_end_marker", "premature end of data"),
        ("progressive_cut_then_end_marker", "premature end of data"),
        ("cut_at_restart_marker", "instead of RST1"),
        ("restart_interval_lost", "instead of RST1"),
        ("restart_marker_lost", "instead of RST1"),
        ("restart_marker_twice", "premature end of data"),
        ("first_scan_missing", "progression"),
        ("last_scan_missing", "a colour component has no data"),
        ("wrong_code", "bad Huffman code"),
        (
            "lossless",
            "lossless and hierarchical JPEG are not supported",
        ),
        ("twelve_bits", "precision 12"),
        ("two_components", "2 colour components"),
        ("many_scans", "more than 200 scans"),
    ] {
        let bytes = file(&format!("damaged/{name}.jpg"));
        let text = decoded(&bytes, Colors::Marked, true).unwrap_err();
        assert!(
            text.contains(part) && !text.contains('\n'),
            "{name}: {text}"
        );
    }
    for bytes in [
        &b""[..],
        b"\xff",
        b"\xff\xd8",
        b"\xff\xd8\xff\xd9",
        b"GIF89a",
    ] {
        assert!(decoded(bytes, Colors::Marked, true).is_err());
    }
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    for name in [
        "420.jpg",
        "444_progressive.jpg",
        "restart.jpg",
        "arithmetic.jpg",
    ] {
        let bytes = file(name);
        for end in 0..bytes.len() {
            assert!(
                decoded(&bytes[..end], Colors::Marked, true).is_err(),
                "{name} {end}"
            );
        }
    }
}

/// Gives the file another size. The data then is of another picture: too much of it, which is no error.
fn resized(bytes: &[u8], width: u16, height: u16) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    let frame = |pair: &[u8]| pair == [0xff, 0xc0] || pair == [0xff, 0xc1];
    let at = bytes.windows(2).position(frame).unwrap();
    bytes[at + 5..at + 7].copy_from_slice(&height.to_be_bytes());
    bytes[at + 7..at + 9].copy_from_slice(&width.to_be_bytes());
    bytes
}

#[test]
fn our_last_stages_equal_those_of_libjpeg_at_every_size() {
    let (mut compared, mut by_us) = (0, 0);
    for name in [
        "444.jpg",
        "422.jpg",
        "420.jpg",
        "440.jpg",
        "mixed.jpg",
        "chroma_finer.jpg",
        "chroma_finer_wide.jpg",
        "separate_scans.jpg",
        "quality1.jpg",
    ] {
        let bytes = file(name);
        for (width, height) in (1..=33).flat_map(|w| (1..=27).map(move |h| (w, h))) {
            let bytes = resized(&bytes, width, height);
            let session = Session::open(&bytes).unwrap();
            by_us += usize::from(Expansion::plan(&session).is_some());
            drop(session);
            let ours = decoded(&bytes, Colors::Marked, true).unwrap();
            let theirs = decoded(&bytes, Colors::Marked, false).unwrap();
            assert_eq!((ours.0, ours.1), (width.into(), height.into()));
            assert!(ours == theirs, "{name} {width}x{height}");
            compared += 1;
        }
    }
    assert_eq!(compared, 9 * 33 * 27);
    assert!(by_us > compared * 9 / 10, "{by_us} of {compared}");
}

#[test]
fn a_container_can_say_how_colours_are_stored() {
    let plain = file("no_markers.jpg");
    let ycbcr = decoded(&plain, Colors::Marked, true).unwrap();
    let rgb = decoded(&file("rgb_names.jpg"), Colors::Marked, true).unwrap();
    assert_ne!(ycbcr, rgb);
    for own in [true, false] {
        assert_eq!(decoded(&plain, Colors::Stored, own).unwrap(), rgb);
        let named = file("rgb_names.jpg");
        assert_eq!(decoded(&named, Colors::YCbCr, own).unwrap(), ycbcr);
    }
    let four = file("four_no_markers.jpg");
    let with_transform = decoded(&file("four_adobe2.jpg"), Colors::Marked, true).unwrap();
    assert_eq!(decoded(&four, Colors::YCbCr, true).unwrap(), with_transform);
    let gray = file("gray.jpg");
    let as_marked = decoded(&gray, Colors::Marked, true).unwrap();
    assert_eq!(decoded(&gray, Colors::YCbCr, true).unwrap(), as_marked);
}

#[test]
fn components_are_given_as_they_are_stored() {
    let components = |name: &str| {
        let (mut all, mut number) = (Vec::new(), 0);
        decode_components(&file(name), |frame| {
            let Frame {
                width,
                height,
                components: n,
                ..
            } = frame;
            number = n;
            all = vec![0; width * height * n];
            Ok(&mut all)
        })
        .map(|()| (number, all.clone()))
    };
    let (n, four) = components("four_no_markers.jpg").unwrap();
    let (_, _, rgb) = decoded(&file("four_no_markers.jpg"), Colors::Stored, true).unwrap();
    let mut turned = vec![0; rgb.len()];
    color::inverted_cmyk_row(&four, &mut turned);
    assert_eq!(n, 4);
    assert!(turned == rgb);
    let (n, three) = components("rgb_names.jpg").unwrap();
    let (_, _, rgb) = decoded(&file("rgb_names.jpg"), Colors::Stored, true).unwrap();
    assert_eq!(n, 3);
    assert!(three == rgb);
    let (n, one) = components("gray.jpg").unwrap();
    let (_, _, rgb) = decoded(&file("gray.jpg"), Colors::Stored, true).unwrap();
    assert_eq!(n, 1);
    assert!(one.iter().zip(rgb.chunks_exact(3)).all(|(v, c)| v == &c[0]));
    let refused = components("420.jpg").unwrap_err();
    assert_eq!(refused, "its components have different sizes");
}

#[test]
fn the_caller_may_refuse_a_size() {
    let refused = decode(
        &file("420.jpg"),
        Colors::Marked,
        |Frame { width, height, .. }| Err(format!("{width} by {height}")),
    );
    assert_eq!(refused.unwrap_err(), "33 by 27");
    let mut short = [0; 99];
    let refused = decode(&file("420.jpg"), Colors::Marked, |_| Ok(&mut short));
    assert!(refused.unwrap_err().contains("no place"));
}

/// Kilobytes of memory that this process holds.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[cfg(target_os = "linux")]
#[test]
fn errors_leave_no_memory_behind() {
    let files = [
        "cut",
        "restart_marker_lost",
        "many_scans",
        "wrong_code",
        "lossless",
    ];
    let round = || {
        for name in files {
            let bytes = file(&format!("damaged/{name}.jpg"));
            assert!(decoded(&bytes, Colors::Marked, true).is_err());
        }
    };
    for _ in 0..20 {
        round();
    }
    let before = resident();
    for _ in 0..2000 {
        round();
    }
    // One leaked decoder is about 30 kB: ten thousand would be 300 MB.
    assert!(resident() < before + 40_000, "{before} to {}", resident());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(600))]

    #[test]
    fn hostile_bytes_never_panic(
        which in 0usize..40,
        edits in proptest::collection::vec(proptest::prelude::any::<(proptest::sample::Index, u8)>(), 1..10),
        cut in proptest::option::of(proptest::prelude::any::<proptest::sample::Index>()),
    ) {
        let name = expected().into_keys().nth(which).unwrap();
        let mut bytes = file(&name);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let mut pixels = Vec::new();
        let result = decode(&bytes, Colors::Marked, |Frame { width, height, .. }| {
            if width * height > 1 << 22 {
                return Err("too large for this test".to_owned());
            }
            pixels.resize(3 * width * height, 0);
            Ok(&mut pixels)
        });
        if let Err(text) = result {
            assert!(!text.is_empty() && !text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn what_is_kept_of_files_in_several_scans_is_told_beforehand() {
    let kept = |bytes: &[u8]| {
        let mut told = None;
        let refused = decode(bytes, Colors::Marked, |frame| {
            told = Some((frame.width, frame.height, frame.kept));
            Err("no".to_owned())
        });
        assert_eq!(refused.unwrap_err(), "no");
        told.unwrap()
    };
    let (width, height, one_scan) = kept(&file("420.jpg"));
    assert_eq!(one_scan, 0);
    // Blocks of 8×8 coefficients of two bytes, whole MCUs of 16×16 pixels: 4 of luma, 2 of colours.
    let (w, h, many) = kept(&file("420_progressive.jpg"));
    let mcus = w.div_ceil(16) * h.div_ceil(16);
    assert_eq!(many, (mcus * 6 * 128) as u64);
    assert!(width * height > 0);
}
