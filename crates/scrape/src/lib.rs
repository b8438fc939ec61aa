//! An endpoint for Prometheus over a cache: a few lines of HTTP, the exporter of the `metrics`
//! facade, and `BlobCacheMetrics::publish` at each scrape.

use std::io;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tamis::BlobCacheMetrics;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

/// Bounds of the buckets of all latencies, in seconds.
const BUCKETS: [f64; 12] =
    [5e-6, 2e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 1e-2, 5e-2, 0.25, 1.0, 10.0];

/// A client has so long for its request.
const PATIENCE: Duration = Duration::from_secs(5);

/// Installs the exporter as the recorder of the process.
///
/// # Errors
///
/// If there is a recorder already.
pub fn install() -> Result<PrometheusHandle, metrics_exporter_prometheus::BuildError> {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let builder = PrometheusBuilder::new().set_buckets_for_metric(seconds, &BUCKETS)?;
    builder.install_recorder()
}

/// Answers `GET /metrics` on a listener, without end.
///
/// # Errors
///
/// If the listener fails.
pub async fn serve(
    listener: TcpListener,
    handle: PrometheusHandle,
    metrics: BlobCacheMetrics,
) -> io::Result<()> {
    loop {
        let (client, _) = listener.accept().await?;
        // A client that is slow, or gone, is no reason to stop.
        let _ = timeout(PATIENCE, answer(client, &handle, &metrics)).await;
    }
}

async fn answer(
    client: TcpStream,
    handle: &PrometheusHandle,
    metrics: &BlobCacheMetrics,
) -> io::Result<()> {
    let mut client = BufReader::new(client);
    let (mut request, mut line) = (String::new(), String::new());
    client.read_line(&mut request).await?;
    // The headers, up to the empty line.
    while client.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let (status, body) = if request.starts_with("GET /metrics ") {
        metrics.publish();
        ("200 OK", handle.render())
    } else {
        ("404 Not Found", String::new())
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await?;
    client.write_all(body.as_bytes()).await?;
    client.shutdown().await
}
