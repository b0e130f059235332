use super::*;
use crate::data::fixtures::{Expected, difference, folder, input};
use proptest::prelude::*;

mod bounds;

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
    assert_eq!(files.len(), 58);
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

/// A little-endian (`II`) or big-endian (`MM`) TIFF of the tags and the data, which stands at byte 8.
fn tiff(order: &[u8; 2], tags: &[(u16, &[u32])], data: &[u8]) -> Vec<u8> {
    let big = order == b"MM";
    let two = |v: u16| {
        if big {
            v.to_be_bytes()
        } else {
            v.to_le_bytes()
        }
    };
    let four = |v: u32| {
        if big {
            v.to_be_bytes()
        } else {
            v.to_le_bytes()
        }
    };
    let lists = 8 + data.len();
    let mut values = Vec::new();
    let mut entries = Vec::new();
    for &(tag, list) in tags {
        entries.extend(two(tag));
        entries.extend(two(4));
        entries.extend(four(list.len() as u32));
        if let [one] = list {
            entries.extend(four(*one));
        } else {
            entries.extend(four((lists + values.len()) as u32));
            values.extend(list.iter().flat_map(|&v| four(v)));
        }
    }
    let mut bytes = [&order[..], &two(42), &four((lists + values.len()) as u32)].concat();
    bytes.extend([data, &values, &two(tags.len() as u16), &entries, &[0; 4]].concat());
    bytes
}

