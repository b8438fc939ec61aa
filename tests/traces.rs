//! SIEVE against the paper: the cache's hits and misses compared with a naive model and with
//! published simulations.
//!
//! The model is compared over thousands of small workloads; `TAMIS_SEED` runs one alone,
//! `TAMIS_CASES` sets their number. The simulations are those of `reference.csv`, beside its traces
//! in the folder `TAMIS_TRACES`: for any number of shards the misses must be equal. An unoptimized
//! build skips the long traces. The reader is shared with `examples/replay` and the tool.

#[path = "../examples/replay/budget.rs"]
#[allow(dead_code, reason = "the example also counts memory")]
mod budget;
#[path = "../examples/replay/reference.rs"]
#[allow(dead_code, reason = "the example looks rows up")]
mod reference;
#[path = "../examples/replay/trace.rs"]
mod trace;
#[path = "../src/bin/tamis/traces/mod.rs"]
mod traces;
#[path = "../examples/replay/workload.rs"]
#[allow(dead_code, reason = "the example has a workload of its own")]
mod workload;

use std::env;
use std::path::{Path, PathBuf};

use budget::{Budget, Mode};
use futures::executor::block_on;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reference::{Reference, Row};
use tamis::{
    BlobCache, BlobCacheNamespace, BlobCachePolicy, BlobCachePut, CacheError, L1Admission,
};
use trace::Trace;
use traces::{Columns, InputError, Layout, Request, TraceFormat, TraceReader};
use workload::Workload;

/// The number of workloads, unless `TAMIS_CASES` is set.
const CASES: u64 = 5000;

/// Longer traces take minutes without optimization.
const REQUESTS_MAX: u64 = if cfg!(debug_assertions) { 300_000 } else { u64::MAX };

/// SIEVE, "NSDI'24, Algorithm 1", written as simply as possible. Not fast.
#[derive(Debug, Default)]
struct Model {
    /// Oldest object first; new ones are appended, at the head of the paper's queue.
    queue: Vec<Object>,
    /// The start of the next walk. 0, the oldest, is NULL in the paper.
    hand: usize,
    used: u64,
    capacity: u64,
}

#[derive(Debug)]
struct Object {
    key: u64,
    size: u64,
    visited: bool,
}

impl Model {
    /// Whether the object was present. If not, it is inserted, unless the cache is too small.
    fn request(&mut self, key: u64, size: u64) -> bool {
        if let Some(object) = self.queue.iter_mut().find(|object| object.key == key) {
            object.visited = true;
            return true;
        }
        if size <= self.capacity {
            while self.used + size > self.capacity {
                self.evict();
            }
            self.queue.push(Object { key, size, visited: false });
            self.used += size;
        }
        false
    }

    /// Inserts or overwrites an object, at the head. Not in the paper.
    fn put(&mut self, key: u64, size: u64) {
        if size > self.capacity {
            return;
        }
        let old = self.queue.iter().find(|object| object.key == key).map_or(0, |old| old.size);
        while self.used > 0 && self.used + size > self.capacity + old {
            self.evict();
        }
        self.queue.push(Object { key, size, visited: false });
        self.used += size;
        let newest = self.queue.len() - 1;
        if let Some(place) = self.queue[..newest].iter().position(|object| object.key == key) {
            self.remove(place);
        }
        while self.used > self.capacity {
            self.evict();
        }
    }

    /// Whether the object was present.
    fn invalidate(&mut self, key: u64) -> bool {
        let place = self.queue.iter().position(|object| object.key == key);
        place.map(|place| self.remove(place)).is_some()
    }

    fn remove(&mut self, place: usize) {
        self.used -= self.queue.remove(place).size;
        self.hand -= usize::from(place < self.hand);
        if self.hand == self.queue.len() {
            self.hand = 0;
        }
    }

    fn evict(&mut self) {
        while self.queue[self.hand].visited {
            self.queue[self.hand].visited = false;
            self.hand = (self.hand + 1) % self.queue.len();
        }
        // The next newer object then has this index. Past the newest, the walk restarts at the
        // oldest, not at objects inserted later.
        self.remove(self.hand);
    }
}

/// The cache under test.
struct Subject {
    cache: BlobCache,
    namespace: BlobCacheNamespace,
    budget: Budget,
}

impl Subject {
    fn new(budget: Budget, shards: Option<usize>) -> Self {
        let config = budget.config(shards).expect("a configuration within its limits");
        let cache = block_on(BlobCache::open(config)).expect("a cache in memory opens");
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
        let namespace = cache.namespace("trace").with_policy(policy);
        Self { cache, namespace, budget }
    }

