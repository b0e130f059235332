//! The room that calls libjpeg: one [`Session`] for one file.
//!
//! libjpeg reports an error by calling a function that must not return. Ours unwinds through the C code, which is
//! compiled for that (`-fexceptions`), to [`Session::call`]; no panic message is printed. After an error libjpeg
//! only allows to be destroyed, so a session refuses all further calls.

#![allow(unsafe_code)]

use std::ffi::{c_int, c_long};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;

use mozjpeg_sys as c;

use crate::{Colors, Frame};

/// The most scans that are read. Usual progressive files have about ten; each one costs a pass over the whole
/// picture, however small it is in the file.
pub const MAX_SCANS: i32 = 200;

/// Rows and columns of a block of samples.
pub(crate) const BLOCK: usize = 8;
/// Rows in a row of MCUs that [`Session::read_samples`] can take: two blocks.
const ROWS: usize = 2 * BLOCK;

/// The colour model of the stored components.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Model {
    Gray,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
    /// Components of any number and meaning.
    Unknown,
}

/// What libjpeg is given pointers to: it must not move while libjpeg knows it.
struct State {
    cinfo: c::jpeg_decompress_struct,
    errors: c::jpeg_error_mgr,
    progress: c::jpeg_progress_mgr,
    source: c::jpeg_source_mgr,
    /// The part of the file that libjpeg was not given yet.
    rest: *const u8,
    left: usize,
}

/// One file being decoded.
pub(crate) struct Session<'a> {
    /// From `Box::into_raw`; freed in `drop` alone.
    state: *mut State,
    failed: bool,
    /// libjpeg keeps a pointer to the file's bytes.
    bytes: PhantomData<&'a [u8]>,
}

