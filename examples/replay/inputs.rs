//! `traces_of`: the files that are replayed.
//!
//! Traces and folders of the command line, or else the folder that `TAMIS_TRACES` names. A folder
//! stands for its `.csv` and `.csv.zst` files in the order of their names, but `reference.csv`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

/// Empty without arguments and variable: then a workload is generated.
pub(crate) fn traces_of(arguments: &[PathBuf]) -> io::Result<Vec<PathBuf>> {
    let of_variable = || env::var_os("TAMIS_TRACES").map(PathBuf::from);
    let given =
        if arguments.is_empty() { of_variable().into_iter().collect() } else { arguments.to_vec() };
    let mut traces = Vec::new();
    for path in given {
        if path.is_dir() {
            traces.extend(traces_in(&path)?);
        } else {
            traces.push(path);
        }
    }
    Ok(traces)
}

/// An error if there are none: a replay of something else would surprise.
fn traces_in(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let paths = fs::read_dir(folder)?.map(|item| item.map(|item| item.path()));
    let mut traces = paths.collect::<io::Result<Vec<_>>>()?;
    traces.retain(|path| is_trace(path));
    traces.sort();
    if traces.is_empty() {
        let message = format!("{}: holds no .csv or .csv.zst", folder.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, message));
    }
    Ok(traces)
}

fn is_trace(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_named = |ending| name.ends_with(ending);
    name != "reference.csv" && (is_named(".csv") || is_named(".csv.zst"))
}
