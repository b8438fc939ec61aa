//! `settings`: a configuration as JSON, each setting under the name of its setter.

use std::time::Duration;

use crate::config::BlobCacheConfig;
use crate::fetch_policy::FetchPolicy;
use crate::json_text::{JsonObject, quoted};

/// All settings but the clock. Functions and executors are told by whether there is one, quotas and
/// namespaces by their number: the quota of a namespace is told with its figures.
pub(super) fn settings(config: &BlobCacheConfig) -> String {
    let object = of_disk(config, of_memory(config, JsonObject::new()));
    object
        .json("fetch_policy", &fetch_policy(config.fetch_policy))
        .flag("spawner", config.spawner.is_some())
        .size("spawned_fetches_max", config.spawned_fetches_max)
        .text("background_sweep", &config.background_sweep.to_string())
        .size("quotas", config.quotas.len())
        .size("namespaces", config.namespaces.len())
        .end()
}

fn of_memory(config: &BlobCacheConfig, object: JsonObject) -> JsonObject {
    object
        .size("l1_bytes_max", config.l1_bytes_max)
        .size("max_namespaces", config.max_namespaces)
        .size("content_metadata_keys_max", config.content_metadata_keys_max)
        .size("content_metadata_bytes_max", config.content_metadata_bytes_max)
        .size("key_bytes_max", config.key_bytes_max)
        .size("labels_max", config.labels_max)
        .size("label_bytes_max", config.label_bytes_max)
        .size("shard_count", config.shard_count)
        .flag("l1_charge", config.charge.is_some())
        .integer("key_hash_bits", config.key_hash_bits)
}

fn of_disk(config: &BlobCacheConfig, object: JsonObject) -> JsonObject {
    let path = config.l2_path.as_ref().map(|path| quoted(&path.to_string_lossy()));
    let rate = config.l2_write_rate_max.map(|rate| {
        JsonObject::new()
            .integer("bytes_per_second", rate.bytes_per_second)
            .integer("burst_bytes", rate.burst_bytes)
            .end()
    });
    object
        .optional("l2_path", path)
        .flag("l2_required", config.l2_required)
        .flag("l2_status_socket", config.l2_status_socket)
        .integer("l2_bytes_max", config.l2_bytes_max)
        .integer("l2_segment_bytes", config.l2_segment_bytes)
        .size("l2_index_bytes_max", config.l2_index_bytes_max)
        .size("l2_read_bytes_max", config.l2_read_bytes_max)
        .text("l2_engine", &config.l2_engine.to_string())
        .text("l2_compression", &config.l2_compression.to_string())
        .text("l2_admission", &config.l2_admission.to_string())
        .text("l2_promotion_policy", &config.l2_promotion_policy.to_string())
        .flag("l2_second_chances", config.l2_second_chances)
        .integer("l2_write_amplification_pct_max", config.l2_write_amplification_pct_max)
        .optional("l2_write_rate_max", rate)
        .size("promotion_queue_max", config.promotion_queue_max)
        .text("crash_safety", &config.crash_safety.to_string())
}

fn fetch_policy(policy: FetchPolicy) -> String {
    let FetchPolicy { hard_timeout, retry_after, soft_timeout, refresh_ahead } = policy;
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64().to_string());
    JsonObject::new()
        .optional("hard_timeout_seconds", seconds(hard_timeout))
        .optional("retry_after_seconds", seconds(retry_after))
        .optional("soft_timeout_seconds", seconds(soft_timeout))
        .optional("refresh_ahead", refresh_ahead.map(|share| share.share().to_string()))
        .end()
}