impl<'a> Session<'a> {
    /// Reads the header of the file `bytes`.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Self, Failure> {
        // SAFETY: these are C structures for which all bits zero is a value: numbers, null pointers, absent
        // functions, and enumerations with a first value of 0.
        let state: Box<State> = Box::new(unsafe { std::mem::zeroed() });
        let mut session = Self {
            state: Box::into_raw(state),
            failed: false,
            bytes: PhantomData,
        };
        session.call(|state| {
            // SAFETY: `state` is valid and stays where it is until `drop` has destroyed the decompressor; `bytes` lives as
            // long as the session.
            unsafe {
                c::jpeg_std_error(&mut (*state).errors);
                (*state).errors.error_exit = Some(on_error);
                (*state).errors.emit_message = Some(on_message);
                (*state).cinfo.common.err = &raw mut (*state).errors;
                c::jpeg_create_decompress(&raw mut (*state).cinfo);
                (*state).progress.progress_monitor = Some(on_progress);
                (*state).cinfo.common.progress = &raw mut (*state).progress;
                (*state).cinfo.common.client_data = state.cast();
                (*state).rest = bytes.as_ptr();
                (*state).left = bytes.len();
                (*state).source.init_source = Some(on_begin_or_end);
                (*state).source.fill_input_buffer = Some(on_more);
                (*state).source.skip_input_data = Some(on_skip);
                (*state).source.resync_to_restart = Some(c::jpeg_resync_to_restart);
                (*state).source.term_source = Some(on_begin_or_end);
                (*state).cinfo.src = &raw mut (*state).source;
                c::jpeg_read_header(&mut (*state).cinfo, 1);
            }
        })?;
        Ok(session)
    }

    /// Runs `work` on the state; an error of libjpeg becomes a [`Failure`].
    fn call<T>(&mut self, work: impl FnOnce(*mut State) -> T) -> Result<T, Failure> {
        if self.failed {
            return Err("decoding has failed before".into());
        }
        let state = self.state;
        catch_unwind(AssertUnwindSafe(|| work(state))).map_err(|cause| {
            self.failed = true;
            match cause.downcast::<Failure>() {
                Ok(failure) => *failure,
                Err(other) => resume_unwind(other),
            }
        })
    }

    fn cinfo(&self) -> &c::jpeg_decompress_struct {
        // SAFETY: the state is valid until `drop`, and only calls that borrow the session mutably change it.
        unsafe { &(*self.state).cinfo }
    }

    fn component(&self, index: usize) -> Option<&c::jpeg_component_info> {
        let cinfo = self.cinfo();
        if index >= self.components() || cinfo.comp_info.is_null() {
            return None;
        }
        // SAFETY: after the header `comp_info` points to `num_components` structures, which live in libjpeg's pool for the
        // picture. That pool is freed by `finish`, which consumes the session, and by `drop`.
        Some(unsafe { &*cinfo.comp_info.add(index) })
    }

    /// Width and height in pixels.
    pub(crate) fn size(&self) -> (usize, usize) {
        let cinfo = self.cinfo();
        (cinfo.image_width as usize, cinfo.image_height as usize)
    }

    /// What the header says.
    pub(crate) fn frame(&self) -> Frame {
        let (width, height) = self.size();
        let kept = if self.several_scans() {
            let blocks = |index| {
                let component = self.component(index)?;
                let (h, v) = self.sampling(index)?;
                let across = (component.width_in_blocks as usize).next_multiple_of(h);
                let down = (component.height_in_blocks as usize).next_multiple_of(v);
                Some(across as u64 * down as u64)
            };
            let all: u64 = (0..self.components()).filter_map(blocks).sum();
            all * size_of::<c::JBLOCK>() as u64
        } else {
            0
        };
        Frame {
            width,
            height,
            components: self.components(),
            kept,
        }
    }

    fn several_scans(&self) -> bool {
        // SAFETY: the state is valid and a header was read, which is when libjpeg knows it.
        unsafe { c::jpeg_has_multiple_scans(self.cinfo()) != 0 }
    }

    /// Number of colour components.
    pub(crate) fn components(&self) -> usize {
        usize::try_from(self.cinfo().num_components).unwrap_or(0)
    }

    /// Horizontal and vertical sampling factor of a component.
    pub(crate) fn sampling(&self, index: usize) -> Option<(usize, usize)> {
        let component = self.component(index)?;
        let h = usize::try_from(component.h_samp_factor).ok()?;
        let v = usize::try_from(component.v_samp_factor).ok()?;
        (h > 0 && v > 0).then_some((h, v))
    }

    /// The largest sampling factors of all components.
    pub(crate) fn max_sampling(&self) -> (usize, usize) {
        let all = || (0..self.components()).filter_map(|index| self.sampling(index));
        let h = all().map(|(h, _)| h).max().unwrap_or(1);
        (h, all().map(|(_, v)| v).max().unwrap_or(1))
    }

    /// Replaces the colour model that libjpeg concluded from the markers.
    pub(crate) fn set_colors(&mut self, colors: Colors) {
        let space = match (colors, self.components()) {
            (Colors::YCbCr, 3) => c::JCS_YCbCr,
            (Colors::YCbCr, 4) => c::JCS_YCCK,
            (Colors::Stored, 3) => c::JCS_RGB,
            (Colors::Stored, 4) => c::JCS_CMYK,
            _ => return,
        };
        // SAFETY: the state is valid and borrowed mutably; the field may be set between header and start.
        unsafe { (*self.state).cinfo.jpeg_color_space = space };
    }

    /// Makes libjpeg regard the components as of unknown meaning.
    pub(crate) fn forget_colors(&mut self) {
        // SAFETY: the state is valid and borrowed mutably; the field may be set between header and start.
        unsafe { (*self.state).cinfo.jpeg_color_space = c::JCS_UNKNOWN };
    }

    /// The colour model of the stored components.
    pub(crate) fn model(&self) -> Model {
        match self.cinfo().jpeg_color_space {
            c::JCS_GRAYSCALE => Model::Gray,
            c::JCS_YCbCr => Model::YCbCr,
            c::JCS_CMYK => Model::Cmyk,
            c::JCS_YCCK => Model::Ycck,
            _ => Model::Rgb,
        }
    }

    /// Begins decoding: whole rows for [`Session::read_line`], converted from `model`, or plain samples for
    /// [`Session::read_samples`]. Reads all scans where there are several. Gives the bytes of a pixel in a row.
    pub(crate) fn start(&mut self, model: Option<Model>) -> Result<usize, Failure> {
        self.call(|state| {
            // SAFETY: the state is valid and a header was read; these are the parameters that may be set now.
            unsafe {
                match model {
                    None => (*state).cinfo.raw_data_out = 1,
                    Some(Model::Unknown) => (*state).cinfo.out_color_space = c::JCS_UNKNOWN,
                    Some(Model::Gray) => (*state).cinfo.out_color_space = c::JCS_GRAYSCALE,
                    Some(Model::Cmyk | Model::Ycck) => {
                        (*state).cinfo.out_color_space = c::JCS_CMYK;
                    }
                    Some(Model::Rgb | Model::YCbCr) => {
                        (*state).cinfo.out_color_space = c::JCS_RGB;
                    }
                }
                (*state).cinfo.dct_method = c::J_DCT_METHOD::JDCT_ISLOW;
                (*state).cinfo.do_fancy_upsampling = 1;
                (*state).cinfo.do_block_smoothing = 1;
                c::jpeg_start_decompress(&mut (*state).cinfo);
            }
        })?;
        // libjpeg fills what no scan has brought with gray.
        let missing = (0..self.components()).any(|index| {
            self.component(index)
                .is_none_or(|c| c.quant_table.is_null())
        });
        if missing {
            return Err("a colour component has no data".into());
        }
        Ok(usize::try_from(self.cinfo().output_components).unwrap_or(0))
    }

    /// The next row of pixels.
    pub(crate) fn read_line(&mut self, line: &mut [u8]) -> Result<(), Failure> {
        let cinfo = self.cinfo();
        let bytes = cinfo.output_width as usize * cinfo.output_components.max(0) as usize;
        if cinfo.raw_data_out != 0 || line.len() != bytes || bytes == 0 {
            return Err("rows can't be read".into());
        }
        let mut rows = [line.as_mut_ptr()];
        let read = self.call(|state| {
            // SAFETY: the state is valid; `rows` holds one pointer to the bytes of one row, as many as were asked for
            // above. In a wrong order of calls libjpeg reports an error.
            unsafe { c::jpeg_read_scanlines(&mut (*state).cinfo, rows.as_mut_ptr(), 1) }
        })?;
        if read == 1 {
            Ok(())
        } else {
            Err("it has fewer rows than its header says".into())
        }
    }

    /// The samples of the next row of MCUs. For each of three components a place and its bytes from row to row are
    /// given: as many rows as its vertical sampling factor times [`BLOCK`], each of whole blocks.
    pub(crate) fn read_samples(&mut self, places: [(&mut [u8], usize); 3]) -> Result<(), Failure> {
        let (_, max_v) = self.max_sampling();
        if self.components() != 3 || max_v * BLOCK > ROWS || self.cinfo().raw_data_out == 0 {
            return Err("samples can't be read".into());
        }
        let mut rows = [[ptr::null_mut::<u8>(); ROWS]; 3];
        for (index, ((place, stride), rows)) in places.into_iter().zip(&mut rows).enumerate() {
            let blocks = self
                .component(index)
                .map_or(0, |c| c.width_in_blocks as usize);
            let count = self.sampling(index).map_or(0, |(_, v)| v * BLOCK);
            if blocks == 0 || stride < blocks * BLOCK || place.len() < count * stride {
                return Err("samples have no place".into());
            }
            let lines = place.chunks_exact_mut(stride).take(count);
            for (row, line) in rows.iter_mut().zip(lines) {
                *row = line.as_mut_ptr();
            }
        }
        let mut planes = rows.each_mut().map(|rows| rows.as_mut_ptr());
        let read = self.call(|state| {
            // SAFETY: the state is valid; for each component there are pointers to the rows of one row of MCUs, v·8 of them,
            // each with room for all its blocks: what libjpeg writes in one call.
            unsafe {
                c::jpeg_read_raw_data(
                    &mut (*state).cinfo,
                    planes.as_mut_ptr(),
                    (max_v * BLOCK) as c::JDIMENSION,
                )
            }
        })?;
        if read as usize == max_v * BLOCK {
            Ok(())
        } else {
            Err("it has fewer rows than its header says".into())
        }
    }

    /// Reads up to the end marker, after the last row. Where something else follows the data until the file ends,
    /// all pixels are there nevertheless.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        // SAFETY: the state is valid; in a wrong order of calls libjpeg reports an error.
        let ended = self.call(|state| unsafe { c::jpeg_finish_decompress(&mut (*state).cinfo) });
        match ended {
            Err(failure) if !failure.truncated => Err(failure),
            _ => Ok(()),
        }
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        // SAFETY: the state comes from `Box::into_raw` and is freed once, here, after libjpeg has given its memory back.
        // Destroying is allowed at any time, after errors and before creation too (the memory manager is null then).
        unsafe {
            c::jpeg_destroy_decompress(&mut (*self.state).cinfo);
            drop(Box::from_raw(self.state));
        }
    }
}