#[test]
fn tiffs_that_pillow_misreads_are_refused_and_their_siblings_read() {
    type Tag = (u16, &'static [u32]);
    // Two pixels of 16 bits: 200 and 1.
    let picture: [Tag; 5] = [
        (256, &[2]),
        (257, &[1]),
        (258, &[16]),
        (262, &[1]),
        (273, &[8]),
    ];
    let with = |order: &[u8; 2], more: &[Tag], data: &[u8]| {
        let mut tags: Vec<Tag> = picture.to_vec();
        for tag in more {
            tags.retain(|(number, _)| *number != tag.0);
            tags.push(*tag);
        }
        tags.sort_unstable();
        decode(&tiff(order, &tags, data))
    };
    // PackBits: four bytes as they are.
    let (signed, packed): (Tag, Tag) = ((339, &[2]), (259, &[32773]));
    let big = with(b"MM", &[signed], &[0, 200, 0, 1]).unwrap();
    assert_eq!(big.data(), [200, 200, 200, 1, 1, 1]);
    let little = with(b"II", &[signed, packed], &[3, 200, 0, 1, 0]).unwrap();
    assert_eq!(little.data(), big.data());
    let unsigned = with(b"MM", &[packed], &[3, 200, 0, 1, 0]).unwrap();
    assert_eq!(unsigned.data(), big.data());
    let (rgb, planes): (Tag, Tag) = ((262, &[2]), (284, &[2]));
    let three: [Tag; 3] = [(277, &[3]), rgb, planes];
    let strips: Tag = (273, &[8, 13, 18]);
    let lengths: Tag = (279, &[5, 5, 5]);
    let line = [3, 0, 200, 0, 1].repeat(3);
    let read = with(
        b"II",
        &[&three[..], &[strips, lengths, packed]].concat(),
        &line,
    )
    .unwrap();
    assert_eq!(read.data(), [200, 200, 200, 1, 1, 1]);
    let eight: Tag = (258, &[8]);
    let tiles: [Tag; 6] = [(277, &[4]), rgb, planes, eight, (322, &[16]), (323, &[16])];
    let in_tiles = [&tiles[..], &[(324, &[8, 264, 520, 776])]].concat();
    let ycbcr: [Tag; 4] = [(277, &[3]), (262, &[6]), eight, (530, &[2, 2])];
    for (order, more, data, words) in [
        (
            b"MM",
            vec![signed, packed],
            vec![3, 0, 200, 0, 1],
            "compressed big-endian signed samples of 16 bits",
        ),
        (
            b"MM",
            vec![(339, &[3][..]), (258, &[32]), packed],
            vec![7; 20],
            "compressed big-endian floating-point samples of 32 bits",
        ),
        (
            b"II",
            vec![(262, &[0][..])],
            vec![0; 4],
            "white as zero in samples of 16 bits",
        ),
        (
            b"II",
            [&three[..], &[strips]].concat(),
            line.clone(),
            "uncompressed planes of 16 bits",
        ),
        (
            b"II",
            ycbcr.to_vec(),
            vec![0; 99],
            "subsampled YCbCr that is not compressed",
        ),
    ] {
        let text = with(order, &more, &data).unwrap_err().to_string();
        let words = format!("TIFF with {words} is not supported; convert it to PNG");
        assert!(text.contains(&words), "{text}");
    }
    let without_strips = |more: &[Tag]| {
        let mut tags: Vec<Tag> = picture[..4].to_vec();
        tags.retain(|(number, _)| more.iter().all(|(other, _)| other != number));
        tags.extend(more);
        tags.sort_unstable();
        decode(&tiff(b"II", &tags, &[9; 1024]))
    };
    let text = without_strips(&in_tiles).unwrap_err().to_string();
    assert!(text.contains("a channel that no tag explains"), "{text}");
    let told = [&in_tiles[..], &[(338, &[2])]].concat();
    assert_eq!(without_strips(&told).unwrap().data(), [9; 6]);
}

/// A BMP of 8 bits a pixel: its palette of grays, a compression and the bytes of its pixels.
fn bmp(size: (u32, u32), palette: &[u8], compression: u32, gap: usize, pixels: &[u8]) -> Vec<u8> {
    let place = 54 + 4 * palette.len() + gap;
    let mut bytes = b"BM\0\0\0\0\0\0\0\0".to_vec();
    for v in [place as u32, 40, size.0, size.1, 1 | 8 << 16, compression] {
        bytes.extend(v.to_le_bytes());
    }
    bytes.extend([0; 12]);
    bytes.extend((palette.len() as u32).to_le_bytes());
    bytes.extend([0; 4]);
    palette.iter().for_each(|&v| bytes.extend([v, v, v, 0]));
    bytes.resize(place, 0);
    bytes.extend(pixels);
    bytes
}

#[test]
fn bmps_that_can_be_read_in_two_ways_are_refused() {
    let grays = |bytes: &[u8]| {
        let image = decode(bytes).map_err(|e| e.to_string())?;
        Ok::<_, String>(
            image
                .data()
                .chunks_exact(3)
                .map(|c| c[0])
                .collect::<Vec<_>>(),
        )
    };
    let palette = [10, 20, 30];
    // Rows from below: 1 and 2 as they are, then a pixel left out and a run of one 2.
    let rows = [0, 3, 1, 2, 0, 0, 0, 0, 0, 2, 1, 0, 2, 2, 0, 1];
    let read = grays(&bmp((3, 2), &palette, 1, 0, &rows)).unwrap();
    assert_eq!(read, [10, 30, 30, 20, 30, 10]);
    // More than a row, an empty row, a step out of the row.
    for rows in [
        &[0, 4, 1, 2, 1, 2, 0, 1][..],
        &[0, 0, 3, 1, 0, 0, 0, 1],
        &[3, 1, 0, 2, 1, 0, 2, 1, 0, 1],
    ] {
        let text = grays(&bmp((3, 2), &palette, 1, 0, rows)).unwrap_err();
        assert!(text.contains("run lengths do not fit its rows"), "{text}");
    }
    let text = grays(&bmp((3, 2), &palette, 1, 1, &rows)).unwrap_err();
    assert!(text.contains("run lengths at an odd place"), "{text}");
    let read = grays(&bmp((3, 1), &[0, 254], 0, 0, &[1, 0, 1, 0])).unwrap();
    assert_eq!(read, [254, 0, 254]);
    let text = grays(&bmp((3, 1), &[0, 255], 0, 0, &[1, 0, 1, 0])).unwrap_err();
    assert!(
        text.contains("a palette of 2 plain grays is not supported"),
        "{text}"
    );
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
        (path.as_path(), "is a socket, not a file"),
        (Path::new("/dev/zero"), "is a device, not a file"),
        (folder.path(), "is a folder, not a file"),
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
