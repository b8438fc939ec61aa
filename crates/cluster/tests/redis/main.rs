//! Nodes over a real Redis server, which is stopped, killed, emptied and trimmed. Without
//! redis-server each test says that it is skipped.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod server;

use std::path::Path;
use std::time::Duration;

use server::{Proxy, RedisServer};
use tamis::{
    BlobCache, BlobCacheConfig, BlobCachePolicy, BlobCachePut, ExtendedTtlPolicy, Gate, WhileClosed,
};
use tamis_cluster::{Cluster, ClusterError, ClusterState, Invalidation};
use tokio::time::{Instant, sleep, timeout};

const LEASE: Duration = Duration::from_millis(400);

struct Node {
    cache: BlobCache,
    cluster: Cluster,
}

fn config(gate: &Gate) -> tamis::BlobCacheConfigBuilder {
    BlobCacheConfig::builder().namespace("pages", |it| it.gate(gate, WhileClosed::Miss))
}

impl Node {
    async fn join(address: &str) -> Self {
        let gate = Gate::new();
        let cache = BlobCache::open(config(&gate).build().unwrap()).await.unwrap();
        Self::of(cache, &gate, address, false).await
    }

    async fn of(cache: BlobCache, gate: &Gate, address: &str, is_durable: bool) -> Self {
        let cluster = Cluster::builder(&cache, gate)
            .lease(LEASE)
            .durable_log(is_durable)
            .acknowledgement_timeout(Duration::from_millis(500))
            .redis(address)
            .unwrap();
        timeout(Duration::from_secs(20), cluster.live()).await.unwrap().unwrap();
        Self { cache, cluster }
    }

    /// With a store, which a former life may have left.
    async fn open(directory: &Path, address: &str, governed: &[&str]) -> Self {
        let gate = Gate::new();
        let config = BlobCacheConfig::builder().l2(directory, |l2| l2.bytes_max(64 << 20));
        let config = governed.iter().fold(config, |config, name| {
            config.namespace(name, |it| it.gate(&gate, WhileClosed::Miss))
        });
        let cache = BlobCache::open(config.build().unwrap()).await.unwrap();
        Self::of(cache, &gate, address, false).await
    }

    async fn close(self) {
        self.cluster.close().await;
        self.cache.close().await.unwrap();
    }

    async fn put(&self, key: &str) {
        let policy =
            BlobCachePolicy::default().ttl(Duration::from_secs(600)).extended(ExtendedTtlPolicy {
                stale_serve: Some(Duration::from_secs(600)),
                ..Default::default()
            });
        let put = BlobCachePut::new(key.to_owned()).with_policy(policy).with_tags(["tag"]);
        self.cache.put("pages", key, put.with_dependencies(["dependency"])).await.unwrap();
    }

    async fn has(&self, key: &str) -> bool {
        self.cache.get("pages", key).await.is_some()
    }

    async fn is_stale(&self, key: &str) -> bool {
        self.cache.get("pages", key).await.is_some_and(|hit| hit.is_stale())
    }

    async fn invalidate(&self, invalidation: Invalidation) {
        self.cluster.invalidate(invalidation).await.unwrap();
    }

    fn flushes(&self) -> u64 {
        self.cluster.stats().flushes
    }
}

