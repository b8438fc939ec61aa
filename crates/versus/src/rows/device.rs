//! The device's own time for a small write, to which calls that wait for one are compared.

use crate::bench::Bench;
use crate::contest::Contestant;

pub(super) const ONE_WRITE: &str = "fio, one write";

/// A contestant, if fio is installed.
pub(super) fn one_write(bench: &Bench) -> Option<Contestant<'_>> {
    let (fio, path, span) = (bench.fio?, bench.path("written"), bench.span());
    Some(Contestant::new(ONE_WRITE, move || fio.small_writes(&path, span)))
}
