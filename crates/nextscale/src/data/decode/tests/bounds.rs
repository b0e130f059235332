//! What files claim and do not hold, and what is damaged.

use super::*;

/// Name and place of a PNG's chunks: where the length begins and where the checksum ends.
fn png_chunks(bytes: &[u8]) -> Vec<([u8; 4], std::ops::Range<usize>)> {
    let mut chunks = Vec::new();
    let mut at = 8;
    while let Some(head) = bytes.get(at..at + 8) {
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        chunks.push((head[4..].try_into().unwrap(), at..at + 12 + length));
        at += 12 + length;
    }
    chunks
}

fn png_chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let mut crc = flate2::Crc::new();
    crc.update(name);
    crc.update(data);
    let length = (data.len() as u32).to_be_bytes();
    [&length, &name[..], data, &crc.sum().to_be_bytes()].concat()
}

#[test]
fn png_with_one_bit_wrong_in_its_data_is_refused() {
    for name in [
        "png_interlaced2.png",
        "png_palette4.png",
        "png_no_end.png",
        "png_transparent.png",
    ] {
        let (_, bytes) = others().into_iter().find(|(n, _)| n == name).unwrap();
        let chunks = png_chunks(&bytes);
        let (_, data) = chunks.iter().find(|(name, _)| name == b"IDAT").unwrap();
        for at in data.start + 8..data.end {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << (at % 8);
            assert!(decode(&bad).is_err(), "{name}: byte {at}");
        }
        // The sum at the end of the data alone, as a writer with a fault in its memory leaves it.
        let mut stored = bytes[data.start + 8..data.end - 4].to_vec();
        *stored.last_mut().unwrap() ^= 1;
        let bad = [&bytes[..data.start], &png_chunk(b"IDAT", &stored)].concat();
        let text = decode(&bad).unwrap_err().to_string();
        assert!(
            text.contains("PNG: its compressed data is damaged"),
            "{text}"
        );
    }
}

#[test]
fn png_cut_short_is_read_only_where_all_pixels_are_there() {
    for name in [
        "png_interlaced2.png",
        "png_palette4.png",
        "png_no_end.png",
        "png_transparent.png",
    ] {
        let (_, bytes) = others().into_iter().find(|(n, _)| n == name).unwrap();
        let whole = decode(&bytes).unwrap();
        let chunks = png_chunks(&bytes);
        let (_, data) = chunks.iter().find(|(name, _)| name == b"IDAT").unwrap();
        for end in 0..bytes.len() {
            match decode(&bytes[..end]) {
                // The data's end code and sum and the chunk's sum may be missing.
                Ok(image) => assert!(image == whole && end + 12 >= data.end, "{name} {end}"),
                Err(e) => assert!(end < data.end, "{name} {end}: {e}"),
            }
        }
    }
}

#[test]
fn what_a_file_can_not_hold_is_refused_before_memory_is_taken() {
    let ppm = |kind: u8| {
        format!(
            "P{} 13000 13000 {}",
            kind as char,
            if kind == b'4' { "" } else { "255 " }
        )
    };
    let side = 13_000u32.to_le_bytes();
    let mut bmp = b"BM\x36\0\0\0\0\0\0\0\x36\0\0\0\x28\0\0\0".to_vec();
    bmp.extend([side, side].concat());
    bmp.extend([1, 0, 24, 0]);
    bmp.extend([0; 24]);
    let png = |width: u32, interlaced: u8| {
        let head = [
            &width.to_be_bytes()[..],
            &1u32.to_be_bytes(),
            &[16, 6, 0, 0, interlaced],
        ]
        .concat();
        let data = b"\x78\x9c\x63\x60\xa0\x3d\x00\x00\x00\x64\x00\x01";
        [
            b"\x89PNG\r\n\x1a\n".to_vec(),
            png_chunk(b"IHDR", &head),
            png_chunk(b"IDAT", data),
        ]
        .concat()
    };
    let mut files = vec![
        ("bmp", bmp),
        ("png", png(178_956_970, 0)),
        ("png interlaced", png(178_956_970, 1)),
    ];
    for kind in b"23456" {
        files.push(("pnm", ppm(*kind).into_bytes()));
    }
    files.push(("tiff", strip(1, 13_000, 13_000, 3, 8)));
    for (name, bytes) in files {
        let mut image = RgbImage8::default();
        let mut room = Room::default();
        let text = decode_into(&bytes, Finish::default(), &name, &mut image, &mut room)
            .unwrap_err()
            .to_string();
        assert!(text.contains("ends early"), "{text}");
        assert!(!room.holds(), "{name}");
    }
}

