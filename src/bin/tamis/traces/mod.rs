//! `TraceReader`: the requests of a trace file, one after the other.
//!
//! Reads lines of text ([`Rows`]) and the packed records of libCacheSim's oracleGeneral
//! ([`Records`]), plain or zstd-compressed, and tells them apart by their first bytes. Takes some
//! hundred KiB, and what zstd's window asks for, at most 128 MiB, however long a trace is. Every
//! error names the file, and the line or the offset.
//!
//! Shared with `examples/replay`, `tests/traces.rs` and `crates/hit-ratio`: imports nothing outside
//! of this folder.

mod columns;
mod error;
mod layout;
mod lines;
mod records;
mod request;
mod rows;
mod source;

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

#[allow(unused_imports, reason = "of those who parse them alone")]
pub(crate) use self::columns::Columns;
pub(crate) use self::error::InputError;
pub(crate) use self::layout::{Layout, TraceFormat};
#[allow(unused_imports, reason = "of those who read other lists")]
pub(crate) use self::lines::Lines;
use self::records::Records;
pub(crate) use self::request::Request;
use self::rows::Rows;
use self::source::{decoded, head_of};

/// The first bytes, by which formats are told apart.
const HEAD_BYTES: usize = 4096;

pub(crate) struct TraceReader<'a> {
    format: TraceFormat,
    requests: Requests<'a>,
}

enum Requests<'a> {
    Rows(Rows<'a>),
    Records(Records<'a>),
}

impl<'a> TraceReader<'a> {
    pub(crate) fn open(path: &Path, layout: &Layout) -> Result<Self, InputError> {
        let file = File::open(path).map_err(|source| InputError::unopened(path, source))?;
        Self::new(path, file, layout)
    }

    /// The requests of a source, named `path` in errors.
    pub(crate) fn new(
        path: &Path,
        source: impl Read + 'a,
        layout: &Layout,
    ) -> Result<Self, InputError> {
        let unopened = |source| InputError::unopened(path, source);
        let mut source = decoded(source).map_err(unopened)?;
        let head = head_of(&mut source, HEAD_BYTES).map_err(unopened)?;
        if head.is_empty() {
            return Err(InputError::Empty { path: path.to_owned() });
        }
        let format = match layout.format {
            TraceFormat::Auto if layout.columns.is_some() => TraceFormat::Csv,
            TraceFormat::Auto if Records::are_likely(&head) => TraceFormat::OracleGeneral,
            TraceFormat::Auto if !is_text(&head) => {
                return Err(InputError::Unrecognized { path: path.to_owned() });
            }
            given => given,
        };
        let whole = Cursor::new(head).chain(source);
        if format == TraceFormat::OracleGeneral {
            let requests = Requests::Records(Records::new(path, Box::new(whole)));
            return Ok(Self { format, requests });
        }
        let (rows, format) = Rows::new(Lines::new(path, whole), format, layout.columns)?;
        Ok(Self { format, requests: Requests::Rows(rows) })
    }

    /// The format that was asked for or found.
    #[allow(dead_code, reason = "only the tool tells it")]
    pub(crate) fn format(&self) -> TraceFormat {
        self.format
    }

    /// None at the end.
    pub(crate) fn advance(&mut self) -> Result<Option<Request>, InputError> {
        match &mut self.requests {
            Requests::Rows(rows) => rows.advance(),
            Requests::Records(records) => records.advance(),
        }
    }
}

/// Whether the bytes have no control character that no text has.
fn is_text(bytes: &[u8]) -> bool {
    bytes.iter().all(|byte| !byte.is_ascii_control() || matches!(byte, b'\t' | b'\n' | b'\r'))
}
