//! `Rows`: requests as lines of text, separated by commas.
//!
//! A first line whose size is a word is a header, and names the columns unless they were given.
//! Without one a line of two columns is `key,size`, and one of more is `time,key,size` with
//! whatever comes behind. A key is any text without a comma.

use std::hash::{DefaultHasher, Hasher};

use super::columns::Columns;
use super::error::InputError;
use super::layout::TraceFormat;
use super::lines::Lines;
use super::request::Request;

const NOT_KEY_SIZE: &str = "not key,size nor time,key,size";
const NO_NUMBER: &str = "the size is not a whole number of bytes";

/// Of an object whose size the trace lacks.
const UNKNOWN_SIZE: u64 = 1;

pub(super) struct Rows<'a> {
    lines: Lines<'a>,
    columns: Columns,
    /// A line has these columns and no more.
    is_exact: bool,
    /// Of the first line, which was read to know the columns.
    first: Option<Request>,
}

const NO_NAMES: &str = "a header that names no id or no size; --columns tells which they are";

impl<'a> Rows<'a> {
    /// With the format that `Auto` stands for.
    pub(super) fn new(
        mut lines: Lines<'a>,
        format: TraceFormat,
        given: Option<Columns>,
    ) -> Result<(Self, TraceFormat), InputError> {
        let Some(line) = lines.advance()? else { return Err(lines.empty()) };
        let (line, count) = (line.to_owned(), line.split(',').count());
        let format = match (format, count) {
            (TraceFormat::Auto, 2) => TraceFormat::KeySize,
            (TraceFormat::Auto, 0..2) => return Err(lines.malformed(NOT_KEY_SIZE)),
            (TraceFormat::Auto, _) => TraceFormat::Csv,
            (given, _) => given,
        };
        let is_exact = format == TraceFormat::KeySize;
        let usual = if is_exact { Columns::KEY_SIZE } else { Columns::TIMED };
        let mut rows = Self { lines, columns: given.unwrap_or(usual), is_exact, first: None };
        if rows.is_header(&line) {
            match Columns::of_header(&line) {
                _ if given.is_some() => {}
                Some(named) => rows.columns = named,
                // Two columns are a key and a size, whatever their names.
                None if is_exact => {}
                None => return Err(rows.lines.malformed(NO_NAMES)),
            }
        } else {
            rows.first = Some(rows.request(&line).map_err(|reason| rows.lines.malformed(reason))?);
        }
        Ok((rows, format))
    }

    pub(super) fn advance(&mut self) -> Result<Option<Request>, InputError> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let (columns, is_exact) = (self.columns, self.is_exact);
        let Some(line) = self.lines.advance()? else { return Ok(None) };
        match request(line, columns, is_exact) {
            Ok(request) => Ok(Some(request)),
            Err(reason) => Err(self.lines.malformed(reason)),
        }
    }

    fn request(&self, line: &str) -> Result<Request, &'static str> {
        request(line, self.columns, self.is_exact)
    }

    /// Whether a first line is marked as a comment, or has a word where others have a size. Ids may
    /// be words, so without sizes only a known name tells.
    fn is_header(&self, line: &str) -> bool {
        let cell = |place| line.split(',').nth(place).unwrap_or_default();
        let is_word = |cell: &str| {
            let first = cell.trim_start_matches([' ', '"']).chars().next();
            first.is_some_and(char::is_alphabetic)
        };
        line.starts_with('#')
            || match self.columns.size {
                Some(size) => is_word(cell(size)),
                None => Columns::is_name_of_ids(cell(self.columns.id)),
            }
    }
}

fn request(line: &str, columns: Columns, is_exact: bool) -> Result<Request, &'static str> {
    let (mut key, mut size, mut count) = (None, None, 0);
    for (place, cell) in line.split(',').enumerate() {
        if place == columns.id {
            key = Some(cell.trim());
        }
        if Some(place) == columns.size {
            size = Some(cell.trim());
        }
        count += 1;
    }
    if is_exact && count != 2 {
        return Err(NOT_KEY_SIZE);
    }
    let missing = "a column is missing";
    let key = key.ok_or(missing)?;
    if key.is_empty() {
        return Err("the key is empty");
    }
    let size = match columns.size {
        Some(_) => size.ok_or(missing)?.parse().map_err(|_| NO_NUMBER)?,
        None => UNKNOWN_SIZE,
    };
    let mut hasher = DefaultHasher::new();
    hasher.write(key.as_bytes());
    Ok(Request { key: hasher.finish(), size })
}