/// A TIFF of one strip with ten bytes of data.
fn strip(compression: u32, width: u32, height: u32, samples: u32, bits: u32) -> Vec<u8> {
    let data = [0x78, 0x9c, 0x63, 0x60, 0, 0, 0, 0, 0, 0];
    let tags: [(u16, &[u32]); 9] = [
        (256, &[width]),
        (257, &[height]),
        (258, &[bits]),
        (259, &[compression]),
        (262, &[2]),
        (273, &[8]),
        (277, &[samples]),
        (278, &[height]),
        (279, &[data.len() as u32]),
    ];
    tiff(b"II", &tags, &data)
}

#[test]
fn pictures_beyond_the_budget_are_refused_in_one_line() {
    // A row of 64 samples of 16 bits for each of 178 million pixels.
    let text = decode(&strip(8, 178_956_970, 1, 64, 16))
        .unwrap_err()
        .to_string();
    assert!(text.contains("MiB, more than the limit of"), "{text}");
    // As many pixels in a square are unpacked row by row.
    let text = decode(&strip(8, 13_377, 13_377, 64, 16))
        .unwrap_err()
        .to_string();
    assert!(text.contains("ends early or is damaged"), "{text}");
}

#[test]
fn frames_of_webp_must_fit_their_picture_and_their_data() {
    let (_, bytes) = others()
        .into_iter()
        .find(|(n, _)| n == "webp_animated.webp")
        .unwrap();
    let frame = bytes.windows(4).position(|w| w == b"ANMF").unwrap() + 8;
    let with = |at: usize, change: u8| {
        let mut bytes = bytes.clone();
        bytes[frame + at] ^= change;
        decode(&bytes).unwrap_err().to_string()
    };
    // Left, top, width and height, three bytes each.
    for (at, change, words) in [
        (1, 0x40, "its first frame is not within the picture"),
        (5, 0x01, "its first frame is not within the picture"),
        (6, 0x01, "its first frame has another size than its data"),
        (9, 0x01, "its first frame has another size than its data"),
    ] {
        let text = with(at, change);
        assert!(
            text.contains("WebP: its first frame"),
            "{at}: {text} {words}"
        );
    }
    assert!(decode(&bytes).is_ok());
}

#[test]
fn the_palette_of_a_bmp_does_not_end_where_its_pixels_begin() {
    let bytes = std::fs::read(folder().join("formats/palette.bmp")).unwrap();
    let whole = decode(&bytes).unwrap();
    // Pixels that begin two bytes earlier are the palette's last bytes; all colours are there nevertheless.
    let mut earlier = bytes.clone();
    earlier[10] -= 2;
    let shifted = decode(&earlier).unwrap();
    let row = |image: &RgbImage8, y: usize| image.row(y).to_vec();
    let last = whole.height() - 1;
    assert_eq!(
        row(&shifted, last)[6..],
        row(&whole, last)[..3 * whole.width() - 6]
    );
    // A writer that does not count the palette.
    let mut header_only = bytes.clone();
    header_only[10..14].copy_from_slice(&(14 + u32::from(bytes[14])).to_le_bytes());
    assert_eq!(decode(&header_only).unwrap(), whole);
}

#[test]
fn run_lengths_that_end_before_the_last_row_are_refused() {
    for name in ["bmp_rle8.bmp", "bmp_rle4.bmp"] {
        let (_, bytes) = others().into_iter().find(|(n, _)| n == name).unwrap();
        let text = decode(&bytes[..bytes.len() * 2 / 3])
            .unwrap_err()
            .to_string();
        assert!(text.contains("BMP: the file ends early"), "{text}");
    }
}

#[test]
fn a_picture_may_be_held_to_less_than_the_limit() {
    let mut image = RgbImage8::default();
    for (name, bytes) in others() {
        if decode_bytes(&bytes, &name, &mut image).is_err() {
            continue;
        }
        let pixels = (3 * image.width() * image.height()) as u64;
        decode_within(64 << 20, &bytes, &name, &mut image).unwrap();
        let text = decode_within(pixels - 1, &bytes, &name, &mut image)
            .unwrap_err()
            .to_string();
        assert!(text.contains("more than the limit of 1 MiB"), "{text}");
        assert!(image.data().is_empty());
    }
}

#[test]
fn colours_of_webp_follow_their_alpha() {
    let (_, bytes) = others()
        .into_iter()
        .find(|(n, _)| n == "webp_blended.webp")
        .unwrap();
    let place = |name: &[u8]| bytes.windows(4).position(|w| w == name).unwrap();
    let (frame, colours) = (place(b"ANMF"), place(b"VP8 "));
    assert!(place(b"ALPH") < colours);
    // Another name, which the decoder passes over, must not hide that the data has another size.
    for width_changes in [false, true] {
        let mut bad = bytes.clone();
        bad[colours + 2] = b'7';
        if width_changes {
            bad[frame + 14] -= 1;
        }
        let text = decode(&bad).unwrap_err().to_string();
        assert!(text.contains("alpha and no colours"), "{text}");
    }
    let mut bad = bytes.clone();
    bad[frame + 14] -= 1;
    let text = decode(&bad).unwrap_err().to_string();
    assert!(text.contains("another size than its data"), "{text}");
}
