//! Steps that formats share: packed samples to bytes, and bytes to red, green and blue.

/// Takes samples of 1, 2 or 4 bits out of a row, the first in the highest bits; other rows are taken as they are.
pub(super) fn unpack(bits: u8, row: &[u8], out: &mut [u8]) {
    match bits {
        1 | 2 | 4 => {
            let each = usize::from(8 / bits);
            let mask = (1u8 << bits) - 1;
            for (samples, &byte) in out.chunks_mut(each).zip(row) {
                for (i, sample) in samples.iter_mut().enumerate() {
                    *sample = byte >> (8 - bits as usize * (i + 1)) & mask;
                }
            }
        }
        _ => out
            .iter_mut()
            .zip(row)
            .for_each(|(sample, &byte)| *sample = byte),
    }
}

/// What brings samples of so many bits to 0 … 255.
pub(super) fn gray_factor(bits: u8) -> u8 {
    match bits {
        1 => 255,
        2 => 85,
        4 => 17,
        _ => 1,
    }
}

/// Looks up colours; there is black beyond the palette's end.
pub(super) fn colors_of(palette: &[[u8; 3]], indices: &[u8], rgb: &mut [u8]) {
    for (rgb, &index) in rgb.chunks_exact_mut(3).zip(indices) {
        let color = palette.get(usize::from(index)).copied();
        rgb.copy_from_slice(&color.unwrap_or_default());
    }
}

/// Bytes of a row of `samples` samples of `bits` bits.
pub(super) fn packed_bytes(samples: usize, bits: usize) -> usize {
    (samples * bits).div_ceil(8)
}

/// Triples of a palette.
pub(super) fn triples(bytes: &[u8]) -> Vec<[u8; 3]> {
    bytes.chunks_exact(3).map(|c| [c[0], c[1], c[2]]).collect()
}