/// Waits, for what a node learns by itself.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_invalidation_reaches_the_others() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let (one, two) = (Node::join(&server.address()).await, Node::join(&server.address()).await);
    for invalidation in [
        Invalidation::key("pages", "k1"),
        Invalidation::prefix("pages", "k"),
        Invalidation::tags("pages", ["other", "tag"]),
        Invalidation::dependencies("pages", ["dependency"]),
        Invalidation::namespace("pages"),
        Invalidation::all(),
    ] {
        for soft in [false, true] {
            if soft && invalidation == invalidation.clone().soft() {
                continue;
            }
            let invalidation =
                if soft { invalidation.clone().soft() } else { invalidation.clone() };
            one.put("k1").await;
            two.put("k1").await;
            two.put("other").await;
            let what = format!("{invalidation:?}");
            let covers_other = !what.contains("scope: Key") && !what.contains("scope: Prefix");
            one.invalidate(invalidation.clone()).await;
            if soft {
                assert!(one.is_stale("k1").await);
                until(&what, async || two.is_stale("k1").await).await;
                assert_eq!(two.is_stale("other").await, covers_other, "{what}");
            } else {
                assert!(!one.has("k1").await);
                until(&what, async || !two.has("k1").await).await;
                assert_eq!(two.has("other").await, !covers_other, "{what}");
            }
        }
    }
    assert_eq!(two.cluster.stats().applied, 11);
    assert_eq!((one.flushes(), two.flushes()), (1, 1), "when they joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_misses_and_finds_again_what_is_still_valid() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let proxy = Proxy::to(server.port()).await;
    let (one, two) = (Node::join(&server.address()).await, Node::join(&proxy.address()).await);
    two.put("kept").await;
    two.put("invalidated").await;
    proxy.cut(true);
    one.invalidate(Invalidation::key("pages", "invalidated")).await;
    sleep(LEASE).await;
    assert!(!two.has("kept").await && !two.has("invalidated").await);
    until("it notices", async || two.cluster.stats().state == ClusterState::CutOff).await;
    // Fills go on.
    two.put("new").await;
    proxy.cut(false);
    until("it is back", async || two.has("kept").await).await;
    assert!(!two.has("invalidated").await && two.has("new").await);
    assert_eq!(two.flushes(), 1, "when it joined");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_answer_closes_all_gates() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let one = Node::join(&server.address()).await;
    one.put("k").await;
    server.signal("-STOP");
    let outcome = one.cluster.invalidate(Invalidation::key("pages", "other")).await;
    assert!(matches!(outcome, Err(ClusterError::Unacknowledged { .. })), "{outcome:?}");
    sleep(LEASE).await;
    assert!(!one.has("k").await);
    server.signal("-CONT");
    until("it is back", async || one.has("k").await).await;
    until("it was sent", async || one.cluster.stats().sent == 1).await;
    assert_eq!(one.flushes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_of_the_server_flushes_and_what_was_not_acknowledged_arrives() {
    let Some(mut server) = RedisServer::start(&[]).await else { return };
    let (one, two) = (Node::join(&server.address()).await, Node::join(&server.address()).await);
    one.invalidate(Invalidation::key("ungoverned", "lost by the server")).await;
    two.put("k").await;
    two.cache.put("ungoverned", "k", "value").await.unwrap();
    server.kill();
    let outcome = one.cluster.invalidate(Invalidation::key("ungoverned", "k")).await;
    assert!(matches!(outcome, Err(ClusterError::Unacknowledged { .. })), "{outcome:?}");
    assert!(two.cache.get("ungoverned", "k").await.is_some());
    server.start_again().await;
    until("it is flushed", async || two.flushes() == 2 && one.flushes() == 2).await;
    assert!(!two.has("k").await);
    until("it arrives", async || two.cache.get("ungoverned", "k").await.is_none()).await;
    until("and what was lost", async || one.cluster.stats().sent_again >= 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_keeps_all_survives_a_kill_without_a_flush() {
    let durable = ["--appendonly", "yes", "--appendfsync", "always"];
    let Some(mut server) = RedisServer::start(&durable).await else { return };
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let gate = Gate::new();
        let cache = BlobCache::open(config(&gate).build().unwrap()).await.unwrap();
        nodes.push(Node::of(cache, &gate, &server.address(), true).await);
    }
    let [one, two] = &nodes[..] else { unreachable!() };
    two.put("kept").await;
    two.put("invalidated").await;
    one.invalidate(Invalidation::key("pages", "invalidated")).await;
    server.kill();
    server.start_again().await;
    sleep(LEASE).await;
    until("it is back", async || two.has("kept").await).await;
    assert!(!two.has("invalidated").await);
    assert_eq!(two.flushes(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_deleted_or_trimmed_past_a_node_flushes_it() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let proxy = Proxy::to(server.port()).await;
    let (one, two) = (Node::join(&server.address()).await, Node::join(&proxy.address()).await);
    two.put("k").await;
    server.command(&["FLUSHALL"]).await;
    until("it is flushed", async || two.flushes() == 2 && one.flushes() == 2).await;
    assert!(!two.has("k").await);
    for left in ["1", "0"] {
        let before = two.flushes();
        two.put("k").await;
        proxy.cut(true);
        for _ in 0..3 {
            one.invalidate(Invalidation::key("pages", "k")).await;
        }
        sleep(LEASE).await;
        server.command(&["XTRIM", "tamis", "MAXLEN", left]).await;
        proxy.cut(false);
        until("it is flushed", async || two.flushes() == before + 1).await;
        until("it is live", async || two.cluster.stats().state == ClusterState::Live).await;
        assert!(!two.has("k").await);
    }
    // Trimmed after it was read: nothing is missing.
    two.put("k").await;
    one.invalidate(Invalidation::key("pages", "other")).await;
    until("it is applied", async || two.cluster.stats().applied >= 1).await;
    server.command(&["XTRIM", "tamis", "MAXLEN", "0"]).await;
    sleep(2 * LEASE).await;
    assert!(two.has("k").await && two.flushes() == 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_understood_flushes() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let one = Node::join(&server.address()).await;
    one.put("k").await;
    server.command(&["XADD", "tamis", "*", "stranger", "value"]).await;
    until("it is flushed", async || one.flushes() == 2).await;
    assert!(!one.has("k").await);
    one.put("k").await;
    sleep(2 * LEASE).await;
    assert!(one.has("k").await, "once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_is_no_server_and_its_promotion_flushes() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let master = server.port().to_string();
    let Some(replica) = RedisServer::start(&["--replicaof", "127.0.0.1", &master]).await else {
        return;
    };
    let gate = Gate::new();
    let cache = BlobCache::open(config(&gate).build().unwrap()).await.unwrap();
    let cluster = Cluster::builder(&cache, &gate).lease(LEASE).redis(&replica.address()).unwrap();
    sleep(2 * LEASE).await;
    assert!(!gate.is_open());
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    timeout(Duration::from_secs(20), cluster.live()).await.unwrap().unwrap();
    assert_eq!(cluster.stats().flushes, 1);
    // Its role changes and comes back between two questions: its data may be others'.
    replica.command(&["REPLICAOF", "127.0.0.1", &master]).await;
    until("it has synced", async || {
        let told: String =
            redis::from_redis_value(replica.command(&["INFO", "replication"]).await).unwrap();
        told.contains("master_link_status:up")
    })
    .await;
    replica.command(&["REPLICAOF", "NO", "ONE"]).await;
    until("it is flushed", async || cluster.stats().flushes == 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_callers_share_records_and_a_closed_node_refuses() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let (one, two) = (Node::join(&server.address()).await, Node::join(&server.address()).await);
    let calls = (0..2000_u32).map(|n| {
        let cluster = one.cluster.clone();
        tokio::spawn(async move {
            cluster.invalidate(Invalidation::key("pages", n.to_le_bytes())).await.unwrap();
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap();
    }
    until("all are applied", async || two.cluster.stats().applied == 2000).await;
    let length = server.command(&["XLEN", "tamis"]).await;
    assert!(matches!(length, redis::Value::Int(2..=200)), "{length:?}");
    two.put("k").await;
    two.cluster.close().await;
    assert!(!two.has("k").await);
    let outcome = two.cluster.invalidate(Invalidation::all()).await;
    assert!(matches!(outcome, Err(ClusterError::Closed)));
    assert!(matches!(two.cluster.live().await, Err(ClusterError::Closed)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_was_down_goes_on_where_it_was() {
    let Some(server) = RedisServer::start(&[]).await else { return };
    let directory = tempfile::tempdir().unwrap();
    let address = server.address();
    let one = Node::join(&address).await;
    let open = |governed| Node::open(directory.path(), &address, governed);
    let two = open(&["pages"]).await;
    assert_eq!(two.flushes(), 1, "its store is new");
    two.put("kept").await;
    two.put("invalidated").await;
    one.invalidate(Invalidation::key("pages", "other")).await;
    until("it is applied", async || two.cluster.stats().applied == 1).await;
    two.close().await;
    one.invalidate(Invalidation::key("pages", "invalidated")).await;

    let two = open(&["pages"]).await;
    assert_eq!((two.flushes(), two.cluster.stats().applied), (0, 1));
    assert!(two.has("kept").await && !two.has("invalidated").await);
    two.close().await;

    let two = open(&["pages", "more"]).await;
    assert_eq!(two.flushes(), 1, "other namespaces are governed");
    assert!(!two.has("kept").await);
    two.put("kept").await;
    two.close().await;

    one.invalidate(Invalidation::key("pages", "other")).await;
    one.invalidate(Invalidation::key("pages", "other")).await;
    server.command(&["XTRIM", "tamis", "MAXLEN", "1"]).await;
    let two = open(&["pages", "more"]).await;
    assert_eq!(two.flushes(), 1, "it was away for too long");
    assert!(!two.has("kept").await);
    two.close().await;
}
