//! `Cluster`: the handle of a node, and its builder.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tamis::{BlobCache, Gate};
use tokio::task::JoinSet;

use crate::error::ClusterError;
use crate::invalidation::Invalidation;
use crate::local::{Local, Store};
use crate::node::Node;
use crate::settings::Settings;
use crate::stats::{ClusterState, ClusterStats};
use crate::tasks::{News, follow, listen, send};
use crate::transport::Transport;

/// One node of a cluster: a cache whose invalidations reach all others, and theirs it.
///
/// Clones are one node. When the last one is dropped, or [`close`](Self::close) is called, the node
/// leaves: its gate is closed, and it neither sends nor applies anything. Until then it holds the
/// cache.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    node: Arc<Node<Store>>,
    tasks: Mutex<JoinSet<()>>,
}

impl Cluster {
    /// Joins `cache` to a cluster. `gate` is the one that its configuration gives to the governed
    /// namespaces; it is opened and closed by this node alone from now on.
    #[must_use]
    pub fn builder(cache: &BlobCache, gate: &Gate) -> ClusterBuilder {
        ClusterBuilder {
            cache: cache.clone(),
            gate: gate.clone(),
            name: "tamis".to_owned(),
            retained: 65_536,
            settings: Settings::default(),
        }
    }

    /// Invalidates on every node: here at once; wherever a node follows, within the time that the
    /// server takes; and everywhere within the lease after this has returned, since a node that has
    /// not heard of it by then answers no hit from governed namespaces.
    ///
    /// Returns how many entries were invalidated here; of a namespace 1 or 0, of everything 0. Once
    /// polled, the invalidation goes on when the future is dropped.
    ///
    /// # Errors
    ///
    /// [`TooLarge`](ClusterError::TooLarge): nothing was done.
    /// [`Unacknowledged`](ClusterError::Unacknowledged): in force here, and sent until it is
    /// acknowledged or the cluster is closed. [`Cache`](ClusterError::Cache): sent and
    /// acknowledged, but the cache of this node has failed as its own verbs would.
    /// [`Closed`](ClusterError::Closed): the cluster is closed, or was meanwhile; the others may
    /// not know of it.
    pub async fn invalidate(&self, invalidation: Invalidation) -> Result<usize, ClusterError> {
        self.0.node.invalidate(&invalidation).await
    }

    /// Returns once governed namespaces answer: the server has been reached, and all that it had
    /// acknowledged is applied here.
    ///
    /// # Errors
    ///
    /// [`Closed`](ClusterError::Closed).
    pub async fn live(&self) -> Result<(), ClusterError> {
        if self.0.node.opened().await { Ok(()) } else { Err(ClusterError::Closed) }
    }

    /// Figures of this node.
    #[must_use]
    pub fn stats(&self) -> ClusterStats {
        let node = &self.0.node;
        let (counters, outbox) = (&node.counters, node.outbox());
        let state = match counters.is_connected.load(Ordering::Relaxed) {
            _ if node.local.is_open() => ClusterState::Live,
            true => ClusterState::CatchingUp,
            false => ClusterState::CutOff,
        };
        ClusterStats {
            state,
            applied: counters.applied.load(Ordering::Relaxed),
            sent: counters.sent.load(Ordering::Relaxed),
            sent_again: counters.sent_again.load(Ordering::Relaxed),
            failures: counters.failures.load(Ordering::Relaxed),
            flushes: counters.flushes.load(Ordering::Relaxed),
            overflows: outbox.overflows,
            waiting_bytes: outbox.waiting_bytes,
        }
    }

    /// Leaves the cluster: closes the gate, and saves how far this node is, so that its next life
    /// goes on from there. Call it before [`BlobCache::close`]. Invalidations whose callers have
    /// gone away may be left unsent. Dropped, it goes on.
    pub async fn close(&self) {
        self.0.node.stop();
        let mut tasks = std::mem::take(&mut *self.0.tasks.lock());
        // Bounded: there are three.
        while tasks.join_next().await.is_some() {}
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.node.stop();
        // They end by themselves, once what is being applied is.
        self.tasks.get_mut().detach_all();
    }
}

/// How a node joins: see [`Cluster::builder`].
#[derive(Debug)]
pub struct ClusterBuilder {
    cache: BlobCache,
    gate: Gate,
    name: String,
    retained: u64,
    settings: Settings,
}

impl ClusterBuilder {
    /// How long a hit of a governed namespace may be older than what is acknowledged, and how long
    /// a node that is cut off goes on. Default 2 s; 20 ms to one hour. A node asks the server four
    /// times within it.
    #[must_use]
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// The name of the shared log: of a stream in Redis. Nodes of one name are one cluster. Default
    /// `tamis`; 1 to 48 bytes.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How many records the log retains, about; a record has one or many invalidations. A node that
    /// was away for longer flushes. Default 65,536; at least 128.
    #[must_use]
    pub fn retained_records(mut self, records: u64) -> Self {
        self.retained = records;
        self
    }

    /// How long [`Cluster::invalidate`] waits for the server. Default 5 s.
    #[must_use]
    pub fn acknowledgement_timeout(mut self, timeout: Duration) -> Self {
        self.settings.acknowledgement = timeout;
        self
    }

    /// How long the first of several invalidations waits for others, to be sent in one record.
    /// Default 1 ms; at most 100 ms.
    #[must_use]
    pub fn coalescing(mut self, time: Duration) -> Self {
        self.settings.coalescing = time;
        self
    }

    /// Vouches that the server loses nothing that it has acknowledged or shown, whatever happens to
    /// it: in Redis, `appendfsync always`, and no promotion of replicas. Then its restart costs no
    /// flush. If that is not so, hits may be too old without end. Default false.
    #[must_use]
    pub fn durable_log(mut self, is_durable: bool) -> Self {
        self.settings.is_durable = is_durable;
        self
    }

    /// Joins over a Redis server, 7.0 or newer: `redis://[user:password@]host[:port][/database]`.
    /// Returns at once, and connects in tasks; see [`Cluster::live`].
    ///
    /// # Errors
    ///
    /// [`Address`](ClusterError::Address), and [`InvalidConfig`](ClusterError::InvalidConfig) for
    /// settings out of their range.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime with I/O and time.
    #[cfg(feature = "redis")]
    pub fn redis(self, address: &str) -> Result<Cluster, ClusterError> {
        let log = crate::redis_log::RedisLog::new(address, &self.name, self.retained)?;
        self.join(&log)
    }

    fn join<T: Transport + Clone>(self, transport: &T) -> Result<Cluster, ClusterError> {
        let refuse = |field, reason| Err(ClusterError::InvalidConfig { field, reason });
        self.settings.check()?;
        if !(1..=48).contains(&self.name.len()) {
            return refuse("name", "it has 1 to 48 bytes");
        }
        if self.retained < 128 {
            return refuse("retained_records", "they are at least 128");
        }
        let store = Store::new(self.cache, self.gate, &self.name);
        store.close_gate();
        let node = Arc::new(Node::new(rand::random(), store, self.settings));
        let news = Arc::new(News::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(send(node.clone(), transport.clone()));
        tasks.spawn(listen(node.clone(), transport.clone(), news.clone()));
        tasks.spawn(follow(node.clone(), transport.clone(), news));
        Ok(Cluster(Arc::new(Inner { node, tasks: Mutex::new(tasks) })))
    }
}
