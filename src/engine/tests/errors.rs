//! The `# Errors` section of each public call names exactly the errors that the call can return:
//! every call is run under every fault, and its errors are compared with its section.

mod opening;
mod spawned;
mod typed;
mod unchanged;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::FutureExt;
use futures::executor::block_on;
use futures::future::BoxFuture;

use super::bench::{Bench, config};
use crate::cache::BlobCache;
use crate::config::BlobCacheConfig;
use crate::error::{CacheError, FetchError};
use crate::fetch_policy::FetchPolicy;
use crate::io::{Fault, OperationKind};
use crate::modes::L1Admission;
use crate::policy::BlobCachePolicy;
use crate::put::BlobCachePut;

pub(super) type Variants = BTreeSet<String>;

pub(super) type Documented = BTreeMap<String, Variants>;

const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src");

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let items = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    let (folders, files): (Vec<_>, Vec<_>) = items.partition(|path| path.is_dir());
    let rust = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "rs");
    let inside = folders.iter().flat_map(|folder| rust_files(folder));
    files.into_iter().filter(rust).chain(inside).collect()
}

/// The identifiers that follow a mark in a text.
fn words_after(text: &str, mark: &str) -> Variants {
    let is_end = |letter: char| !letter.is_ascii_alphanumeric() && letter != '_';
    let word = |rest: &str| rest.split(is_end).next().unwrap_or_default().to_owned();
    text.split(mark).skip(1).map(word).collect()
}

/// The text of the `# Errors` section of a doc comment.
fn errors_section(docs: &str) -> Option<&str> {
    let section = docs.split("# Errors").nth(1)?;
    section.split("\n# ").next()
}

/// The `# Errors` sections of all public calls of the public types.
fn sections() -> BTreeMap<String, String> {
    let types = ["BlobCache", "BlobCacheNamespace", "BlobCacheConfigBuilder", "TypedNamespace"];
    let mut sections = BTreeMap::new();
    for path in rust_files(Path::new(SOURCE)) {
        let text = fs::read_to_string(&path).unwrap();
        for block in text.split("\nimpl").skip(1) {
            let Some((head, body)) = block.split_once(" {\n") else { continue };
            let head = head.trim_end_matches("<T, C>");
            let name = head.rsplit(' ').next().unwrap();
            if types.contains(&name) && !head.contains(" for ") {
                sections_of(name, body.split("\n}\n").next().unwrap(), &mut sections);
            }
        }
    }
    sections
}

fn sections_of(name: &str, block: &str, sections: &mut BTreeMap<String, String>) {
    let mut docs = String::new();
    let mut lines = block.lines().map(str::trim);
    while let Some(line) = lines.next() {
        if let Some(doc) = line.strip_prefix("///") {
            docs.push_str(doc.trim());
            docs.push('\n');
        } else if line.starts_with("pub fn ") || line.starts_with("pub async fn ") {
            let call = words_after(line, "fn ").pop_first().unwrap();
            let mut signature = line.to_owned();
            while !signature.ends_with('{') {
                signature.push_str(lines.next().unwrap());
            }
            if ["CacheError>", "FetchError<", "TypedError<"].iter().any(|it| signature.contains(it))
            {
                let section = errors_section(&docs).unwrap_or_default().to_owned();
                sections.insert(format!("{name}::{call}"), section);
            }
            docs.clear();
        } else if !line.starts_with("#[") {
            docs.clear();
        }
    }
}

/// The variants that a section names, directly or as "those of" another call.
fn named(call: &str, sections: &BTreeMap<String, String>) -> Variants {
    let section = sections[call].replace('\n', " ");
    let mut variants = words_after(&section, "(CacheError::");
    variants.append(&mut words_after(&section, "[`CacheError::"));
    variants.append(&mut words_after(&section, "[`FetchError::"));
    variants.append(&mut words_after(&section, "[`TypedError::"));
    for other in section.split("hose of [`").skip(1) {
        let other = other.split('`').next().unwrap();
        let own_type = call.split("::").next().unwrap();
        let other =
            if other.contains("::") { other.to_owned() } else { format!("{own_type}::{other}") };
        variants.append(&mut named(&other, sections));
    }
    variants
}

pub(super) fn documented() -> Documented {
    let sections = sections();
    sections.keys().map(|call| (call.clone(), named(call, &sections))).collect()
}

pub(super) fn variant(error: &impl std::fmt::Debug) -> String {
    let shown = format!("{error:?}");
    shown.split(|letter: char| !letter.is_ascii_alphanumeric()).next().unwrap().to_owned()
}

#[derive(Clone)]
struct Given {
    namespace: String,
    key: Vec<u8>,
    labels: Vec<String>,
    put: BlobCachePut,
}