/// An error of libjpeg.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Whether the file ended early.
    truncated: bool,
    text: String,
}

impl Failure {
    fn truncated() -> Self {
        Self {
            truncated: true,
            ..Self::from("the file is truncated (no JPEG end marker)")
        }
    }
}

impl From<&str> for Failure {
    fn from(text: &str) -> Self {
        let (truncated, text) = (false, text.to_owned());
        Self { truncated, text }
    }
}

impl From<Failure> for String {
    fn from(failure: Failure) -> Self {
        failure.text
    }
}

/// Leaves libjpeg with an error.
#[cold]
fn fail(failure: Failure) -> ! {
    // Not `panic!`: the hook would print a message.
    resume_unwind(Box::new(failure))
}

/// Called by libjpeg on errors that it can't go on from.
unsafe extern "C-unwind" fn on_error(cinfo: &mut c::jpeg_common_struct) {
    fail(failure(cinfo))
}

/// Called by libjpeg on warnings (level −1) and traces. Most warnings mean that pixels are made up.
unsafe extern "C-unwind" fn on_message(cinfo: &mut c::jpeg_common_struct, level: c_int) {
    if level >= 0 {
        return;
    }
    // SAFETY: libjpeg calls with the structure whose error manager `open` has set.
    let code = unsafe { (*cinfo.err).msg_code };
    let harmless = [
        c::JWRN_EXTRANEOUS_DATA, // padding in front of a marker, which some cameras write
        c::JWRN_JFIF_MAJOR,
        c::JWRN_ADOBE_XFORM,
        c::JWRN_NOT_SEQUENTIAL, // needless numbers in a scan's header
        c::JWRN_BOGUS_ICC,
    ];
    if !harmless.contains(&code) {
        fail(failure(cinfo));
    }
}

