//! The tasks of a node: one sends, one follows the log, one waits for news.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tamis::CacheError;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::failpoint::{Failpoint, failpoint};
use crate::follower::{Answer, Follower, Work};
use crate::invalidation::{Invalidation, Scope};
use crate::local::Local;
use crate::node::Node;
use crate::position::Position;
use crate::stats::count;
use crate::transport::{Failure, Transport};

/// Invalidations that are applied at the same time, and so wait for the disk together.
const APPLYING_MAX: usize = 256;

/// What the task that waits for news and the one that follows the log tell each other.
#[derive(Debug, Default)]
pub(crate) struct News {
    /// There may be more than what was applied.
    arrived: Notify,
    /// What was applied.
    reached: watch::Sender<Option<Position>>,
}

impl News {
    /// What was applied, whenever that was all.
    #[cfg(test)]
    pub(crate) fn reached(&self) -> Option<Position> {
        *self.reached.borrow()
    }
}

/// Returns none once the node is stopped.
async fn unless_stopped<L: Local, T>(node: &Node<L>, call: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = node.stopped() => None,
        outcome = call => Some(outcome),
    }
}

/// Gives a call to the server so much time, and counts if it fails.
async fn ask<L: Local, T>(
    node: &Node<L>,
    patience: Duration,
    call: impl Future<Output = Result<T, Failure>>,
) -> Option<T> {
    let error = match timeout(patience, call).await {
        Ok(Ok(outcome)) => return Some(outcome),
        Ok(Err(error)) => error,
        Err(_) => "the server does not answer".into(),
    };
    count(&node.counters.failures, 1);
    tracing::debug!(error = &*error, "a call to the cluster's server has failed");
    None
}

/// Sends what is in the outbox, in order, and each record until it is acknowledged.
pub(crate) async fn send<L: Local>(node: Arc<Node<L>>, mut transport: impl Transport) {
    let all = async {
        loop {
            node.anything_to_send().await;
            sleep(node.settings.coalescing).await;
            while let Some((record, count_sent)) = node.next_record() {
                let patience = node.settings.patience();
                match ask(&node, patience, transport.append(record)).await {
                    Some(()) => {
                        count(&node.counters.sent, count_sent);
                        node.record_sent();
                    }
                    None => sleep(node.settings.pause()).await,
                }
            }
        }
    };
    unless_stopped::<_, ()>(&node, pin!(all)).await;
}

/// Waits for records behind what was applied. Only a hint: the log is asked often enough without.
pub(crate) async fn listen<L: Local>(
    node: Arc<Node<L>>,
    mut transport: impl Transport,
    news: Arc<News>,
) {
    let interval = node.settings.interval();
    let mut reached = news.reached.subscribe();
    let all = async {
        loop {
            let Some(behind) = *reached.borrow_and_update() else {
                let _ = reached.changed().await;
                continue;
            };
            let patience = interval + node.settings.patience();
            match ask(&node, patience, transport.wait(behind, interval)).await {
                Some(true) => {
                    news.arrived.notify_one();
                    // Until that was applied.
                    let _ = timeout(interval, reached.changed()).await;
                }
                Some(false) => {}
                None => sleep(node.settings.pause()).await,
            }
        }
    };
    unless_stopped::<_, ()>(&node, pin!(all)).await;
}

/// Follows the log: asks for what is new, applies it, and opens the gate.
pub(crate) async fn follow<L: Local>(
    node: Arc<Node<L>>,
    mut transport: impl Transport,
    news: Arc<News>,
) {
    let settings = &node.settings;
    let place = node.local.saved();
    let mut following = Following {
        node: &node,
        follower: Follower::new(node.id, settings.lease, settings.is_durable, place),
        saved_at: None,
    };
    loop {
        let asked_at = node.local.now();
        let question = transport.ask(following.follower.position());
        let question = ask(&node, settings.patience(), question);
        let Some(answer) = unless_stopped(&node, question).await else { break };
        following.note_connection(answer.is_some());
        let Some(answer) = answer else {
            if unless_stopped(&node, sleep(settings.pause())).await.is_none() {
                break;
            }
            continue;
        };
        let head = answer.head;
        let asked_at =
            if failpoint(Failpoint::LeaseFromAnswer) { node.local.now() } else { asked_at };
        if following.digest(asked_at, answer).await.is_err() {
            break;
        }
        let reached = following.follower.position();
        if reached != Some(head) {
            continue;
        }
        news.reached.send_replace(reached);
        let quiet = timeout(settings.interval(), news.arrived.notified());
        if unless_stopped(&node, quiet).await.is_none() {
            break;
        }
    }
    node.local.close_gate();
    let _ = following.save().await;
}

