//! Writing a `.pth` file as `torch.save` lays it out.

use std::io::{self, Seek, SeekFrom, Write};

use zip::write::{SimpleFileOptions, ZipWriter};
use zip::{CompressionMethod, DateTime};

/// Tensor data begins at multiples of this, so that it can be mapped into memory.
const ALIGNMENT: u16 = 64;

/// A pickled object and its tensors' bytes, from [`PthWriter::archive`](crate::PthWriter::archive).
#[derive(Debug)]
pub struct Archive<'a> {
    pub(crate) pickle: Vec<u8>,
    pub(crate) tensors: &'a [&'a [u8]],
}

impl Archive<'_> {
    /// Writes the archive's bytes. `folder` is the folder inside the archive, for which `torch.save` takes the file's name without its
    /// extension ([`folder_name`](crate::folder_name)); readers take any.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut (impl Write + Seek + ?Sized), folder: &str) -> io::Result<()> {
        let mut zip = ZipWriter::new(FailsOnce {
            pos: out.stream_position()?,
            end: 0,
            out,
            failed: false,
        });
        self.write_members(&mut zip, folder)?;
        zip.finish()?;
        Ok(())
    }

    fn write_members<W: Write + Seek + ?Sized>(
        &self,
        zip: &mut ZipWriter<FailsOnce<'_, W>>,
        folder: &str,
    ) -> io::Result<()> {
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            // A fixed time: the same content gives the same bytes.
            .last_modified_time(DateTime::default())
            .with_alignment(ALIGNMENT);
        let mut put = |name: &str, bytes: &[u8]| {
            let large = bytes.len() as u64 >= u64::from(u32::MAX) - (1 << 16);
            zip.start_file(format!("{folder}/{name}"), options.large_file(large))?;
            zip.write_all(bytes)
        };
        put("data.pkl", &self.pickle)?;
        put("byteorder", b"little")?;
        for (key, tensor) in self.tensors.iter().enumerate() {
            put(&format!("data/{key}"), tensor)?;
        }
        put("version", b"3\n")
    }
}

/// Reports the first error and from then on only pretends to write. An archive writer that is dropped after an error
/// tries to finish the archive, and would print the second error to the terminal.
struct FailsOnce<'a, W: ?Sized> {
    out: &'a mut W,
    pos: u64,
    end: u64,
    failed: bool,
}

impl<W: Write + ?Sized> Write for FailsOnce<'_, W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = if self.failed {
            buf.len()
        } else {
            self.out.write(buf).inspect_err(|_| self.failed = true)?
        };
        self.pos += n as u64;
        self.end = self.end.max(self.pos);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.failed {
            Ok(())
        } else {
            self.out.flush().inspect_err(|_| self.failed = true)
        }
    }
}

impl<W: Seek + ?Sized> Seek for FailsOnce<'_, W> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.pos = if self.failed {
            match to {
                SeekFrom::Start(n) => n,
                SeekFrom::Current(d) => self.pos.saturating_add_signed(d),
                SeekFrom::End(d) => self.end.saturating_add_signed(d),
            }
        } else {
            self.out.seek(to).inspect_err(|_| self.failed = true)?
        };
        Ok(self.pos)
    }
}
