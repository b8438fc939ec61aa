//! One fetch for each key at a time, and its outcome for all callers that wait.
//!
//! A flight has one leader, which fetches, and any number of joiners, which wait. Its phases:
//!
//! ```text
//! Claimed      a future leader has not begun: the next caller to enter leads instead
//! Led          a leader fetches; callers that enter join
//! Leaderless   the leader left without completing: the next caller, joiner or not, leads
//! Completed    over; off the table; remaining joiners fetch their outcome
//! ```
//!
//! While a flight is leaderless, one joiner has been woken, and a joiner that leaves wakes another,
//! so leadership never rests with a caller that is gone. Since it rests with no caller in
//! particular, a joiner that is woken but not polled delays no later caller.
//!
//! A caller may also stay and not be polled. For a fetch that waits for its origin this cannot be
//! told, but for a caller that was woken it can. So a leader polls with a waker that notifies the
//! flight, and while another caller waits for a woken one, an alarm is set. If `PATIENCE` passes
//! without a poll, the alarm transfers leadership: it voids the lead of a sleeping leader; it wakes
//! more joiners if the woken one did not come to lead; and it wakes the joiners that a leader left
//! waiting when it completed.
//!
//! A [`Joiner`] records the moment when its call began. A [`Completion`] says for calls up to which
//! moment its value is as fresh as one fetched anew; later joiners look again.
//!
//! Lock order: table, flight. Wakers are cloned, woken and dropped, alarms set, and values dropped,
//! outside of both, and their panics are contained.

mod flights;
mod joiner;
mod lead;
mod participant;
mod relay;
mod state;

pub(crate) use self::flights::{Flights, Part};
pub(crate) use self::joiner::{JoinOutcome, Joiner};
pub(crate) use self::lead::{Claim, Lead, Wakers};
pub(crate) use self::state::{Completion, Destination};
