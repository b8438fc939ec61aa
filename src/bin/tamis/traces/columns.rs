//! `Columns`: where a line has the id of an object, and its size.

use std::str::FromStr;

/// Names that headers give to ids and sizes, in lower case.
const IDS: [&str; 9] =
    ["id", "key", "obj_id", "object", "object_id", "obj", "lbn", "block_id", "url"];
const SIZES: [&str; 7] =
    ["size", "obj_size", "object_size", "bytes", "size_bytes", "length", "value_size"];

/// Places count from 0 here, and from 1 in texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Columns {
    pub(super) id: usize,
    /// None if all objects count alike.
    pub(super) size: Option<usize>,
}

impl Columns {
    /// Of lines `key,size`.
    pub(super) const KEY_SIZE: Self = Self { id: 0, size: Some(1) };

    /// Of lines `time,key,size`, with more behind or not.
    pub(super) const TIMED: Self = Self { id: 1, size: Some(2) };

    /// Those that a header names, if it names both.
    pub(super) fn of_header(line: &str) -> Option<Self> {
        let names: Vec<_> = line.split(',').map(plain).collect();
        let find = |known: &[&str]| {
            let place = |name| names.iter().position(|it| it == name);
            known.iter().find_map(place)
        };
        Some(Self { id: find(&IDS)?, size: Some(find(&SIZES)?) })
    }

    /// Whether a header calls a column of ids so.
    pub(super) fn is_name_of_ids(cell: &str) -> bool {
        IDS.contains(&&*plain(cell))
    }
}

/// A name without what some put around it.
fn plain(name: &str) -> String {
    name.trim_matches([' ', '#', '"', '\u{feff}']).to_lowercase()
}

impl FromStr for Columns {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "not like id=2,size=3, with columns from 1 on";
        let (mut id, mut size) = (None, None);
        for part in text.split(',') {
            let (name, number) = part.split_once('=').ok_or(FORM)?;
            let number: usize = number.trim().parse().map_err(|_| FORM)?;
            let place = number.checked_sub(1).ok_or(FORM)?;
            let column = match name.trim() {
                "id" => &mut id,
                "size" => &mut size,
                _ => return Err(FORM),
            };
            if column.replace(place).is_some() {
                return Err(FORM);
            }
        }
        Ok(Self { id: id.ok_or(FORM)?, size })
    }
}