struct Following<'a, L: Local> {
    node: &'a Node<L>,
    follower: Follower,
    /// When the place was saved last.
    saved_at: Option<Duration>,
}

impl<L: Local> Following<'_, L> {
    /// Does what follows from an answer. An error: the cache is closed.
    async fn digest(&mut self, asked_at: Duration, answer: Answer) -> Result<(), CacheError> {
        let (work, step) = self.follower.take(asked_at, answer);
        if failpoint(Failpoint::PositionFirst) && step.place().stamp.is_some() {
            self.node.local.save(step.place()).await?;
        }
        match work {
            Work::Apply(invalidations) => self.apply(invalidations).await?,
            Work::Flush(gap) => {
                count(&self.node.counters.flushes, 1);
                tracing::warn!(?gap, "invalidations may be missing: the namespaces are flushed");
                in_force(self.node.local.flush().await)?;
                if gap.is_loss() {
                    count(&self.node.counters.sent_again, self.node.send_again());
                }
            }
        }
        if let Some(until) = self.follower.finish(step) {
            self.node.open_until(until);
        }
        let now = self.node.local.now();
        if self.saved_at.is_none_or(|at| now >= at + self.node.settings.saving()) {
            self.saved_at = Some(now);
            in_force(self.save().await)?;
        }
        Ok(())
    }

    async fn apply(&self, invalidations: Vec<Invalidation>) -> Result<(), CacheError> {
        let local = &self.node.local;
        let applied = invalidations.len();
        let applying = stream::iter(invalidations).map(|it| apply_one(local, it));
        let mut applying = pin!(applying.buffer_unordered(APPLYING_MAX));
        // Bounded: by the invalidations of one answer.
        while let Some(outcome) = applying.next().await {
            outcome?;
        }
        count(&self.node.counters.applied, applied);
        Ok(())
    }

    /// A place whose anchor is not known is not saved: nothing would tell a log that has lost it.
    async fn save(&self) -> Result<(), CacheError> {
        match self.follower.place().filter(|place| place.stamp.is_some()) {
            Some(place) => self.node.local.save(place).await,
            None => Ok(()),
        }
    }

    fn note_connection(&self, is_connected: bool) {
        let was_connected = self.node.counters.is_connected.swap(is_connected, Ordering::Relaxed);
        match (was_connected, is_connected) {
            (false, true) => tracing::info!("the cluster's server answers"),
            (true, false) => tracing::warn!("the cluster's server does not answer"),
            _ => {}
        }
    }
}

/// A disk that fails leaves an invalidation in force in this process, and the place unsaved or the
/// store void.
fn in_force(outcome: Result<(), CacheError>) -> Result<(), CacheError> {
    match outcome {
        Err(CacheError::Closed) => Err(CacheError::Closed),
        _ => Ok(()),
    }
}

async fn apply_one<L: Local>(local: &L, it: Invalidation) -> Result<(), CacheError> {
    match local.apply(&it).await {
        Ok(_) | Err(CacheError::L2Io { .. }) => Ok(()),
        Err(CacheError::Closed) => Err(CacheError::Closed),
        // This cache refuses such a key or label. It may have had others before.
        Err(_) => {
            let scope = it.name().map_or(Scope::All, |name| Scope::Namespace(name.to_owned()));
            let wider = Invalidation { scope, is_soft: false };
            in_force(local.apply(&wider).await.map(drop))
        }
    }
}
