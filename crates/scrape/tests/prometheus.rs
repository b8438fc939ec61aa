//! A real Prometheus scrapes a cache on the loopback address, and is asked for what it has.
//! `promtool` checks the text.
//!
//! Without the Debian package `prometheus` the second half prints that, and is skipped.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{fs, thread};

use tamis::{
    BlobCache, BlobCacheConfig, BlobCacheMetrics, BlobCachePolicy, BlobCachePut, CacheError,
    L1Admission,
};
use tokio::net::TcpListener;

const PATIENCE: Duration = Duration::from_secs(60);

/// Ends the server with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The body of an answer; None if nobody answers.
fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned())
}

/// The value of a query that has one result, once the server has it.
fn query(port: u16, query: &str) -> f64 {
    let path = format!(
        "/api/v1/query?query={}",
        query.replace('{', "%7B").replace('}', "%7D").replace('"', "%22")
    );
    let started = Instant::now();
    loop {
        let answer = get(port, &path).unwrap_or_default();
        // "value":[1700000000.123,"42"]
        if let Some((_, value)) = answer.split_once("\"value\":[") {
            let value = value.split('"').nth(1).unwrap();
            return value.parse().unwrap();
        }
        assert!(started.elapsed() < PATIENCE, "{query}: {answer}");
        thread::sleep(Duration::from_millis(200));
    }
}

async fn used(folder: &Path) -> BlobCache {
    let config = BlobCacheConfig::builder().l1_bytes_max(1 << 20);
    let config = config.l2(folder, |l2| l2.bytes_max(8 << 20).segment_bytes(1 << 20));
    let cache = BlobCache::open(config.build().unwrap()).await.unwrap();
    let below = BlobCachePolicy::default().l1_admission(L1Admission::Never);
    let on_disk = BlobCachePut::new("below").with_policy(below);
    cache.put("pages", "below", on_disk).await.unwrap();
    cache.put("pages", "key", "value").await.unwrap();
    for _ in 0..5 {
        cache.get("pages", "key").await.unwrap();
    }
    cache.get("pages", "below").await.unwrap();
    let render = || async { Ok::<_, CacheError>(BlobCachePut::new("fetched")) };
    cache.get_or_fetch("pages", "fetched", render).await.unwrap();
    cache.sync().await.unwrap();
    cache
}

/// Has no complaint.
fn promtool_accepts(text: &str) {
    let mut checking = Command::new("promtool");
    let checking = checking.args(["check", "metrics"]).stdin(Stdio::piped());
    let mut checking = checking.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    checking.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = checking.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.trim().is_empty(), "promtool: {said}");
}

/// A server that scrapes a port each second, and its own port.
fn prometheus(folder: &Path, port: u16) -> (Server, u16) {
    let server_port = {
        let free = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        free.local_addr().unwrap().port()
    };
    let config = folder.join("prometheus.yml");
    let scrape = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: tamis, static_configs: \
         [{{targets: ['127.0.0.1:{port}']}}]}}]\n"
    );
    fs::write(&config, scrape).unwrap();
    let server = Command::new("prometheus")
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", folder.join("tsdb").display()))
        .arg(format!("--web.listen-address=127.0.0.1:{server_port}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (Server(server), server_port)
}

#[test]
fn prometheus_reads_what_the_cache_counts() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let handle = tamis_scrape::install().unwrap();
    let (cache, port) = runtime.block_on(async {
        let cache = used(folder.path()).await;
        let metrics = BlobCacheMetrics::new(&cache, "test").with_namespaces(["pages"]);
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(tamis_scrape::serve(listener, handle, metrics));
        (cache, port)
    });
    let text = get(port, "/metrics").unwrap();
    for line in [
        "# TYPE tamis_hits_total counter",
        "tamis_hits_total{cache=\"test\"} 6",
        "tamis_l2_hits_total{cache=\"test\"} 1",
        "tamis_namespace_hits_total{cache=\"test\",namespace=\"pages\"} 6",
        "tamis_namespace_misses_total{cache=\"test\",namespace=\"pages\"} 1",
        "tamis_l1_bytes_max{cache=\"test\"} 1048576",
        "tamis_get_seconds_count{cache=\"test\",tier=\"l2\"} 1",
        "tamis_put_seconds_count{cache=\"test\"} 2",
        "tamis_fetch_seconds_count{cache=\"test\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    for operation in ["sync", "write"] {
        let name =
            format!("tamis_flush_seconds_count{{cache=\"test\",operation=\"{operation}\"}} ");
        let count = text.lines().find_map(|line| line.strip_prefix(&name));
        assert!(count.is_some_and(|count| count.parse::<u64>().unwrap() > 0), "{name}: {text}");
    }
    // Every figure, with its help.
    for figure in cache.stats().figures() {
        let help = format!("# HELP {} {}", figure.export_name(), figure.help());
        assert!(text.lines().any(|found| found == help), "{help} is not in\n{text}");
    }
    // A second scrape tells nothing twice.
    let again = get(port, "/metrics").unwrap();
    assert!(again.contains("tamis_put_seconds_count{cache=\"test\"} 2\n"), "{again}");
    assert!(again.contains("namespace=\"pages\"} 6\n"), "{again}");
    assert!(get(port, "/other").unwrap().is_empty());

    if Command::new("promtool").arg("--version").output().is_err() {
        println!("skipped: there is no promtool; install the package prometheus");
        return;
    }
    promtool_accepts(&text);
    let (_server, server_port) = prometheus(folder.path(), port);
    assert!((query(server_port, "up{job=\"tamis\"}") - 1.0).abs() < 0.1);
    let stats = cache.stats();
    for (asked, wanted) in [
        ("tamis_hits_total{cache=\"test\"}", 6.0),
        ("tamis_l2_write_bytes_total", stats.l2_write_bytes() as f64),
        ("tamis_namespace_hits_total{namespace=\"pages\"}", 6.0),
        ("tamis_l2_state", 1.0),
        ("tamis_put_seconds_count", 2.0),
        ("tamis_get_seconds_count{tier=\"l2\"}", 1.0),
    ] {
        let found = query(server_port, asked);
        assert!((found - wanted).abs() < 1e-9, "{asked}: {found}, not {wanted}");
    }
    runtime.block_on(cache.close()).unwrap();
}
