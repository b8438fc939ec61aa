//! `Follower`: decides what an answer of the server means: what to apply, whether anything may have
//! been lost, and until when the gate may be open. It does no I/O and reads no clock.
//!
//! Every answer carries the server's identity, the head of the log, and the records from the last
//! applied one on, all of one instant after it was asked for. [`take`](Follower::take) compares it
//! with the place that has been reached, and says what to do; [`finish`](Follower::finish) is
//! called once that is done. A step that is dropped in between has changed nothing.
//!
//! Why a hit is never too old: let an answer that was asked for at `s` have the head `h`, and let
//! everything up to `h` be applied. An invalidation that was acknowledged before `s` was in the log
//! before the answer was made. So it is applied, unless the log has lost it; and whenever the log
//! may have lost any, the governed namespaces are flushed after its head was read. What is
//! acknowledged at `t` can be missing only if `s < t`, and then the gate closes by `s + lease < t +
//! lease`.

use std::time::Duration;

use crate::failpoint::{Failpoint, failpoint};
use crate::invalidation::Invalidation;
use crate::message::{Message, Stamp};
use crate::position::{Place, Position, ServerId};

/// What the server has answered, all of one instant.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) server: ServerId,
    /// The last record that was ever added.
    pub(crate) head: Position,
    /// From the position that was asked for, inclusively, in order; as many as one answer has.
    /// Where the log has another epoch, only the head.
    pub(crate) records: Vec<Record>,
}

#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) position: Position,
    /// None where it is not understood.
    pub(crate) message: Option<Message>,
}

/// Why the governed namespaces are flushed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// This node has no position: its store is new, or the position was lost with it.
    NoPosition,
    /// The log was created anew.
    Epoch,
    /// The server may have lost the end of the log.
    Server,
    /// The server has lost records that this node has applied.
    Anchor,
    /// Records were trimmed or deleted before this node has read them.
    Trimmed,
    /// A record is not understood.
    Unknown,
}

impl Record {
    fn stamp(&self) -> Option<Stamp> {
        self.message.as_ref().map(|message| message.stamp)
    }
}

impl Gap {
    /// Whether what this node has sent may be among what was lost.
    pub(crate) fn is_loss(self) -> bool {
        matches!(self, Self::Epoch | Self::Server | Self::Anchor)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// To be in force before the step is finished. Own invalidations are in force already.
    Apply(Vec<Invalidation>),
    /// The governed namespaces are to be flushed before the step is finished.
    Flush(Gap),
}

/// "At `asked_at` the head was no further than `head`."
#[derive(Debug, Clone, Copy)]
struct Claim {
    asked_at: Duration,
    head: Position,
}

/// Where an answer leads once its work is in force.
#[derive(Debug)]
pub(crate) struct Step {
    next: Place,
    claim: Claim,
    is_flush: bool,
}

impl Step {
    /// Where the node is once the step is finished.
    pub(crate) fn place(&self) -> &Place {
        &self.next
    }
}

#[derive(Debug)]
pub(crate) struct Follower {
    /// This life of this node. What it has sent it has applied before.
    node: u64,
    lease: Duration,
    /// The deployment vouches that no server loses what it has acknowledged or shown.
    is_durable: bool,
    place: Option<Place>,
    /// The oldest one that has not been reached.
    claim: Option<Claim>,
}

impl Follower {
    /// `place` is where the node was in its former life.
    pub(crate) fn new(node: u64, lease: Duration, is_durable: bool, place: Option<Place>) -> Self {
        Self { node, lease, is_durable, place, claim: None }
    }

    pub(crate) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// From where to ask.
    pub(crate) fn position(&self) -> Option<Position> {
        self.place.as_ref().map(|place| place.position)
    }

    /// `asked_at` is a time before the server was asked.
    pub(crate) fn take(&self, asked_at: Duration, answer: Answer) -> (Work, Step) {
        let claim = Claim { asked_at, head: answer.head };
        match self.read(&answer) {
            Ok((next, invalidations)) => {
                (Work::Apply(invalidations), Step { next, claim, is_flush: false })
            }
            Err(gap) => {
                let at_head = answer.records.iter().find(|it| it.position == answer.head);
                let stamp = at_head.and_then(Record::stamp);
                let next = Place { position: answer.head, server: answer.server, stamp };
                (Work::Flush(gap), Step { next, claim, is_flush: true })
            }
        }
    }

    /// The place behind the records of an answer that goes on where this node is, and what others
    /// have invalidated in them.
    fn read(&self, answer: &Answer) -> Result<(Place, Vec<Invalidation>), Gap> {
        let place = self.place.as_ref().ok_or(Gap::NoPosition)?;
        let (known, reached) = (place.position, place.position.number);
        let is_anchored =
            !failpoint(Failpoint::AnchorIgnored) && !failpoint(Failpoint::EpochIgnored);
        if answer.head.epoch != known.epoch && !failpoint(Failpoint::EpochIgnored) {
            return Err(Gap::Epoch);
        }
        let is_same = answer.server == place.server || failpoint(Failpoint::ServerIgnored);
        if !is_same && !self.is_durable {
            return Err(Gap::Server);
        }
        if answer.head.number < reached && is_anchored {
            return Err(Gap::Anchor);
        }
        let (mut next, mut invalidations) = (place.clone(), Vec::new());
        next.server.clone_from(&answer.server);
        // Bounded: by the records of one answer.
        for record in &answer.records {
            if record.position.number <= reached {
                let differs = place.stamp.is_some() && record.stamp() != place.stamp;
                if differs && is_anchored {
                    return Err(Gap::Anchor);
                }
                next.stamp = record.stamp();
                continue;
            }
            let is_next = record.position.number == next.position.number + 1;
            if !is_next && !failpoint(Failpoint::GapIgnored) {
                return Err(Gap::Trimmed);
            }
            next.position = record.position;
            next.stamp = record.stamp();
            match &record.message {
                Some(message) if message.stamp.node == self.node => {}
                Some(message) => invalidations.extend(message.invalidations.iter().cloned()),
                None if failpoint(Failpoint::UnknownSkipped) => {}
                None => return Err(Gap::Unknown),
            }
        }
        if next.position == known && answer.head.number > reached {
            if !failpoint(Failpoint::GapIgnored) {
                return Err(Gap::Trimmed);
            }
            next.position = answer.head;
        }
        Ok((next, invalidations))
    }

    /// The work of the step is in force. Returns until when the gate may be open, if all that had
    /// been acknowledged when some answer was asked for has been applied.
    pub(crate) fn finish(&mut self, step: Step) -> Option<Duration> {
        if step.is_flush {
            self.claim = None;
        }
        let reached = step.next.position.number;
        self.place = Some(step.next);
        let is_reached =
            |it: &Claim| it.head.number <= reached || failpoint(Failpoint::OpenDuringReplay);
        let older = self.claim.take();
        if is_reached(&step.claim) {
            return Some(step.claim.asked_at + self.lease);
        }
        match older {
            Some(older) if is_reached(&older) => {
                self.claim = Some(step.claim);
                Some(older.asked_at + self.lease)
            }
            older => {
                self.claim = older.or(Some(step.claim));
                None
            }
        }
    }
}