impl Default for Given {
    fn default() -> Self {
        let put = BlobCachePut::new("value").with_tags(["label"]).with_dependencies(["label"]);
        Self { namespace: "a".into(), key: b"k".into(), labels: vec!["label".into()], put }
    }
}

type Call = fn(BlobCache, Given) -> BoxFuture<'static, Option<CacheError>>;

/// All public calls that return a [`CacheError`], except constructors of a cache.
const CALLS: &[(&str, Call)] = &[
    ("BlobCache::put", |cache, it| {
        async move { cache.put(&it.namespace, &it.key, it.put).await.err() }.boxed()
    }),
    ("BlobCache::touch", |cache, it| {
        let policy = BlobCachePolicy::default();
        async move { cache.touch(&it.namespace, &it.key, &policy).await.err() }.boxed()
    }),
    ("BlobCache::invalidate_key", |cache, it| {
        async move { cache.invalidate_key(&it.namespace, &it.key).await.err() }.boxed()
    }),
    ("BlobCache::invalidate_prefix", |cache, it| {
        async move { cache.invalidate_prefix(&it.namespace, &it.key).await.err() }.boxed()
    }),
    ("BlobCache::invalidate_tags", |cache, it| {
        async move { cache.invalidate_tags(&["a", &it.namespace], &it.labels).await.err() }.boxed()
    }),
    ("BlobCache::invalidate_dependencies", |cache, it| {
        async move { cache.invalidate_dependencies(&it.namespace, &it.labels).await.err() }.boxed()
    }),
    ("BlobCache::invalidate_namespace", |cache, it| {
        async move { cache.invalidate_namespace(&it.namespace).await.err() }.boxed()
    }),
    ("BlobCache::invalidate_all", |cache, _| {
        async move { cache.invalidate_all().await.err() }.boxed()
    }),
    ("BlobCache::expire_key", |cache, it| {
        async move { cache.expire_key(&it.namespace, &it.key).await.err() }.boxed()
    }),
    ("BlobCache::expire_prefix", |cache, it| {
        async move { cache.expire_prefix(&it.namespace, &it.key).await.err() }.boxed()
    }),
    ("BlobCache::expire_tags", |cache, it| {
        async move { cache.expire_tags(&["a", &it.namespace], &it.labels).await.err() }.boxed()
    }),
    ("BlobCache::expire_dependencies", |cache, it| {
        async move { cache.expire_dependencies(&it.namespace, &it.labels).await.err() }.boxed()
    }),
    ("BlobCache::expire_namespace", |cache, it| {
        async move { cache.expire_namespace(&it.namespace).await.err() }.boxed()
    }),
    ("BlobCache::put_many", |cache, it| {
        async move { cache.put_many(&it.namespace, [(&it.key, it.put)]).await.remove(0).err() }
            .boxed()
    }),
    ("BlobCache::invalidate_keys", |cache, it| {
        async move { cache.invalidate_keys(&it.namespace, &[&b"k"[..], &it.key[..]]).await.err() }
            .boxed()
    }),
    ("BlobCache::set_l1_bytes_max", |cache, it| {
        async move { cache.set_l1_bytes_max(size_of(&it)).await.err() }.boxed()
    }),
    ("BlobCache::set_l2_bytes_max", |cache, it| {
        async move { cache.set_l2_bytes_max(size_of(&it) as u64).await.err() }.boxed()
    }),
    ("BlobCache::sync", |cache, _| async move { cache.sync().await.err() }.boxed()),
    ("BlobCache::close", |cache, _| async move { cache.close().await.err() }.boxed()),
    ("BlobCacheNamespace::put", |cache, it| {
        async move { cache.namespace(&it.namespace).put(&it.key, it.put).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::touch", |cache, it| {
        let policy = BlobCachePolicy::default();
        async move { cache.namespace(&it.namespace).touch(&it.key, &policy).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::invalidate_key", |cache, it| {
        async move { cache.namespace(&it.namespace).invalidate_key(&it.key).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::put_many", |cache, it| {
        let handle = cache.namespace(&it.namespace);
        async move { handle.put_many([(&it.key, it.put)]).await.remove(0).err() }.boxed()
    }),
    ("BlobCacheNamespace::invalidate_keys", |cache, it| {
        let handle = cache.namespace(&it.namespace);
        async move { handle.invalidate_keys(&[&it.key]).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::invalidate_prefix", |cache, it| {
        async move { cache.namespace(&it.namespace).invalidate_prefix(&it.key).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::invalidate_tags", |cache, it| {
        async move { cache.namespace(&it.namespace).invalidate_tags(&it.labels).await.err() }
            .boxed()
    }),
    ("BlobCacheNamespace::invalidate_dependencies", |cache, it| {
        let handle = cache.namespace(&it.namespace);
        async move { handle.invalidate_dependencies(&it.labels).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::expire_key", |cache, it| {
        async move { cache.namespace(&it.namespace).expire_key(&it.key).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::expire_prefix", |cache, it| {
        async move { cache.namespace(&it.namespace).expire_prefix(&it.key).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::expire_tags", |cache, it| {
        async move { cache.namespace(&it.namespace).expire_tags(&it.labels).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::expire_dependencies", |cache, it| {
        let handle = cache.namespace(&it.namespace);
        async move { handle.expire_dependencies(&it.labels).await.err() }.boxed()
    }),
    ("BlobCacheNamespace::expire", |cache, it| {
        async move { cache.namespace(&it.namespace).expire().await.err() }.boxed()
    }),
    ("BlobCacheNamespace::invalidate", |cache, it| {
        async move { cache.namespace(&it.namespace).invalidate().await.err() }.boxed()
    }),
];

fn size_of(given: &Given) -> usize {
    if given.key.len() == 1 { 1 << 20 } else { 1 }
}

/// A cache with an entry on disk for [`Given::default`], of version 9.
fn bench(set: impl FnOnce(&mut BlobCacheConfig)) -> Bench {
    let mut config = config(64);
    set(&mut config);
    let mut bench = Bench::with(1, config);
    let cache = bench.cache();
    let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never).version(9);
    bench.run(cache.put("a", "k", Given::default().put.with_policy(policy))).unwrap();
    bench.run(cache.sync()).unwrap();
    bench
}

/// Arguments over a limit, one at a time.
fn beyond_limits() -> Vec<Given> {
    let usual = Given::default;
    // The first one is known.
    let numbers = (1..1000).map(|number| number.to_string());
    let many: Vec<String> = usual().labels.into_iter().chain(numbers).collect();
    let pairs = many.iter().map(|name| (name.clone(), "value"));
    let large = usual().put.with_policy(BlobCachePolicy::default().max_blob_bytes(1));
    vec![
        Given { namespace: "n".repeat(1000), ..usual() },
        Given { key: vec![7; 1000], ..usual() },
        Given { labels: many.clone(), put: usual().put.with_tags(many.clone()), ..usual() },
        Given { put: usual().put.with_content_metadata(pairs), ..usual() },
        Given { put: BlobCachePut::from(vec![7; 1 << 20]), ..usual() },
        Given { put: large, ..usual() },
    ]
}

/// Runs a call under every fault in turn, and collects its errors.
fn errors_of(call: Call) -> Variants {
    let mut errors: Vec<Option<CacheError>> = Vec::new();
    let mut meet = |mut bench: Bench, given: Given| {
        let cache = bench.cache();
        errors.push(bench.run(call(cache, given)));
    };
    let versioned = || {
        let policy = BlobCachePolicy::default().version(3);
        Given { put: Given::default().put.with_policy(policy), ..Given::default() }
    };
    beyond_limits().into_iter().for_each(|given| meet(bench(|_| {}), given));
    meet(bench(|_| {}), versioned());
    let unreadable = bench(|_| {});
    unreadable.disk.fail(OperationKind::Read, 0, Fault::Io, false);
    meet(unreadable, versioned());
    let crowded = bench(|config| config.max_namespaces = 1);
    meet(crowded, Given { namespace: "another".into(), ..Given::default() });
    let full = bench(|_| {});
    full.disk.fail(OperationKind::Resize, 0, Fault::NoSpace, false);
    meet(full, Given::default());
    let mut off = bench(|_| {});
    off.disk.fail(OperationKind::Write, 0, Fault::NoSpace, true);
    let cache = off.cache();
    off.run(cache.put("a", "fresh", "value")).unwrap();
    off.run(cache.sync()).unwrap_err();
    meet(off, Given::default());
    let mut closed = bench(|_| {});
    let cache = closed.cache();
    closed.run(cache.close()).unwrap();
    meet(closed, Given::default());
    errors.push(error_in_a_fork(call));
    errors.iter().flatten().map(variant).collect()
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

fn on_file(folder: &Path) -> BlobCacheConfig {
    let builder = BlobCacheConfig::builder().l1_bytes_max(1 << 20).l2_path(folder);
    builder.l2_bytes_max(1 << 20).l2_segment_bytes(256 << 10).build().unwrap()
}

fn error_in_a_fork(call: Call) -> Option<CacheError> {
    let folder = folder();
    let cache = block_on(BlobCache::open(on_file(folder.path()))).unwrap();
    block_on(cache.put("a", "k", Given::default().put)).unwrap();
    block_on(cache.sync()).unwrap();
    let file = cache.engine.parts.disk.file().unwrap();
    file.set_forked(true);
    let error = block_on(call(cache.clone(), Given::default()));
    file.set_forked(false);
    error
}

#[test]
fn the_errors_of_every_call_are_exactly_those_in_its_docs() {
    let documented = documented();
    for &(name, call) in CALLS {
        assert_eq!(errors_of(call), documented[name], "{name}, returned and documented");
    }
    // Tested separately below.
    let others = [
        "BlobCache::open",
        "BlobCache::reopen_l2",
        "BlobCache::backup",
        "BlobCache::save_position",
        "BlobCache::get_or_fetch",
        "BlobCache::get_or_refresh",
        "BlobCache::get_or_fetch_spawned",
        "BlobCache::get_or_refresh_spawned",
        "BlobCacheNamespace::get_or_fetch",
        "BlobCacheNamespace::get_or_refresh",
        "BlobCacheNamespace::get_or_fetch_spawned",
        "BlobCacheNamespace::get_or_refresh_spawned",
        "BlobCacheNamespace::with_fetch_policy",
        "BlobCacheConfigBuilder::build",
    ];
    let met: BTreeSet<&str> = CALLS.iter().map(|(name, _)| *name).chain(others).collect();
    let calls = documented.keys().map(String::as_str);
    let calls: BTreeSet<&str> = calls.filter(|name| !name.starts_with("TypedNamespace")).collect();
    assert_eq!(met, calls, "met, and public");
}

#[test]
fn every_error_variant_is_documented_by_a_call() {
    let text = fs::read_to_string(format!("{SOURCE}/error.rs")).unwrap();
    let body = text.split("pub enum CacheError {").nth(1).unwrap().split("\n}\n").next().unwrap();
    let is_variant = |line: &&str| {
        let code = line.strip_prefix("    ").unwrap_or_default();
        code.starts_with(|letter: char| letter.is_ascii_uppercase())
    };
    let name = |line: &str| line.trim().trim_end_matches([',', '{', ' ']).to_owned();
    let variants: Variants = body.lines().filter(is_variant).map(name).collect();
    let documented: Variants = documented().into_values().flatten().collect();
    let fetch = ["Fetch", "Panicked", "TimedOut", "NoSpawner"];
    let others = fetch.into_iter().chain(typed::OWN).map(str::to_owned);
    assert!(variants.len() > 10, "{variants:?}");
    assert_eq!(documented, variants.into_iter().chain(others).collect());
}

#[test]
fn the_errors_of_a_fetch_are_exactly_those_in_its_docs() {
    let cache = block_on(BlobCache::open(BlobCacheConfig::default())).unwrap();
    let handle = cache.namespace("n");
    let brief = FetchPolicy::default().hard_timeout(Duration::from_millis(1));
    let hangs = || std::future::pending::<Result<BlobCachePut, &'static str>>();
    let config = BlobCacheConfig::builder().fetch_policy(brief).build().unwrap();
    let hasty = block_on(BlobCache::open(config)).unwrap();
    let fails = || async { Err::<BlobCachePut, _>("on purpose") };
    let panics = || async { panic!("on purpose") };
    type Outcomes = [Result<(), FetchError<&'static str>>; 3];
    let calls: [(&str, Outcomes); 4] = block_on(async {
        [
            (
                "BlobCache::get_or_fetch",
                [
                    cache.get_or_fetch("n", "k", fails).await.map(drop),
                    cache.get_or_fetch("n", "k", panics).await.map(drop),
                    hasty.get_or_fetch("n", "k", hangs).await.map(drop),
                ],
            ),
            (
                "BlobCache::get_or_refresh",
                [
                    cache.get_or_refresh("n", "k", fails).await.map(drop),
                    cache.get_or_refresh("n", "k", panics).await.map(drop),
                    hasty.get_or_refresh("n", "k", hangs).await.map(drop),
                ],
            ),
            (
                "BlobCacheNamespace::get_or_fetch",
                [
                    handle.get_or_fetch("k", fails).await.map(drop),
                    handle.get_or_fetch("k", panics).await.map(drop),
                    hasty.namespace("n").get_or_fetch("k", hangs).await.map(drop),
                ],
            ),
            (
                "BlobCacheNamespace::get_or_refresh",
                [
                    handle.get_or_refresh("k", fails).await.map(drop),
                    handle.get_or_refresh("k", panics).await.map(drop),
                    hasty.namespace("n").get_or_refresh("k", hangs).await.map(drop),
                ],
            ),
        ]
    });
    let documented = documented();
    for (name, outcomes) in calls {
        let errors = outcomes.map(|outcome| variant(&outcome.unwrap_err()));
        assert_eq!(Variants::from(errors), documented[name], "{name}, returned and documented");
    }
}
