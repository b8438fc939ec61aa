//! `Bench`: what all rows need: sizes, the temporary directory, installed programs, notes.

use std::cell::RefCell;
use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use indicatif::ProgressBar;
use rustix::fs::statfs;
use tempfile::TempDir;

use crate::Error;
use crate::fio::Fio;

/// The kernel's type number of tmpfs.
const TMPFS: u64 = 0x0102_1994;

/// The size of a run, and its surroundings.
pub(crate) struct Bench {
    pub(crate) quick: bool,
    /// Rounds of each contest.
    pub(crate) rounds: usize,
    /// None if it is not installed.
    pub(crate) fio: Option<Fio>,
    scratch: TempDir,
    progress: ProgressBar,
    notes: RefCell<Vec<String>>,
}

impl Bench {
    /// The stores are made in `directory`, or beside this program.
    pub(crate) fn new(
        quick: bool,
        rounds: Option<NonZeroUsize>,
        directory: Option<&Path>,
    ) -> Result<Self, Error> {
        let program = std::env::current_exe()?;
        let beside = program.parent().ok_or("this program has no directory")?;
        let directory = directory.unwrap_or(beside);
        fs::create_dir_all(directory)?;
        if u64::try_from(statfs(directory)?.f_type) == Ok(TMPFS) {
            let directory = directory.display();
            return Err(format!("{directory} is in memory: name a --dir on disk").into());
        }
        let scratch = tempfile::Builder::new().prefix("tamis-versus-").tempdir_in(directory)?;
        let default = if quick { 1 } else { 5 };
        let bench = Self {
            quick,
            rounds: rounds.map_or(default, usize::from),
            fio: Fio::find(),
            scratch,
            progress: ProgressBar::new_spinner(),
            notes: RefCell::default(),
        };
        if bench.fio.is_none() {
            bench.note("fio is not installed: rows go without the device's figures");
        }
        if cfg!(not(feature = "cache2")) {
            bench.note(
                "cache2 is left out: it declares Rust 1.98; to build it with an older compiler, \
                 add --features cache2 --ignore-rust-version",
            );
        }
        Ok(bench)
    }

    /// One of two sizes.
    pub(crate) fn pick<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }

    /// How long one measurement of calls takes.
    pub(crate) fn span(&self) -> Duration {
        self.pick(Duration::from_secs(2), Duration::from_millis(100))
    }

    /// Where the stores are.
    pub(crate) fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// The path of a file or directory among the stores.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Shows what is being done, if stderr is a terminal.
    pub(crate) fn tell(&self, doing: &str) {
        self.progress.set_message(doing.to_owned());
        self.progress.tick();
    }

    /// Keeps a line for the end of the report.
    pub(crate) fn note(&self, note: &str) {
        let mut notes = self.notes.borrow_mut();
        if !notes.iter().any(|known| known == note) {
            notes.push(note.to_owned());
        }
    }

    /// Removes the stores, and returns the notes.
    pub(crate) fn close(self) -> Result<Vec<String>, Error> {
        self.progress.finish_and_clear();
        self.scratch.close()?;
        Ok(self.notes.into_inner())
    }
}
