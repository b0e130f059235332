//! The folder of images that a command looks at.

use nextscale::Error;

/// A folder, by its place on the command line or by the name that the trainers give it.
#[derive(clap::Args)]
pub struct FolderArgs {
    /// Folder of images: CLASS/*, or train/CLASS/* and val/CLASS/*, or images of one class, or tar or Parquet shards; or builtin:shapes
    #[arg(value_name = "FOLDER", required_unless_present = "data_path")]
    folder: Option<String>,
    /// The same, as the trainers have it
    #[arg(
        long = "data_path",
        id = "data_path",
        value_name = "FOLDER",
        conflicts_with = "folder"
    )]
    data_path: Option<String>,
}

impl FolderArgs {
    /// The folder.
    pub fn path(&self) -> &str {
        let given = self.folder.as_deref().or(self.data_path.as_deref());
        given.unwrap_or_default()
    }

    /// An error of the folder, which names a flag only where it was given by one.
    pub fn explain(&self, e: Error) -> Error {
        if self.data_path.is_some() {
            return e;
        }
        match e {
            Error::Field { name, value, why } if name == "data_path" => {
                Error::Input(format!("{value}: {why}"))
            }
            Error::Input(text) => Error::Input(text.replace("`data_path`=", "")),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        folder: FolderArgs,
    }

    #[test]
    fn a_folder_is_named_as_it_was_given() {
        let own = Flags::parse_from(["x", "cats"]).folder;
        let flag = Flags::parse_from(["x", "--data_path=cats"]).folder;
        assert_eq!((own.path(), flag.path()), ("cats", "cats"));
        assert!(Flags::try_parse_from(["x"]).is_err());
        assert!(Flags::try_parse_from(["x", "a", "--data_path=b"]).is_err());
        let field = || Error::field("data_path", "cats", "no such folder");
        assert_eq!(own.explain(field()).to_string(), "cats: no such folder");
        assert_eq!(flag.explain(field()).to_string(), field().to_string());
        let text = own.explain(Error::input(
            "`data_path`=cats: empty; give `data_path`=dogs",
        ));
        assert_eq!(text.to_string(), "cats: empty; give dogs");
        assert_eq!(own.explain(Error::Stopped).exit_code(), 1);
    }
}
