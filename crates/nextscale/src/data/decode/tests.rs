use super::*;
use crate::data::fixtures::{Expected, difference, folder, input};
use proptest::prelude::*;

fn decode(bytes: &[u8]) -> Result<RgbImage8> {
    let mut image = RgbImage8::default();
    decode_bytes(bytes, &"the file", &mut image).map(|()| image)
}

fn formats() -> Vec<(String, Vec<u8>)> {
    files_in(&folder().join("formats"))
}

/// Files of rarer kinds.
fn others() -> Vec<(String, Vec<u8>)> {
    files_in(&folder().join("../images/other"))
}

fn files_in(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().unwrap() != "safetensors")
        .collect();
    files.sort();
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    files
        .iter()
        .map(|path| (name(path), std::fs::read(path).unwrap()))
        .collect()
}

#[test]
fn every_format_decodes_as_pillow_does() {
    let expected = Expected::open("formats/formats.safetensors");
    let files = formats();
    assert_eq!(files.len(), 18);
    for (name, bytes) in files {
        let image = decode(&bytes).unwrap();
        let (height, width, want) = expected.get(&name.replace('.', "_")).unwrap();
        assert_eq!((image.height(), image.width()), (height, width), "{name}");
        let d = difference(image.data(), &want);
        assert_eq!(d.max, 0, "{name}");
    }
}

#[test]
fn rarer_kinds_decode_as_pillow_does() {
    let expected = Expected::open("../images/other/pixels.safetensors");
    let files = others();
    assert_eq!(files.len(), 46);
    for (name, bytes) in files {
        let image = decode(&bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (height, width, want) = expected.get(&name.replace('.', "_")).unwrap();
        assert_eq!((image.height(), image.width()), (height, width), "{name}");
        assert_eq!(difference(image.data(), &want).max, 0, "{name}");
    }
}

#[test]
fn what_is_not_supported_is_told_in_plain_words() {
    let tiff = others()
        .into_iter()
        .find(|(name, _)| name == "tiff_signed16.tif");
    let (_, tiff) = tiff.unwrap();
    // The 12 bytes of a tag in its directory, little-endian: tag, type, count, value.
    let with = |tag: u16, value: u16| {
        let mut bytes = tiff.clone();
        let head = [tag.to_le_bytes().to_vec(), vec![3, 0, 1, 0, 0, 0]].concat();
        let at = bytes.windows(8).position(|w| w == head).unwrap();
        bytes[at + 8..at + 10].copy_from_slice(&value.to_le_bytes());
        decode(&bytes).unwrap_err().to_string()
    };
    for (tag, value, words) in [
        (
            259,
            50000,
            "TIFF with Zstandard compression is not supported",
        ),
        (
            259,
            6,
            "TIFF with old-style JPEG compression is not supported",
        ),
        (
            259,
            777,
            "TIFF with compression number 777 is not supported",
        ),
        (262, 8, "TIFF with Lab colours is not supported"),
        (
            258,
            24,
            "TIFF with 1 signed sample of 24 bits a pixel in gray is not supported",
        ),
        (
            339,
            9,
            "TIFF with samples of an unknown kind is not supported",
        ),
    ] {
        let text = with(tag, value);
        assert!(text.contains(words), "{text}");
        assert!(!text.contains(['(', '{', '`']), "{text}");
    }
}

#[test]
fn rarer_kinds_cut_short_or_damaged_never_panic_and_are_told() {
    for (name, bytes) in others() {
        for part in [0.1, 0.3, 0.6, 0.9] {
            let end = (bytes.len() as f64 * part) as usize;
            // Run lengths may leave pixels out; animations and TIFF have more behind the picture.
            let early = part < 0.5;
            let outcome = decode(&bytes[..end]);
            let lenient = ["bmp_rle", "webp_", "tiff_", "gif_"]
                .iter()
                .any(|n| name.starts_with(n));
            assert!(
                outcome.is_err() || (lenient && !early) || name.starts_with("bmp_rle"),
                "{name} {part}"
            );
        }
        // A byte changed here and there.
        for at in (0..bytes.len()).step_by(7) {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            if let Ok(image) = decode(&bad) {
                assert_eq!(image.data().len(), 3 * image.width() * image.height());
            }
        }
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_file_is_refused_without_opening() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket.png");
    let _socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let mut buffers = LoadBuffers::default();
    for (path, words) in [
        (path.as_path(), "is a socket, not an image file"),
        (Path::new("/dev/zero"), "is a device, not an image file"),
        (folder.path(), "is a folder, not an image file"),
    ] {
        let error = decode_file(path, &mut buffers).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains(words), "{error}");
    }
}

#[test]
fn the_content_decides_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("picture.jpg");
    std::fs::copy(input("synth_rgba.png"), &path).unwrap();
    let mut buffers = LoadBuffers::default();
    decode_file(&path, &mut buffers).unwrap();
    assert_eq!((buffers.image.width(), buffers.image.height()), (190, 131));
}