    /// A get, and on a miss a put; true on a hit.
    async fn request(&self, request: Request) -> bool {
        let key = request.key.to_le_bytes();
        if self.namespace.get(key).await.is_some() {
            return true;
        }
        self.put(request).await;
        false
    }

    async fn put(&self, request: Request) {
        let weight = self.budget.weight(request.size).to_le_bytes();
        let put = BlobCachePut::copy_from_slice(&weight);
        match self.namespace.put(request.key.to_le_bytes(), put).await {
            Ok(()) | Err(CacheError::BlobTooLarge { .. }) => {}
            Err(error) => panic!("{error}"),
        }
    }

    async fn invalidate(&self, key: u64) -> bool {
        match self.namespace.invalidate_key(key.to_le_bytes()).await {
            Ok(removed) => removed == 1,
            Err(error) => panic!("{error}"),
        }
    }

    fn misses(&self, trace: &Trace) -> u64 {
        block_on(async {
            let mut misses = 0;
            for &request in &trace.requests {
                misses += u64::from(!self.request(request).await);
            }
            misses
        })
    }
}

/// The traces with their reference rows. None, with a message, if there are none.
fn published() -> Option<Vec<(Trace, Vec<Row>)>> {
    let Some(folder) = env::var_os("TAMIS_TRACES").map(PathBuf::from) else {
        println!("skipped: TAMIS_TRACES names no folder of traces");
        return None;
    };
    let reference =
        Reference::read(&folder.join("reference.csv")).unwrap_or_else(|e| panic!("{e}"));
    let mut published: Vec<(Trace, Vec<Row>)> = Vec::new();
    let rows = reference.rows.into_iter().filter(Row::is_of_sieve);
    for row in rows.filter(|row| row.requests <= REQUESTS_MAX) {
        if published.last().is_none_or(|(trace, _)| trace.name != row.trace) {
            let path = folder.join(format!("{}.csv.zst", row.trace));
            let trace =
                Trace::read(&path, &Layout::default()).unwrap_or_else(|error| panic!("{error}"));
            published.push((trace, Vec::new()));
        }
        let (trace, rows) = published.last_mut().expect("pushed above");
        assert_eq!(row.requests, trace.requests.len() as u64, "requests of {}", trace.name);
        assert!(row.cache_size <= trace.working_set(mode_of(&row)), "{row:?}");
        rows.push(row);
    }
    assert!(!published.is_empty(), "no SIEVE results in {}", folder.display());
    Some(published)
}

fn mode_of(row: &Row) -> Mode {
    if row.is_of(Mode::Byte) { Mode::Byte } else { Mode::Obj }
}

