//! Where results go.

use super::super::images::{check_parent_of, may_write};
use super::Args;
use nextscale::{Error, Result};
use std::path::{Path, PathBuf};

/// The files that are written, each another.
pub struct Outputs {
    /// The result.
    pub report: PathBuf,
    /// Of a sweep, the distance against what is swept.
    pub plot: Option<PathBuf>,
    /// The samples' statistics.
    pub statistics: Option<PathBuf>,
}

impl Outputs {
    /// Those of a call, before anything is computed.
    ///
    /// # Errors
    /// One line where one can't be written, exists, or would be written over by another.
    pub fn of(args: &Args) -> Result<Self> {
        let report = args.out.clone();
        let plot = (!args.sweep.is_empty()).then(|| report.with_extension("svg"));
        let statistics = args.save_statistics.clone();
        let file = |flag: &str, path: &Path| -> Result<()> {
            if path.is_dir() {
                let why = "is a folder; give the name of a file";
                return Err(Error::input(format!("--{flag}={}: {why}", path.display())));
            }
            check_parent_of(flag, path)?;
            may_write(path, args.force)
        };
        file("out", &report)?;
        if let Some(plot) = &plot {
            if *plot == report {
                let why = "that is the plot's name; give a name that ends in .json";
                return Err(Error::input(format!("--out={}: {why}", report.display())));
            }
            file("out", plot)?;
        }
        if let Some(statistics) = &statistics {
            if *statistics == report {
                return Err(Error::input(format!(
                    "--save_statistics={}: --out writes there too; give another name, which ends in .npz",
                    report.display()
                )));
            }
            file("save_statistics", statistics)?;
        }
        Ok(Self {
            report,
            plot,
            statistics,
        })
    }
}
