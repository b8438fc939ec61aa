//! `Status`: answers the clients of the store's status socket, from the same figures as everything
//! else. It changes nothing, visits no entry and runs no code of the user.

mod settings;

use std::process;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::settings::settings;
use crate::config::BlobCacheConfig;
use crate::engine::parts::Parts;
use crate::engine::stats::StatsReader;
use crate::figures::Figure;
use crate::io::StatusAnswers;
use crate::json_text::{JsonObject, list, quoted};
use crate::latency::Latency;
use crate::namespace::Namespaces;
use crate::stats::{BlobCacheStats, L2State, NamespaceStats};

/// Namespace slots in one answer: some 40 KiB, or 60 KiB if all of their names have the longest
/// length and nothing but control characters.
const SLOTS_AT_ONCE: usize = 32;

const UNKNOWN: &str = "there is no such request: ask for stats, namespaces (namespaces NUMBER goes \
                       on where an answer says next) or config";

pub(crate) struct Status {
    config: Arc<BlobCacheConfig>,
    namespaces: Arc<Namespaces>,
    stats: Arc<StatsReader>,
    opened: Instant,
}

impl Status {
    pub(crate) fn new(parts: &Parts, stats: &Arc<StatsReader>) -> Self {
        Self {
            config: Arc::clone(&parts.config),
            namespaces: Arc::clone(&parts.namespaces),
            stats: Arc::clone(stats),
            opened: Instant::now(),
        }
    }

    fn stats(&self) -> String {
        let stats = self.stats.all();
        let (state, reason) = match stats.l2_state() {
            L2State::Off => ("off", None),
            L2State::Healthy => ("healthy", None),
            L2State::Degraded { reason } => ("degraded", Some(quoted(&reason))),
        };
        let engine = stats.l2_engine().map(|engine| quoted(&engine.to_string()));
        let object = JsonObject::new()
            .text("version", env!("CARGO_PKG_VERSION"))
            .integer("pid", process::id())
            .number("uptime_seconds", self.opened.elapsed().as_secs_f64())
            .text("state", state)
            .optional("reason", reason)
            .optional("engine", engine)
            .json("figures", &figures(stats.figures()))
            .json("latencies", &latencies(&stats));
        answer("stats", &object.end())
    }

    fn namespaces(&self, from: usize) -> String {
        let mut found = Vec::with_capacity(SLOTS_AT_ONCE);
        let next = self.namespaces.in_slots(from, SLOTS_AT_ONCE, &mut found);
        let stats = |name: &str| self.stats.of_namespace(name);
        // One that was flushed since is left out.
        let known = found.iter().filter_map(|it| Some((it.name(), stats(it.name())?)));
        let namespaces = list(known.map(|(name, stats)| namespace(name, &stats)));
        let next = next.map(|next| next.to_string());
        JsonObject::new().json("namespaces", &namespaces).optional("next", next).end()
    }
}

impl StatusAnswers for Status {
    fn answer(&self, request: &str) -> String {
        let mut words = request.split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("stats"), None, _) => self.stats(),
            (Some("config"), None, _) => answer("config", &settings(&self.config)),
            (Some("namespaces"), None, _) => self.namespaces(0),
            (Some("namespaces"), Some(from), None) => {
                from.parse().map_or_else(|_| unknown(), |from| self.namespaces(from))
            }
            _ => unknown(),
        }
    }
}

fn answer(name: &str, json: &str) -> String {
    JsonObject::new().json(name, json).end()
}

fn unknown() -> String {
    let error = JsonObject::new().text("kind", "unknown_request").text("message", UNKNOWN);
    answer("error", &error.end())
}

/// Figures under their names for exporters.
fn figures(figures: impl Iterator<Item = Figure>) -> String {
    let add = |all: JsonObject, it: Figure| all.number(&it.export_name(), it.value());
    // Bounded: by the figures.
    figures.fold(JsonObject::new(), add).end()
}

fn latencies(stats: &BlobCacheStats) -> String {
    let latencies = stats.latencies();
    JsonObject::new()
        .json("l2_get", &latency(&latencies.l2_get()))
        .json("put", &latency(&latencies.put()))
        .json("fetch", &latency(&latencies.fetch()))
        .json("l2_write", &latency(&latencies.l2_write()))
        .json("l2_sync", &latency(&latencies.l2_sync()))
        .end()
}

/// With the buckets that are not empty: the upper bound in nanoseconds, null for the last one, and
/// the number of calls. So a client can tell the quantiles of what lies between two answers.
fn latency(latency: &Latency) -> String {
    let nanos = |bound: Duration| match bound {
        Duration::MAX => "null".to_owned(),
        bound => bound.as_nanos().to_string(),
    };
    let used = latency.buckets().filter(|(_, count)| *count > 0);
    let buckets = list(used.map(|(bound, count)| format!("[{},{count}]", nanos(bound))));
    JsonObject::new()
        .integer("count", latency.count())
        .number("sum_seconds", Latency::sum(latency).as_secs_f64())
        .json("buckets", &buckets)
        .end()
}

fn namespace(name: &str, stats: &NamespaceStats) -> String {
    let quota = stats.quota();
    let limits = JsonObject::new()
        .optional("l1_bytes_max", quota.l1_bytes_max.map(|bytes| bytes.to_string()))
        .optional("l2_bytes_max", quota.l2_bytes_max.map(|bytes| bytes.to_string()));
    JsonObject::new()
        .text("name", name)
        .json("figures", &figures(stats.figures()))
        .json("quota", &limits.end())
        .end()
}