fn number_from(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Runs a small workload on the model and on a cache with one shard or several.
fn compare_with_model(seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let mode = if random.random() { Mode::Obj } else { Mode::Byte };
    // From one object to more than are ever requested; some objects exceed the capacity.
    let capacity = match mode {
        Mode::Obj => 1 << random.random_range(0..8),
        Mode::Byte => 1 << random.random_range(0..20),
    };
    let capacity = random.random_range(capacity..2 * capacity);
    let largest = (capacity + capacity / 4 + 1).min(1 << random.random_range(0..20));
    let workload = Workload {
        requests: random.random_range(1..600),
        objects: random.random_range(1..200),
        skew: f64::from(random.random_range(0..15)) / 10.0,
        scans_per_mille: random.random_range(0..50),
        scan_length_max: random.random_range(1..100),
        sizes: random.random_range(0..=largest)..=largest,
    };
    let trace = workload.generate(seed).expect("at least one object");
    let budget = Budget::new(mode, capacity).expect("a capacity of one or more");
    let subject = Subject::new(budget, Some(random.random_range(1..20)));
    let unit = budget.weight(1);
    let mut model = Model { capacity: capacity * unit, ..Model::default() };
    // Half of the workloads are as in the paper; the others also overwrite and invalidate.
    let others_per_mille = if random.random() { 0 } else { random.random_range(0..300) };
    for (number, &request) in trace.requests.iter().enumerate() {
        let weight = budget.weight(request.size);
        let (found, expected) = match random.random_range(0..1000) {
            roll if roll >= others_per_mille => {
                (block_on(subject.request(request)), model.request(request.key, weight))
            }
            roll if roll % 2 == 0 => {
                (block_on(subject.invalidate(request.key)), model.invalidate(request.key))
            }
            _ => {
                block_on(subject.put(request));
                model.put(request.key, weight);
                (true, true)
            }
        };
        assert_eq!(
            found, expected,
            "TAMIS_SEED={seed}: there or not, at request {number}, {request:?}, of {workload:?} \
             in a cache of {capacity}, {mode:?}"
        );
    }
    let stats = subject.cache.stats();
    assert_eq!(stats.entries(), model.queue.len(), "TAMIS_SEED={seed}: entries");
    assert_eq!(stats.bytes_in_use() as u64, model.used, "TAMIS_SEED={seed}: bytes");
}

#[test]
fn any_number_of_shards_matches_the_model() {
    if let Some(seed) = number_from("TAMIS_SEED") {
        return compare_with_model(seed);
    }
    for seed in 0..number_from("TAMIS_CASES").unwrap_or(CASES) {
        compare_with_model(seed);
    }
}

#[test]
fn misses_equal_the_published_simulations() {
    for (trace, rows) in published().into_iter().flatten() {
        for row in rows {
            let budget = Budget::new(mode_of(&row), row.cache_size).unwrap();
            for shards in [None, Some(8), Some(64)] {
                let misses = Subject::new(budget, shards).misses(&trace);
                assert_eq!(misses, row.misses, "{shards:?} shards: {row:?}");
            }
        }
    }
}

fn parsed(bytes: &[u8], layout: &Layout) -> Result<Trace, InputError> {
    let path = Path::new("trace.csv");
    Trace::parse(path, TraceReader::new(path, bytes, layout)?)
}

/// Keys by first appearance, and sizes.
fn requests(bytes: &[u8], layout: &Layout) -> Vec<(u64, u64)> {
    let trace = parsed(bytes, layout).unwrap_or_else(|error| panic!("{error}"));
    trace.requests.iter().map(|request| (request.key, request.size)).collect()
}

fn csv(columns: &str) -> Layout {
    Layout { format: TraceFormat::Csv, columns: Some(columns.parse().expect("a column")) }
}

#[test]
fn every_layout_of_lines_is_read() {
    let auto = Layout::default();
    let expected = [(0, 5), (1, 9), (0, 7)];
    for text in [
        "a,5\n b ,9\r\na,7",
        "key,size\na,5\nb,9\na,7\n",
        "17,a,5\n17,b,9\n18,a,7\n",
        "1,a,5,3\n2,b,9,-1\n3,a,7,-1\n",
        "# time, object, size, next\n1, a, 5, 3\n2, b, 9, -1\n3, a, 7, -1\n",
        "\u{feff}version,time,op,size,lbn\n1,1,2a,5,x\n1,1,2a,9,y\n1,1,2a,7,x\n",
    ] {
        assert_eq!(requests(text.as_bytes(), &auto), expected, "{text}");
    }
    let text = b"5,-,a\n9,-,b\n7,-,a\n";
    assert_eq!(requests(text, &csv("size=1,id=3")), expected);
    assert_eq!(requests(text, &csv("id=3")), [(0, 1), (1, 1), (0, 1)]);
    // Ids may be words, so a first line is a header only if it names them.
    assert_eq!(requests(b"a\nb\na\n", &csv("id=1")), [(0, 1), (1, 1), (0, 1)]);
    assert_eq!(requests(b"key\nb\na\n", &csv("id=1")), [(0, 1), (1, 1)]);
    let trace = parsed(b"a,5\nb,9\na,7", &auto).unwrap();
    assert_eq!((trace.working_set(Mode::Obj), trace.working_set(Mode::Byte)), (2, 14));
    assert_eq!(trace.name, "trace");
}

/// Records of libCacheSim: time, object, size, next request.
fn records(records: &[(u32, u64, u32, i64)]) -> Vec<u8> {
    let record = |&(time, object, size, next): &(u32, u64, u32, i64)| {
        let object = object.to_le_bytes();
        [&time.to_le_bytes()[..], &object, &size.to_le_bytes(), &next.to_le_bytes()].concat()
    };
    records.iter().flat_map(record).collect()
}

const RECORDS: [(u32, u64, u32, i64); 5] =
    [(1, 7, 500, 3), (1, 8, 0, -1), (2, u64::MAX, 9, i64::MAX), (2, 7, 500, -1), (3, 0, 1, -2)];

#[test]
fn records_are_read_packed_or_compressed_in_any_number_of_frames() {
    let bytes = records(&RECORDS);
    // Those of size 0 are passed over.
    let expected = [(0, 500), (1, 9), (0, 500), (2, 1)];
    let (head, tail) = bytes.split_at(50);
    let compressed = |part: &[u8]| zstd::encode_all(part, 3).unwrap();
    let frames = [compressed(head), compressed(tail)].concat();
    for format in [TraceFormat::Auto, TraceFormat::OracleGeneral] {
        let layout = Layout { format, columns: None };
        assert_eq!(requests(&bytes, &layout), expected);
        assert_eq!(requests(&compressed(&bytes), &layout), expected);
        assert_eq!(requests(&frames, &layout), expected);
    }
    let lines = compressed(b"a,5\nb,9\na,7");
    assert_eq!(requests(&lines, &Layout::default()), [(0, 5), (1, 9), (0, 7)]);
}

#[test]
fn errors_in_records_name_their_offset() {
    let whole = records(&RECORDS);
    let message = |bytes: &[u8], format| {
        parsed(bytes, &Layout { format, columns: None }).unwrap_err().to_string()
    };
    let cut = message(&whole[..whole.len() - 1], TraceFormat::Auto);
    assert_eq!(cut, "trace.csv: offset 96: the last record is cut off");
    let mut wrong = RECORDS;
    wrong[3].3 = -1_000_000;
    let wrong = message(&records(&wrong), TraceFormat::OracleGeneral);
    assert!(wrong.starts_with("trace.csv: offset 72: no record"), "{wrong}");
    let compressed = zstd::encode_all(&whole[..], 3).unwrap();
    let cut = message(&compressed[..compressed.len() - 3], TraceFormat::OracleGeneral);
    assert!(cut.starts_with("trace.csv: "), "{cut}");
    // Bytes of other programs are not taken for records.
    let mut random = StdRng::seed_from_u64(1);
    let noise: Vec<u8> = (0..5000).map(|_| random.random()).collect();
    for other in [&noise, &b"\x7fELF\x02\x01\x01\0\0\0\0"[..], &whole[1..]] {
        let told = message(other, TraceFormat::Auto);
        assert!(told.contains("neither lines of text nor records"), "{told}");
    }
}

#[test]
fn policies_are_those_of_a_cache_of_that_size_but_for_rounding() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("reference.csv");
    let text = "trace,mode,cache_size,algo,n_req,n_miss\n\
                a,byte,10000,sieve,50,20\na,byte,10000,arc,50,19\na,byte,10000,lirs,50,\n\
                a,byte,20000,arc,50,9\na,obj,10000,arc,50,8\nb,byte,10000,arc,50,7\n";
    std::fs::write(&path, text).unwrap();
    let reference = Reference::read(&path).unwrap();
    let of = |requests, size| reference.policies(("a", requests), Mode::Byte, size);
    let both = [("arc".to_owned(), 19), ("sieve".to_owned(), 20)].into();
    for size in [9990, 10_000, 10_010] {
        assert_eq!(of(50, size), both, "{size}");
    }
    assert!(of(50, 9980).is_empty() && of(50, 10_020).is_empty() && of(49, 10_000).is_empty());
    assert_eq!(reference.misses(("a", 50), Mode::Byte, 10_000), Some(20));
    assert_eq!(reference.misses(("a", 50), Mode::Byte, 20_000), None);
}

