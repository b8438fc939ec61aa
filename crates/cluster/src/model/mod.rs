//! A model of a whole cluster: the tasks of three nodes, over a server, links, and stores that fail
//! as a seed says, in simulated time. Each hit is judged.
//!
//! An origin has versions. A writer makes new ones of some keys, and invalidates them; once that is
//! acknowledged, no hit that begins a lease later, on any node, may have an older version; nor any
//! hit on the writer's own node that begins once the call has returned. Nodes are killed, with what
//! their disk had not taken, and sleep; the server restarts with a loss, is emptied, trimmed, and
//! loses records in its stride; records are not understood.

mod failpoints;
mod server;
mod store;

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use self::server::{Link, Server, SimulatedLog};
use self::store::{KEYS, SimulatedStore, Versions, covered};
use crate::error::ClusterError;
use crate::invalidation::Invalidation;
use crate::local::Local;
use crate::node::Node;
use crate::settings::Settings;
use crate::tasks::{News, follow, listen, send};

const LEASE: Duration = Duration::from_millis(200);
const NODES: usize = 3;
/// Of one case, in simulated time.
const LENGTH: Duration = Duration::from_secs(4);

/// What is to be true of hits, and what was.
#[derive(Debug, Default)]
struct Judge {
    origin: Versions,
    /// When the version of a key was acknowledged.
    acknowledged: [Vec<(Instant, u64)>; KEYS],
    /// What calls have returned on each node.
    returned: [Versions; NODES],
    hits: u64,
    acknowledgements: u64,
    violation: Option<String>,
}

impl Judge {
    fn hit(&mut self, node: usize, key: usize, version: u64, began: Instant) {
        self.hits += 1;
        let due = self.acknowledged[key].iter().filter(|(at, _)| *at + LEASE <= began);
        let due = due.map(|(_, version)| *version).max().unwrap_or(0);
        let least = due.max(self.returned[node][key]);
        if version < least {
            let told = format!("node {node} has {version} of key {key} where {least} was due");
            self.violation.get_or_insert(told);
        }
    }
}

/// One node, over its lives.
struct Host {
    number: usize,
    store: SimulatedStore,
    link: Arc<Mutex<Link>>,
    tasks: JoinSet<()>,
    news: Arc<News>,
    lives: u64,
}

struct World {
    seed: u64,
    random: StdRng,
    is_durable: bool,
    /// Whether records are trimmed. If not, the server may lose some in its stride, which is
    /// noticed as long as the anchor is there.
    is_trimmed: bool,
    /// Of one way to the server, at most.
    latency_ms: u64,
    server: Arc<Mutex<Server>>,
    judge: Arc<Mutex<Judge>>,
    hosts: Vec<Host>,
}

impl World {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let begun = Instant::now();
        let (latency_ms, disk_ms) = (random.random_range(1..30), random.random_range(1..30));
        let host = |number| Host {
            number,
            store: SimulatedStore::new(begun, disk_ms, random.random()),
            link: Arc::new(Mutex::new(Link::Within(latency_ms))),
            tasks: JoinSet::new(),
            news: Arc::default(),
            lives: 0,
        };
        let hosts = (0..NODES).map(host).collect();
        let (server, judge) = (Arc::new(Mutex::new(Server::new())), Arc::default());
        let (is_durable, is_trimmed) = (random.random(), random.random());
        Self { seed, is_durable, is_trimmed, random, latency_ms, server, judge, hosts }
    }

    fn start(&mut self, number: usize) {
        let random: u64 = self.random.random();
        let host = &mut self.hosts[number];
        host.lives += 1;
        let id = host.lives * NODES as u64 + number as u64;
        let settings =
            Settings { lease: LEASE, is_durable: self.is_durable, ..Settings::default() };
        let settings = Settings { acknowledgement: 5 * LEASE, ..settings };
        let node = Arc::new(Node::new(id, host.store.clone(), settings));
        let news = Arc::new(News::default());
        host.news = news.clone();
        let log = |salt| SimulatedLog {
            server: self.server.clone(),
            link: host.link.clone(),
            store: host.store.clone(),
            random: StdRng::seed_from_u64(random ^ salt),
        };
        host.tasks.spawn(send(node.clone(), log(1)));
        host.tasks.spawn(listen(node.clone(), log(2), news.clone()));
        host.tasks.spawn(follow(node.clone(), log(3), news));
        for salt in 4..8 {
            let (node, judge) = (node.clone(), self.judge.clone());
            let random = StdRng::seed_from_u64(random ^ salt);
            let (number, is_writer) = (host.number, salt < 6);
            host.tasks.spawn(async move {
                if is_writer {
                    write(number, &node, &judge, random).await;
                } else {
                    read(number, &node, &judge, random).await;
                }
            });
        }
    }

    async fn kill(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        host.tasks.shutdown().await;
        host.store.close_gate();
        host.store.crash();
        let time = self.random.random_range(0..400);
        sleep(Duration::from_millis(time)).await;
        self.start(number);
    }

    async fn fault(&mut self) {
        let number = self.random.random_range(0..NODES);
        let time = Duration::from_millis(self.random.random_range(1..600));
        let lost = if self.is_durable { 0 } else { self.random.random_range(0..8) };
        let host = &self.hosts[number];
        match self.random.random_range(0..12) {
            0 | 1 => self.kill(number).await,
            2 => host.store.sleep_for(time),
            3 => *host.link.lock() = Link::Cut,
            4 => *host.link.lock() = Link::Silent,
            5 => *host.link.lock() = Link::Within(self.random.random_range(20..300)),
            6 | 7 => {
                self.server.lock().stop();
                sleep(time / 8).await;
                self.server.lock().start(lost);
            }
            8 => self.server.lock().flush_all(),
            9 if self.is_trimmed => {
                host.store.sleep_for(time);
                sleep(time / 2).await;
                self.server.lock().trim(self.random.random_range(0..3));
            }
            10 => self.server.lock().garble_next(),
            11 if !self.is_trimmed => {
                host.store.sleep_for(time);
                self.lose_what_all_have();
            }
            _ => {}
        }
    }

    /// The server loses records in its stride, which is noticed by those that have applied them.
    fn lose_what_all_have(&mut self) {
        // An anchor that is not there any more, or is not understood, cannot be compared.
        let Some(head) = self.server.lock().anchor() else { return };
        let all_have = |host: &Host| host.news.reached() == Some(head);
        if self.hosts.iter().all(all_have) {
            let lost = self.random.random_range(1..8);
            self.server.lock().lose(lost);
        }
    }

    fn heal(&mut self) {
        // Bounded: by the nodes.
        for host in &self.hosts {
            *host.link.lock() = Link::Within(self.latency_ms);
        }
    }

    async fn run(mut self) -> Judge {
        let begun = Instant::now();
        (0..NODES).for_each(|number| self.start(number));
        while begun.elapsed() < LENGTH && self.judge.lock().violation.is_none() {
            let pause = self.random.random_range(1..200);
            sleep(Duration::from_millis(pause)).await;
            self.fault().await;
            if self.random.random_ratio(1, 3) {
                self.heal();
            }
        }
        // Dropped: the nodes end, and all of their tasks.
        for host in &mut self.hosts {
            host.tasks.shutdown().await;
        }
        let seed = self.seed;
        let mut judge = std::mem::take(&mut *self.judge.lock());
        judge.violation = judge.violation.map(|told| format!("seed {seed}: {told}"));
        judge
    }
}

