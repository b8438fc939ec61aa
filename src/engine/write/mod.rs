//! From a put to an entry in memory and a record in the log.

mod admitted;
pub(crate) mod commit;
pub(crate) mod copy_limit;
pub(crate) mod namespace_slots;
pub(crate) mod positions;
mod preparation;
pub(crate) mod put;
pub(crate) mod put_many;
pub(crate) mod record_encoder;
pub(crate) mod touch;
pub(crate) mod versions;