#[test]
fn trace_errors_name_their_line() {
    let long = "9".repeat(5000);
    let bad: [(&[u8], &str); 11] = [
        (b"", "trace.csv: holds nothing to read"),
        (b"key,size\n", "trace.csv: holds nothing to read"),
        (b"a\n", "trace.csv:1: not key,size nor time,key,size: \"a\""),
        (b"a,1\nb\n", "trace.csv:2: not key,size nor time,key,size: \"b\""),
        (b"a,1\n\nb,1\n", "trace.csv:2: not key,size nor time,key,size: \"\""),
        (b"a,1\n1,b,1\n", "trace.csv:2: not key,size nor time,key,size: \"1,b,1\""),
        (b"1,a,1\n1,b\n", "trace.csv:2: a column is missing: \"1,b\""),
        (b"a,-1", "trace.csv:1: the size is not a whole number of bytes: \"a,-1\""),
        (b"a,18446744073709551616", "trace.csv:1: the size is not a whole number of bytes"),
        (b"a,1\n\xff,1\n", "trace.csv:2: not UTF-8: \"\\xff,1\""),
        (long.as_bytes(), "trace.csv:1: line too long: \"9999"),
    ];
    for (text, message) in bad {
        let error = parsed(text, &Layout::default()).unwrap_err().to_string();
        assert!(error.starts_with(message), "{error}, not {message}");
        assert!(error.len() < 200, "{error}");
    }
    let unnamed = parsed(b"a,b,c\n1,2,3\n", &Layout::default()).unwrap_err().to_string();
    assert!(unnamed.starts_with("trace.csv:1: a header that names no id"), "{unnamed}");
    for columns in ["", "id", "id=0", "id=1,id=2", "size=1", "id=1,size=x", "id=1,time=2"] {
        assert!(columns.parse::<Columns>().is_err(), "{columns}");
    }
}
