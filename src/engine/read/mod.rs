//! From a key to a hit: memory first, then the disk.

pub(crate) mod disk_lookup;
pub(crate) mod get;
pub(crate) mod get_many;
pub(crate) mod read_limit;
pub(crate) mod record_reader;
