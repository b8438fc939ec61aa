//! `Scratch`: a new folder for what a command makes, removed with all of it when the command ends.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::process;

use super::failure::Failure;

#[derive(Debug)]
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// Makes `tamis-PURPOSE-PROCESS` in a directory that there is, or that name with a number.
    pub(super) fn new(parent: &Path, purpose: &str) -> Result<Self, Failure> {
        let name = ["tamis", purpose, &process::id().to_string()].join("-");
        let names = (1..).map(|number| format!("{name}-{number}"));
        for name in [name.clone()].into_iter().chain(names) {
            let path = parent.join(name);
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(Failure::io("make a folder in", parent, &error)),
            }
        }
        unreachable!("the numbers do not end")
    }

    /// The path of something in it.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Removes it now, to know that it is gone.
    pub(super) fn remove(self) -> Result<(), Failure> {
        self.clear().map_err(|error| Failure::io("remove", &self.0, &error))
    }

    fn clear(&self) -> io::Result<()> {
        match fs::remove_dir_all(&self.0) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            done => done,
        }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            eprintln!("tamis: could not remove {}: {error}", self.0.display());
        }
    }
}
