//! Opening the files that a user names.

use std::fs::{File, FileType};
use std::path::Path;

use crate::{Error, Result};

/// Opens a file to read it, with its length. What is no file is told without opening it: a pipe that nobody writes to would
/// never open, and opening a device may do something.
///
/// # Errors
/// [`Error::Io`] where it can't be opened; [`Error::Input`] where it is no file.
pub fn open_input(path: &Path) -> Result<(File, u64)> {
    let found = std::fs::metadata(path).map_err(Error::io(path))?;
    if !found.is_file() {
        return Err(Error::input(format!(
            "{}: is {}, not a file; give the name of a file",
            path.display(),
            kind(&found.file_type())
        )));
    }
    let file = File::open(path).map_err(Error::io(path))?;
    Ok((file, found.len()))
}

/// What something that is no file is, for messages.
pub(crate) fn kind(of: &FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if of.is_fifo() {
            return "a pipe";
        }
        if of.is_socket() {
            return "a socket";
        }
    }
    if of.is_dir() { "a folder" } else { "a device" }
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use crate::checkpoint::{inspect::describe, load_part};
    use crate::data::tokens::TokenFile;
    use std::os::unix::net::UnixListener;

    #[test]
    fn what_is_no_file_is_refused_by_whoever_opens_inputs() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("w.safetensors");
        let _socket = UnixListener::bind(&socket).unwrap();
        // Somebody holds the pipe open, so that a test that fails does not wait.
        let (_reader, writer) = std::io::pipe().unwrap();
        let pipe = {
            use std::os::fd::AsRawFd;
            std::path::PathBuf::from(format!("/proc/self/fd/{}", writer.as_raw_fd()))
        };
        for (path, what) in [
            (socket.as_path(), "is a socket, not a file"),
            (pipe.as_path(), "is a pipe, not a file"),
            (Path::new("/dev/zero"), "is a device, not a file"),
        ] {
            let refused = [
                open_input(path).err(),
                describe(path).err(),
                load_part(path, crate::checkpoint::ModelKind::Var, None).err(),
                TokenFile::open(path).err(),
                crate::data::alpha_of(path).err(),
            ];
            for error in refused {
                let error = error.unwrap();
                assert_eq!(error.exit_code(), 2);
                assert!(error.to_string().contains(what), "{error}");
            }
        }
        assert!(open_input(folder.path()).is_err());
        let file = folder.path().join("f");
        std::fs::write(&file, b"abc").unwrap();
        assert_eq!(open_input(&file).unwrap().1, 3);
    }
}
