//! `PlotFile`: where a plot goes. Refused before anything is measured, if it cannot go there.

use std::fs;
use std::path::{Path, PathBuf};

use super::chart::{Panel, svg};
use super::failure::Failure;

#[derive(Debug)]
pub(super) struct PlotFile(PathBuf);

impl PlotFile {
    /// Only a name that ends in `.svg` is taken, so that no trace is overwritten by a slip.
    pub(super) fn new(path: &Path) -> Result<Self, Failure> {
        let shown = path.display();
        if path.extension().is_none_or(|ending| ending != "svg") {
            return Err(Failure::usage(format!("--plot {shown}: the name does not end in .svg")));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        if path.is_dir() || folder.is_some_and(|folder| !folder.is_dir()) {
            let message = format!("--plot {shown}: it is a directory, or there is none for it");
            return Err(Failure::refused("plot", message));
        }
        Ok(Self(path.to_owned()))
    }

    pub(super) fn write(&self, panels: &[Panel]) -> Result<(), Failure> {
        let failed = |error: &dyn std::fmt::Display| {
            Failure::refused("plot", format!("could not draw {}: {error}", self.0.display()))
        };
        let text = svg(panels, 2.min(panels.len())).map_err(|error| failed(&error))?;
        fs::write(&self.0, text).map_err(|error| failed(&error))
    }
}