/// Makes new versions, and invalidates them.
async fn write(
    number: usize,
    node: &Node<SimulatedStore>,
    judge: &Mutex<Judge>,
    mut random: StdRng,
) {
    loop {
        sleep(Duration::from_millis(random.random_range(1..400))).await;
        node.local.awake().await;
        let key = random.random_range(0..KEYS).to_string();
        // Few that cover much: they would hide that others are missing.
        let invalidation = match random.random_range(0..40) {
            0 => Invalidation::tags("n", [(random.random_range(0..2)).to_string()]),
            1 => Invalidation::dependencies("n", [(random.random_range(0..2)).to_string()]),
            2 => Invalidation::prefix("n", key),
            3 => Invalidation::namespace("n"),
            4 => Invalidation::all(),
            _ => Invalidation::key("n", key),
        };
        let keys = covered(&invalidation);
        let versions = {
            let mut judge = judge.lock();
            keys.iter().for_each(|key| judge.origin[*key] += 1);
            judge.origin
        };
        let call = node.invalidate(&invalidation);
        let patience = random.random_range(0..2000);
        let Ok(outcome) = timeout(Duration::from_millis(patience), call).await else { continue };
        let is_acknowledged = match outcome {
            Ok(_) => true,
            Err(ClusterError::Unacknowledged { .. }) => false,
            Err(error) => panic!("{error}"),
        };
        let (mut judge, now) = (judge.lock(), Instant::now());
        judge.acknowledgements += u64::from(is_acknowledged);
        for key in keys {
            judge.returned[number][key] = judge.returned[number][key].max(versions[key]);
            if is_acknowledged {
                judge.acknowledged[key].push((now, versions[key]));
            }
        }
    }
}

/// Gets, and fetches what is missing.
async fn read(
    number: usize,
    node: &Node<SimulatedStore>,
    judge: &Mutex<Judge>,
    mut random: StdRng,
) {
    let store = &node.local;
    loop {
        sleep(Duration::from_millis(random.random_range(0..4))).await;
        store.awake().await;
        let key = random.random_range(0..KEYS);
        if let Some(version) = store.get(key) {
            judge.lock().hit(number, key, version, Instant::now());
            continue;
        }
        let point = store.read_point();
        sleep(Duration::from_millis(random.random_range(0..4))).await;
        let version = judge.lock().origin[key];
        sleep(Duration::from_millis(random.random_range(0..20))).await;
        store.awake().await;
        store.put(key, version, point);
    }
}

/// One case.
fn run(seed: u64) -> Judge {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async { World::new(seed).run().await })
}

#[test]
fn no_hit_is_older_than_what_was_acknowledged_a_lease_ago() {
    let cases = std::env::var("TAMIS_CASES").map_or(200, |text| text.parse().unwrap());
    let first = std::env::var("TAMIS_SEED").map_or(0, |text| text.parse().unwrap());
    let (mut hits, mut acknowledgements) = (0, 0);
    for seed in first..first + cases {
        let judge = run(seed);
        assert_eq!(judge.violation, None);
        hits += judge.hits;
        acknowledgements += judge.acknowledgements;
    }
    println!("{cases} cases: {hits} hits, {acknowledgements} acknowledged invalidations");
    assert!(hits > cases * 500 && acknowledgements > cases * 20, "{hits}, {acknowledgements}");
}
