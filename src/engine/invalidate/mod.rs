//! Removing what invalidations cover, in force from the first poll on.

pub(crate) mod attempt;
pub(crate) mod blocked;
pub(crate) mod cleanup;
mod expire;
pub(crate) mod flush;
mod labels;
mod verbs;

pub(crate) use self::verbs::Invalidations;