/// Called by libjpeg before the first byte and after the last one.
unsafe extern "C-unwind" fn on_begin_or_end(_: &mut c::jpeg_decompress_struct) {}

/// Bytes that libjpeg is given at once. Where it has more than 512 bytes for each block it takes a way that does not
/// notice wrong Huffman codes.
const PIECE: usize = 508;

/// Called by libjpeg when it has used up the bytes that it was given.
unsafe extern "C-unwind" fn on_more(cinfo: &mut c::jpeg_decompress_struct) -> c::boolean {
    let state = cinfo.common.client_data.cast::<State>();
    // SAFETY: `open` has set the pointer to the state, which is valid as long as libjpeg is called; `rest` and `left` are
    // what is left of the file's bytes, which live as long.
    unsafe {
        let count = (*state).left.min(PIECE);
        if count == 0 {
            fail(Failure::truncated());
        }
        (*state).source.next_input_byte = (*state).rest;
        (*state).source.bytes_in_buffer = count;
        (*state).rest = (*state).rest.add(count);
        (*state).left -= count;
    }
    1
}

/// Called by libjpeg to pass over bytes.
unsafe extern "C-unwind" fn on_skip(cinfo: &mut c::jpeg_decompress_struct, count: c_long) {
    let state = cinfo.common.client_data.cast::<State>();
    let count = usize::try_from(count).unwrap_or(0);
    // SAFETY: as in `on_more`; no pointer moves beyond the bytes that it has.
    unsafe {
        let here = count.min((*state).source.bytes_in_buffer);
        (*state).source.next_input_byte = (*state).source.next_input_byte.add(here);
        (*state).source.bytes_in_buffer -= here;
        let there = count - here;
        if there > (*state).left {
            fail(Failure::truncated());
        }
        (*state).rest = (*state).rest.add(there);
        (*state).left -= there;
    }
}

/// Called by libjpeg now and then while it reads scans.
unsafe extern "C-unwind" fn on_progress(cinfo: &mut c::jpeg_common_struct) {
    let cinfo = ptr::from_mut(cinfo).cast::<c::jpeg_decompress_struct>();
    // SAFETY: the monitor belongs to a decompressor only, whose first member is the common part.
    if unsafe { (*cinfo).input_scan_number } > MAX_SCANS {
        fail(Failure::from(
            format!("it has more than {MAX_SCANS} scans").as_str(),
        ));
    }
}

/// libjpeg's present message.
fn failure(cinfo: &mut c::jpeg_common_struct) -> Failure {
    // SAFETY: libjpeg calls with the structure whose error manager `open` has set.
    let code = unsafe { (*cinfo.err).msg_code };
    match code {
        c::JWRN_JPEG_EOF => return Failure::truncated(),
        c::JERR_SOF_UNSUPPORTED => {
            return "lossless and hierarchical JPEG are not supported".into();
        }
        c::JERR_OUT_OF_MEMORY => return "there is not enough memory for it".into(),
        _ => {}
    }
    // libjpeg's own size; the declared type of its parameter is shorter.
    let mut buffer = [0u8; 200];
    // SAFETY: as above. The function writes at most 200 bytes (JMSG_LENGTH_MAX) with a zero at the end; its type is
    // made to say so.
    unsafe {
        type Declared = unsafe extern "C-unwind" fn(&mut c::jpeg_common_struct, &[u8; 80]);
        type Real = unsafe extern "C-unwind" fn(&mut c::jpeg_common_struct, *mut u8);
        if let Some(format) = (*cinfo.err).format_message {
            std::mem::transmute::<Declared, Real>(format)(cinfo, buffer.as_mut_ptr());
        }
    }
    let end = buffer.iter().position(|&byte| byte == 0).unwrap_or(0);
    String::from_utf8_lossy(&buffer[..end]).trim().into()
}
