//! `Node`: what the handle and the tasks of one node share: its cache, its outbox, and the callers
//! that wait for an acknowledgement.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::timeout;

use crate::error::ClusterError;
use crate::invalidation::Invalidation;
use crate::local::Local;
use crate::message::{Message, Stamp};
use crate::outbox::Outbox;
use crate::settings::Settings;
use crate::stats::Counters;

#[derive(Debug)]
pub(crate) struct Node<L> {
    /// This life of the node, at random.
    pub(crate) id: u64,
    pub(crate) local: L,
    pub(crate) settings: Settings,
    pub(crate) counters: Counters,
    sending: Mutex<Sending>,
    /// There is something to send.
    to_send: Notify,
    /// How often the gate was opened.
    opened: watch::Sender<u64>,
    stopping: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Sending {
    outbox: Outbox,
    /// By the number of what they wait for.
    callers: BTreeMap<u64, oneshot::Sender<()>>,
    last_nonce: u64,
}

/// What was in the outbox, and how much of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OutboxFigures {
    pub(crate) waiting_bytes: usize,
    pub(crate) overflows: u64,
}

impl<L: Local> Node<L> {
    pub(crate) fn new(id: u64, local: L, settings: Settings) -> Self {
        Self {
            id,
            local,
            settings,
            counters: Counters::default(),
            sending: Mutex::default(),
            to_send: Notify::new(),
            opened: watch::Sender::new(0),
            stopping: watch::Sender::new(false),
        }
    }

    /// Applies the invalidation here, sends it, and waits until the server has acknowledged it.
    pub(crate) async fn invalidate(&self, it: &Invalidation) -> Result<usize, ClusterError> {
        it.check()?;
        if *self.stopping.borrow() {
            return Err(ClusterError::Closed);
        }
        let posting = Posting { node: self, invalidation: Some(it) };
        let applied = self.local.apply(it).await;
        let acknowledged = posting.post();
        let waited = self.settings.acknowledgement;
        match timeout(waited, acknowledged.wait()).await {
            Ok(true) => Ok(applied?),
            Ok(false) => Err(ClusterError::Closed),
            Err(_) => Err(ClusterError::Unacknowledged { waited }),
        }
    }

    fn post(&self, invalidation: Invalidation) -> Acknowledged<'_, L> {
        let (sender, receiver) = oneshot::channel();
        let number = {
            let mut sending = self.sending.lock();
            let number = sending.outbox.push(invalidation);
            // Bounded: each has a caller that waits, or takes it away.
            sending.callers.insert(number, sender);
            number
        };
        self.to_send.notify_one();
        Acknowledged { node: self, number, receiver }
    }

    /// The next record, encoded, if there is anything to send.
    pub(crate) fn next_record(&self) -> Option<(Vec<u8>, usize)> {
        let mut sending = self.sending.lock();
        let invalidations = sending.outbox.next();
        if invalidations.is_empty() {
            return None;
        }
        sending.last_nonce += 1;
        let (stamp, count) =
            (Stamp { node: self.id, nonce: sending.last_nonce }, invalidations.len());
        Some((Message { stamp, invalidations }.encode(), count))
    }

    /// The record is acknowledged: tells the callers.
    pub(crate) fn record_sent(&self) {
        let told = {
            let mut sending = self.sending.lock();
            sending.outbox.sent(self.local.now());
            let behind = sending.outbox.acknowledged() + 1;
            let waiting = sending.callers.split_off(&behind);
            std::mem::replace(&mut sending.callers, waiting)
        };
        // Bounded: by the callers. None is woken under the lock.
        for caller in told.into_values() {
            // One that has gone away needs no word.
            let _ = caller.send(());
        }
    }

    /// The server has lost records: what it may have lost of this node is sent again.
    pub(crate) fn send_again(&self) -> usize {
        let count = self.sending.lock().outbox.lost();
        self.to_send.notify_one();
        count
    }

    pub(crate) async fn anything_to_send(&self) {
        self.to_send.notified().await;
    }

    pub(crate) fn outbox(&self) -> OutboxFigures {
        let sending = self.sending.lock();
        OutboxFigures {
            waiting_bytes: sending.outbox.waiting_bytes(),
            overflows: sending.outbox.overflows(),
        }
    }

    pub(crate) fn open_until(&self, until: Duration) {
        self.local.open_until(until);
        self.opened.send_modify(|times| *times += 1);
    }

    /// Returns once the gate is open, or false once the cluster is closed.
    pub(crate) async fn opened(&self) -> bool {
        let (mut opened, mut stopping) = (self.opened.subscribe(), self.stopping.subscribe());
        loop {
            if *stopping.borrow_and_update() {
                return false;
            }
            if self.local.is_open() {
                return true;
            }
            tokio::select! {
                biased;
                _ = opened.changed() => {}
                _ = stopping.changed() => {}
            }
        }
    }

    /// Ends the tasks, and closes the gate.
    pub(crate) fn stop(&self) {
        self.stopping.send_replace(true);
        self.local.close_gate();
        let callers = std::mem::take(&mut self.sending.lock().callers);
        drop(callers);
    }

    /// Returns once the node is stopped.
    pub(crate) async fn stopped(&self) {
        // The sender is here.
        let _ = self.stopping.subscribe().wait_for(|is_stopping| *is_stopping).await;
    }
}

/// An invalidation on its way into the outbox: it gets there when its caller goes away, too.
struct Posting<'a, L: Local> {
    node: &'a Node<L>,
    invalidation: Option<&'a Invalidation>,
}

impl<'a, L: Local> Posting<'a, L> {
    fn post(mut self) -> Acknowledged<'a, L> {
        let invalidation = self.invalidation.take().expect("it is taken once");
        self.node.post(invalidation.clone())
    }
}

impl<L: Local> Drop for Posting<'_, L> {
    fn drop(&mut self) {
        if let Some(invalidation) = self.invalidation.take() {
            drop(self.node.post(invalidation.clone()));
        }
    }
}

/// A caller that waits. Dropped, it is not told.
struct Acknowledged<'a, L: Local> {
    node: &'a Node<L>,
    number: u64,
    receiver: oneshot::Receiver<()>,
}

impl<L: Local> Acknowledged<'_, L> {
    /// False if the cluster is closed.
    async fn wait(mut self) -> bool {
        (&mut self.receiver).await.is_ok()
    }
}

impl<L: Local> Drop for Acknowledged<'_, L> {
    fn drop(&mut self) {
        let caller = self.node.sending.lock().callers.remove(&self.number);
        drop(caller);
    }
}
