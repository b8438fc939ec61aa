//! `Told`: what an answer has told its caller, and which states of a path it may be of.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use futures::StreamExt;

use super::history::{Life, Manners};
use super::object_store::{Error, GetOptions, GetRange, GetResult, Result};

pub(crate) enum Told {
    Absent,
    /// The range begins beyond the end.
    Invalid(u64),
    /// `Precondition`: the object is not the one that was named.
    Refused,
    NotModified,
    /// With the size that was told.
    Pieces(Option<u64>, Vec<(Range<u64>, Bytes)>),
}

/// What a caller insists on.
#[derive(Debug, Clone)]
pub(crate) enum Wanted {
    Any,
    /// An object with this e-tag.
    Match(String),
    /// An object with another e-tag than this.
    Other(String),
    /// A version by its name, which is this state.
    Version(Life),
}

impl Wanted {
    pub(crate) fn options(&self) -> GetOptions {
        let options = GetOptions::new();
        match self {
            Self::Any => options,
            Self::Match(e_tag) => options.with_if_match(Some(e_tag.clone())),
            Self::Other(e_tag) => options.with_if_none_match(Some(e_tag.clone())),
            Self::Version(life) => options.with_version(life.version()),
        }
    }

    fn admits(&self, life: &Life) -> bool {
        match self {
            Self::Any => true,
            Self::Match(e_tag) => life.e_tag() == Some(e_tag),
            Self::Other(e_tag) => life.e_tag() != Some(e_tag),
            Self::Version(version) => life.version() == version.version(),
        }
    }
}

impl Told {
    /// What an answer tells; None if it was an error that tells nothing.
    pub(crate) async fn by(
        answer: Result<GetResult>,
        range: Option<&GetRange>,
        is_head: bool,
        manners: Manners,
    ) -> Option<Self> {
        let start = match range {
            Some(GetRange::Bounded(range)) => range.start,
            Some(GetRange::Offset(start)) => *start,
            _ => 0,
        };
        let answer = match answer {
            Ok(answer) => answer,
            Err(Error::NotFound { .. }) => return Some(Self::Absent),
            Err(Error::Precondition { .. }) => return Some(Self::Refused),
            Err(Error::NotModified { .. }) => return Some(Self::NotModified),
            Err(error) if is_failure(&error) => return None,
            Err(error) if is_of_range(&error) => return Some(Self::Invalid(start)),
            Err(error) => panic!("a caller was told {error:?}"),
        };
        let (size, range) = (answer.meta.size, answer.range.clone());
        if is_head {
            return Some(Self::Pieces(Some(size), Vec::new()));
        }
        let mut stream = answer.into_stream();
        let (mut bytes, mut is_whole) = (Vec::new(), true);
        while let Some(chunk) = stream.next().await {
            match chunk {
                Ok(chunk) => bytes.extend_from_slice(&chunk),
                Err(error) => {
                    // Without e-tags, the question whether the object has changed may fail as well.
                    let is_odd = manners.failures > 0 && !manners.has_e_tags && is_of_range(&error);
                    let is_changed = matches!(error, Error::Precondition { .. });
                    let is_known = is_odd || is_changed || is_failure(&error);
                    assert!(is_known, "a caller was told {error} at last");
                    is_whole = false;
                    break;
                }
            }
            tokio::task::yield_now().await;
        }
        // What was told before the error is of the same version.
        let end = if is_whole { range.end } else { range.start + bytes.len() as u64 };
        Some(Self::Pieces(Some(size), vec![(range.start..end, bytes.into())]))
    }

    /// Whether it tells this state, to a caller who wanted that.
    pub(crate) fn is_of(&self, life: &Life, wanted: &Wanted) -> bool {
        let Some((seed, length)) = life.object else { return matches!(self, Self::Absent) };
        match self {
            Self::Absent => false,
            Self::Invalid(start) => length <= *start && wanted.admits(life),
            Self::Refused => matches!(wanted, Wanted::Match(_)) && !wanted.admits(life),
            Self::NotModified => matches!(wanted, Wanted::Other(_)) && !wanted.admits(life),
            Self::Pieces(size, pieces) => {
                let is_piece = |(range, bytes): &(Range<u64>, Bytes)| {
                    let end = range.end.min(length);
                    range.start <= end && is_content(seed, range.start..end, bytes)
                };
                let is_whole = size.is_none_or(|size| size == length);
                is_whole && wanted.admits(life) && pieces.iter().all(is_piece)
            }
        }
    }
}

/// Whether these are the bytes of a range of some content.
fn is_content(seed: u64, range: Range<u64>, bytes: &[u8]) -> bool {
    let byte = |place: u64| {
        let word = (seed << 32 | (place / 8)).to_le_bytes();
        word[usize::try_from(place % 8).unwrap()]
    };
    bytes.len() as u64 == range.end - range.start
        && range.zip(bytes).all(|(place, found)| byte(place) == *found)
}

pub(crate) fn is_failure(error: &Error) -> bool {
    error.to_string().contains("it has failed")
}

pub(crate) fn is_of_range(error: &Error) -> bool {
    error.to_string().contains("Wanted range")
}

impl fmt::Debug for Told {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => formatter.write_str("absent"),
            Self::Refused => formatter.write_str("that it is another"),
            Self::NotModified => formatter.write_str("that it is the same"),
            Self::Invalid(start) => write!(formatter, "nothing at {start}"),
            Self::Pieces(size, pieces) => {
                let pieces = pieces.iter().map(|(range, bytes)| {
                    let first = Bytes::copy_from_slice(&bytes[..bytes.len().min(16)]);
                    (range.clone(), bytes.len(), first)
                });
                write!(formatter, "{size:?} {:?}", pieces.collect::<Vec<_>>())
            }
        }
    }
}
