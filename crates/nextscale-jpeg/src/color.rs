//! Colours of one row of pixels to RGB.

/// Repeats gray.
pub(crate) fn gray_row(gray: &[u8], rgb: &mut [u8]) {
    for (rgb, &gray) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(gray) {
        *rgb = [gray; 3];
    }
}

/// Cyan, magenta, yellow and black as Adobe stores them (255 means none), to RGB with Pillow's rounding: what black
/// leaves, less the ink's share of it.
pub(crate) fn inverted_cmyk_row(stored: &[u8], rgb: &mut [u8]) {
    let pixels = stored.as_chunks::<4>().0;
    for (rgb, &[c, m, y, white]) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
        *rgb = [c, m, y].map(|paper| {
            let product = u32::from(255 - paper) * u32::from(white) + 128;
            let ink = ((product >> 8) + product) >> 8;
            u32::from(white).saturating_sub(ink) as u8
        });
    }
}

/// Bits after the point of the colour factors.
const POINT: u32 = 16;
const HALF: i32 = 1 << (POINT - 1);

const fn fixed(factor: f64) -> i32 {
    (factor * (1 << POINT) as f64 + 0.5) as i32
}

const CR_TO_RED: i32 = fixed(1.402);
const CB_TO_BLUE: i32 = fixed(1.772);
const CR_TO_GREEN: i32 = fixed(0.714_14);
const CB_TO_GREEN: i32 = fixed(0.344_14);

/// Y, Cb and Cr to RGB with the integers of libjpeg's tables.
#[inline(always)]
pub(crate) fn ycbcr_row(y: &[u8], cb: &[u8], cr: &[u8], rgb: &mut [u8]) {
    let pixels = y.iter().zip(cb).zip(cr);
    for (rgb, ((&y, &cb), &cr)) in rgb.as_chunks_mut::<3>().0.iter_mut().zip(pixels) {
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        let red = y + ((CR_TO_RED * cr + HALF) >> POINT);
        let green = y + ((HALF - CB_TO_GREEN * cb - CR_TO_GREEN * cr) >> POINT);
        let blue = y + ((CB_TO_BLUE * cb + HALF) >> POINT);
        *rgb = [red, green, blue].map(|c| c.clamp(0, 255) as u8);
    }
}
