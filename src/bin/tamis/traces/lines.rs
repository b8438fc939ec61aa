//! `Lines`: the numbered lines of a text file, plain or zstd-compressed.
//!
//! Every error is an [`InputError`] with the file, the line number and its text. Lines have a
//! maximum length, so that a file that is not text cannot fill the memory.

use std::fs::File;
use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use super::error::InputError;
use super::source::decoded;

/// The most bytes of a line.
const LINE_BYTES_MAX: usize = 4096;

/// The most bytes of a line shown in an error message.
const SHOWN_BYTES_MAX: usize = 80;

pub(crate) struct Lines<'a> {
    path: PathBuf,
    source: Box<dyn BufRead + 'a>,
    number: u64,
    line: Vec<u8>,
}

impl<'a> Lines<'a> {
    /// The lines of a file, decompressed if it is zstd.
    #[allow(dead_code, reason = "of those who read other lists")]
    pub(crate) fn open(path: &Path) -> Result<Self, InputError> {
        let unopened = |source| InputError::unopened(path, source);
        let file = File::open(path).map_err(unopened)?;
        Ok(Self { source: decoded(file).map_err(unopened)?, ..Self::new(path, std::io::empty()) })
    }

    /// The lines of a text, named `path` in errors.
    pub(crate) fn new(path: &Path, source: impl BufRead + 'a) -> Self {
        Self { path: path.to_owned(), source: Box::new(source), number: 0, line: Vec::new() }
    }

    /// The next line without its end. None at the end of the text.
    pub(crate) fn advance(&mut self) -> Result<Option<&str>, InputError> {
        self.line.clear();
        self.number += 1;
        let bound = (LINE_BYTES_MAX + 1) as u64;
        let mut source = self.source.by_ref().take(bound);
        if let Err(source) = source.read_until(b'\n', &mut self.line) {
            return Err(InputError::Unreadable {
                path: self.path.clone(),
                line: self.number,
                source,
            });
        }
        if self.line.is_empty() {
            return Ok(None);
        }
        if self.line.len() > LINE_BYTES_MAX {
            return Err(self.malformed("line too long"));
        }
        match std::str::from_utf8(&self.line) {
            Ok(line) => Ok(Some(line.trim_end_matches(['\n', '\r']))),
            Err(_) => Err(self.malformed("not UTF-8")),
        }
    }

    /// An error about the last line.
    pub(crate) fn malformed(&self, reason: &'static str) -> InputError {
        let shown = self.line.trim_ascii_end();
        let mut text = shown[..shown.len().min(SHOWN_BYTES_MAX)].escape_ascii().to_string();
        if shown.len() > SHOWN_BYTES_MAX {
            text.push_str("...");
        }
        InputError::Malformed { path: self.path.clone(), line: self.number, reason, text }
    }

    /// An error about a text without a line.
    pub(crate) fn empty(&self) -> InputError {
        InputError::Empty { path: self.path.clone() }
    }
}
