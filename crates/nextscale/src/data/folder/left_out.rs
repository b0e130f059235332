//! What lies in folders of images and is none that is read.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;

use super::is_hidden;

/// Endings of pictures whose formats are not read.
const FOREIGN: [&str; 20] = [
    ".arw", ".avif", ".cr2", ".dds", ".dng", ".eps", ".exr", ".hdr", ".heic", ".heif", ".ico",
    ".jp2", ".jxl", ".nef", ".pcx", ".psd", ".qoi", ".svg", ".tga", ".xcf",
];

/// The ending of a picture whose format is not read.
pub(in crate::data) fn foreign_ending(name: &OsStr) -> Option<&'static str> {
    let name = name.to_string_lossy().to_lowercase();
    FOREIGN.into_iter().find(|end| name.ends_with(end))
}

/// What is left out: names that begin with a dot, `__MACOSX` (programs keep copies and notes there that only look like images), pipes,
/// sockets and devices named as images are, and pictures of other formats.
#[derive(Clone, Debug, Default)]
pub(super) struct LeftOut {
    hidden: usize,
    no_files: usize,
    /// Links to folders that lead back to where the search came from.
    pub(super) circles: usize,
    /// Images beside class folders, which have no class.
    beside: usize,
    /// Folders without an image.
    empty: usize,
    /// Images that the file of metadata does not name.
    unlisted: usize,
    /// Pictures whose formats are not read, by their endings.
    foreign: BTreeMap<&'static str, usize>,
    example: Option<PathBuf>,
}

impl LeftOut {
    pub(super) fn hidden(&mut self, path: PathBuf) {
        self.hidden += 1;
        self.example.get_or_insert(path);
    }

    pub(super) fn no_file(&mut self, path: PathBuf) {
        self.no_files += 1;
        self.example.get_or_insert(path);
    }

    pub(super) fn circle(&mut self, path: PathBuf) {
        self.circles += 1;
        self.example.get_or_insert(path);
    }

    pub(super) fn beside(&mut self, path: PathBuf) {
        self.beside += 1;
        self.example.get_or_insert(path);
    }

    pub(super) fn empty(&mut self, path: PathBuf) {
        self.empty += 1;
        self.example.get_or_insert(path);
    }

    pub(super) fn unlisted(&mut self, path: PathBuf) {
        self.unlisted += 1;
        self.example.get_or_insert(path);
    }

    /// A file that is no image by its name: counted where it is a picture all the same.
    pub(super) fn other(&mut self, name: &OsStr, path: PathBuf) {
        if let Some(ending) = foreign_ending(name).filter(|_| !is_hidden(name)) {
            *self.foreign.entry(ending).or_default() += 1;
            self.example.get_or_insert(path);
        }
    }

    /// The pictures whose formats are not read.
    pub(super) fn foreign_in_words(&self) -> Option<String> {
        let count: usize = self.foreign.values().sum();
        let endings: Vec<&str> = self.foreign.keys().copied().collect();
        (count > 0).then(|| {
            let pictures = if count == 1 { "picture" } else { "pictures" };
            format!(
                "{count} {pictures} of formats that are not read ({}; as PNG they would be)",
                endings.join(" ")
            )
        })
    }

    /// All of it in words; `None` where it is nothing.
    pub(super) fn in_words(&self) -> Option<String> {
        let example = self.example.as_ref()?;
        let mut parts = Vec::new();
        if self.hidden > 0 {
            parts.push(format!("{} hidden", self.hidden));
        }
        if self.no_files > 0 {
            parts.push(format!(
                "{} that can't be opened as a file (pipe, socket, device)",
                self.no_files
            ));
        }
        if self.circles > 0 {
            let links = if self.circles == 1 { "link" } else { "links" };
            parts.push(format!(
                "{} {links} to a folder in which they lie (what lies in such a circle is taken once)",
                self.circles
            ));
        }
        for (count, what) in [
            (self.beside, "beside the class folders"),
            (self.unlisted, "that the metadata does not name"),
        ] {
            if count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        if self.empty > 0 {
            let folders = if self.empty == 1 { "folder" } else { "folders" };
            parts.push(format!("{} {folders} without an image", self.empty));
        }
        parts.extend(self.foreign_in_words());
        Some(format!(
            "left out of the images: {}, for example {}",
            parts.join(" and "),
            example.display()
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_of_other_formats_are_counted_by_their_endings() {
        let mut left_out = LeftOut::default();
        for name in ["a.dds", "b.TGA", "c.dds", "notes.txt", ".d.dds"] {
            left_out.other(OsStr::new(name), PathBuf::from(name));
        }
        let told = left_out.in_words().unwrap();
        assert_eq!(
            told,
            "left out of the images: 3 pictures of formats that are not read (.dds .tga; as PNG they would be), for example a.dds"
        );
        assert_eq!(LeftOut::default().in_words(), None);
    }
}