#[test]
fn errors_name_the_file_in_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notes.png");
    let mut buffers = LoadBuffers::default();
    let message = |buffers: &mut LoadBuffers| {
        let error = decode_file(&path, buffers).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.contains("notes.png") && !text.contains('\n'), "{text}");
        text
    };
    message(&mut buffers); // not there
    for content in [&b""[..], b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"] {
        std::fs::write(&path, content).unwrap();
        let text = message(&mut buffers);
        assert!(text.contains("can't be decoded"), "{text}");
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let mut files = formats();
    for name in [
        "china.jpg",
        "photo_crop_420.jpg",
        "photo_crop.png",
        "synth_cmyk.jpg",
    ] {
        files.push((name.to_owned(), std::fs::read(input(name)).unwrap()));
    }
    for (name, bytes) in files {
        for part in [0.3, 0.6, 0.9] {
            let end = (bytes.len() as f64 * part) as usize;
            let whole = decode(&bytes);
            // Raw formats whose pixels end early, compressed ones whose stream does: all must be told.
            let animated = name == "animated.gif";
            // A small PNG may have all its pixels in front of the cut.
            let told = decode(&bytes[..end]).map_or(true, |image| image == whole.unwrap());
            assert!(animated || told, "{name} {part}");
        }
    }
    let jpeg = std::fs::read(input("china.jpg")).unwrap();
    for cut in [1, 2, 3, 10, 200] {
        assert!(decode(&jpeg[..jpeg.len() - cut]).is_err(), "{cut}");
    }
    // Rubbish after the end does no harm.
    let mut longer = jpeg.clone();
    longer.extend([0x55; 999]);
    assert_eq!(decode(&longer).unwrap(), decode(&jpeg).unwrap());
}

#[test]
fn damaged_jpeg_data_is_refused_not_grayed() {
    let jpeg = std::fs::read(input("flower.jpg")).unwrap();
    let mut bad = jpeg.clone();
    let middle = bad.len() / 2;
    // All ones is the one code that no Huffman table has.
    for (i, byte) in bad[middle..middle + 64].iter_mut().enumerate() {
        *byte = if i % 2 == 0 { 0xff } else { 0 };
    }
    assert!(decode(&bad).is_err());
}

#[test]
fn pictures_beyond_the_limit_are_refused_without_taking_memory() {
    // A PNG header that claims 60000 × 60000 pixels, with its checksum.
    let mut header = b"IHDR".to_vec();
    header.extend(60_000u32.to_be_bytes());
    header.extend(60_000u32.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(&header);
    png.extend(crc.sum().to_be_bytes());
    png.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
    let text = decode(&png).unwrap_err().to_string();
    assert!(text.contains("60000x60000"), "{text}");
    // The same in a JPEG frame header.
    let mut jpeg = std::fs::read(input("china.jpg")).unwrap();
    let at = jpeg.windows(2).position(|w| w == [0xff, 0xc0]).unwrap();
    jpeg[at + 5..at + 9].copy_from_slice(&[0xf0, 0, 0xe0, 0]);
    let text = decode(&jpeg).unwrap_err().to_string();
    assert!(text.contains("57344x61440"), "{text}");
    assert!(check_size(u64::MAX, u64::MAX).is_err() && check_size(0, 5).is_err());
    assert!(check_size(13_377, 13_377).is_ok());
}

#[test]
fn buffers_do_not_leak_one_picture_into_the_next() {
    let mut image = RgbImage8::default();
    let large = std::fs::read(input("china.jpg")).unwrap();
    let small = std::fs::read(input("synth_palette.png")).unwrap();
    decode_bytes(&large, &"a", &mut image).unwrap();
    decode_bytes(&small, &"b", &mut image).unwrap();
    assert_eq!(image, decode(&small).unwrap());
    assert!(decode_bytes(b"?", &"c", &mut image).is_err());
    assert_eq!(image, RgbImage8::default());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn hostile_bytes_never_panic(
        which in 0usize..18,
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        keep in 0.2f64..1.5,
    ) {
        let (_, mut bytes) = formats().swap_remove(which);
        let end = ((bytes.len() as f64 * keep) as usize).clamp(1, bytes.len());
        bytes.truncate(end);
        for (at, value) in edits {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(image) = decode(&bytes) {
            prop_assert_eq!(image.data().len(), 3 * image.width() * image.height());
        }
    }

    #[test]
    fn any_bytes_never_panic(head in 0usize..7, tail in prop::collection::vec(any::<u8>(), 0..300)) {
        let magic: [&[u8]; 7] = [
            b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"BM", b"II*\0", b"RIFF\x40\0\0\0WEBPVP8 ",
        ];
        let _ = decode(&[magic[head], &tail].concat());
    }
}
