//! Where a file's storages lie: in members of a zip archive, or one behind the other as before PyTorch 1.6.

use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use zip::CompressionMethod;
use zip::read::ZipArchive;
use zip::result::ZipError;

use crate::legacy::Places;
use crate::pickle::Storage;
use crate::{Error, Result};

/// A file whose storages can be read.
pub(crate) enum Members<R> {
    /// A zip archive.
    Zip(ZipMembers<R>),
    /// The old format.
    Stream {
        reader: R,
        path: PathBuf,
        places: Places,
    },
}

/// An open zip archive.
pub(crate) struct ZipMembers<R> {
    path: PathBuf,
    archive: ZipArchive<R>,
    /// The folder inside the archive, with its slash.
    prefix: String,
    file_bytes: u64,
}

impl<R: Read + Seek> Members<R> {
    /// That the file has as many bytes for a storage as the pickle states.
    pub(crate) fn check(&self, storage: &Storage) -> Result<()> {
        match self {
            Self::Zip(zip) => zip.check(storage),
            Self::Stream { path, places, .. } => match places.get(storage) {
                Some(_) => Ok(()),
                None => Err(invalid(
                    path,
                    format!("its storage {:?} is missing", storage.key),
                )),
            },
        }
    }

    /// A storage's bytes, which [`Self::check`] has passed.
    pub(crate) fn storage(&mut self, storage: &Storage) -> Result<Vec<u8>> {
        let bytes = storage.num_bytes().unwrap_or(u64::MAX);
        match self {
            Self::Zip(zip) => zip.member(&format!("data/{}", storage.key), bytes),
            Self::Stream {
                reader,
                path,
                places,
            } => {
                let at = places.get(storage).ok_or_else(|| {
                    invalid(path, format!("its storage {:?} is missing", storage.key))
                })?;
                reader.seek(SeekFrom::Start(at)).map_err(Error::io(path))?;
                read_whole(reader.take(bytes), bytes, path, &storage.key)
            }
        }
    }
}

impl<R: Read + Seek> ZipMembers<R> {
    /// Opens an archive of `file_bytes` bytes and finds the folder in it.
    pub(crate) fn new(reader: R, path: &Path, file_bytes: u64) -> Result<Self> {
        let bad = |why: String| invalid(path, why);
        let archive = ZipArchive::new(reader).map_err(|e| {
            bad(format!(
                "truncated or not a .pth file: {}; get or save it again",
                zip_text(&e)
            ))
        })?;
        if archive.has_duplicate_names() {
            return Err(bad(
                "not a sound .pth file: a member's name occurs twice".into()
            ));
        }
        let mut pickles: Vec<String> = archive
            .file_names()
            .filter_map(|n| Some(n.ok()?.strip_suffix("data.pkl")?.to_owned()))
            .filter(|p| p.len() > 1 && p.find('/') == Some(p.len() - 1))
            .collect();
        let prefix = match (pickles.pop(), pickles.is_empty()) {
            (Some(prefix), true) => prefix,
            (None, _) => {
                return Err(bad(
                    "a zip archive without data.pkl, so not a .pth file".into()
                ));
            }
            _ => {
                return Err(bad(
                    "a zip archive with several data.pkl, so not a .pth file".into(),
                ));
            }
        };
        Ok(Self {
            path: path.to_path_buf(),
            archive,
            prefix,
            file_bytes,
        })
    }

    /// Whether there is a member of that name.
    pub(crate) fn has(&self, name: &str) -> bool {
        let name = format!("{}{name}", self.prefix);
        self.archive.index_for_name(&name).is_some()
    }

    fn check(&self, storage: &Storage) -> Result<()> {
        let name = format!("{}data/{}", self.prefix, storage.key);
        let want = storage.num_bytes().unwrap_or(u64::MAX);
        let entry = self
            .archive
            .index_for_name(&name)
            .map(|i| self.archive.by_index_data(i));
        match entry {
            Some(Ok(entry)) if entry.size() == want => Ok(()),
            Some(Ok(entry)) => Err(invalid(
                &self.path,
                format!(
                    "its member {name:?} holds {} bytes, but its tensor needs {want}",
                    entry.size()
                ),
            )),
            _ => Err(invalid(
                &self.path,
                format!("its member {name:?} is missing"),
            )),
        }
    }

    /// A member's bytes, checked against its checksum.
    pub(crate) fn member(&mut self, name: &str, limit: u64) -> Result<Vec<u8>> {
        let path = &self.path;
        let bad = |why: String| invalid(path, why);
        let member = self
            .archive
            .by_name(&format!("{}{name}", self.prefix))
            .map_err(|e| {
                bad(format!(
                    "its member {name:?} can't be read: {}",
                    zip_text(&e)
                ))
            })?;
        if member.compression() != CompressionMethod::Stored
            || member.size() != member.compressed_size()
        {
            let text = format!(
                "its member {name:?} is compressed, which torch.save never does; unpack the archive and pack it again with zip -0"
            );
            return Err(unsupported(path, text));
        }
        let size = member.size();
        if size > limit.min(self.file_bytes) {
            return Err(bad(format!(
                "its member {name:?} claims {size} bytes, more than can be right"
            )));
        }
        read_whole(member, size, path, name)
    }
}

/// All that there is to read, which must be `size` bytes that the file may hold. A member's checksum is looked at behind its end.
fn read_whole(mut from: impl Read, size: u64, path: &Path, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let room = usize::try_from(size).map(|n| bytes.try_reserve_exact(n));
    if !matches!(room, Ok(Ok(()))) {
        let text = format!("there is no memory for {size} bytes");
        return Err(Error::io(path)(io::Error::new(
            ErrorKind::OutOfMemory,
            text,
        )));
    }
    from.read_to_end(&mut bytes).map_err(|e| {
        let text = format!("its member {name:?} is damaged ({e}); get or save the file again");
        invalid(path, text)
    })?;
    if bytes.len() as u64 != size {
        let text = format!("its member {name:?} is cut off; get or save the file again");
        return Err(invalid(path, text));
    }
    Ok(bytes)
}

pub(crate) fn invalid(path: &Path, message: impl Into<String>) -> Error {
    let (path, message) = (path.to_path_buf(), message.into());
    Error::Invalid { path, message }
}

pub(crate) fn unsupported(path: &Path, message: impl Into<String>) -> Error {
    let (path, message) = (path.to_path_buf(), message.into());
    Error::Unsupported { path, message }
}

/// A zip error in a few words.
fn zip_text(e: &ZipError) -> String {
    match e {
        ZipError::FileNotFound => "it is missing".into(),
        other => other.to_string(),
    }
}
