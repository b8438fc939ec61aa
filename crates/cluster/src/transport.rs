//! `Transport`: what the tasks of a node need of a server with a shared log.

use std::error::Error;
use std::time::Duration;

use crate::follower::Answer;
use crate::position::Position;

/// Why a call had no outcome, or one that is not known.
pub(crate) type Failure = Box<dyn Error + Send + Sync>;

/// A connection that is made when it is needed. A call that fails, or that is dropped, gives the
/// connection up; the next one makes another.
pub(crate) trait Transport: Send + 'static {
    /// The head of the log, the identity of the server, and the records from `from` on,
    /// inclusively, all of one instant after the call has begun. Creates the log if there is none.
    fn ask(
        &mut self,
        from: Option<Position>,
    ) -> impl Future<Output = Result<Answer, Failure>> + Send;

    /// Adds a record. Once it returns, the server has acknowledged it. One whose call fails may
    /// have been added.
    fn append(&mut self, record: Vec<u8>) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Returns when there is a record behind this one, or false after `at_most`. Only a hint.
    fn wait(
        &mut self,
        behind: Position,
        at_most: Duration,
    ) -> impl Future<Output = Result<bool, Failure>> + Send;
}
