//! Listing the keys of a namespace: entries in memory by a walk over all of them, records on disk
//! by the directories of their segments, those with a label by its postings. Nothing is held
//! between two polls that others need, and each entry is judged when it is given.

mod entries;
mod judge;
mod labelled;
mod lister;
mod records;

pub(crate) use self::lister::Lister;
