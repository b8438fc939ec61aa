//! The same suite over S3: `AmazonS3` and a server on loopback, whose process the test starts. The
//! server is `moto`'s, found by `TAMIS_MOTO` or on the path; without it the test says so, and ends.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use http_body_util::BodyExt;

use crate::common::integration::{Suite, cache, everything, settings};
use crate::object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use crate::object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpRequestBody,
    HttpResponse, HttpService,
};
use crate::object_store::integration::{
    list_paginated, multipart, multipart_out_of_order, multipart_put_part_out_of_order,
    multipart_race_condition, multipart_with_opts,
};
use crate::object_store::{ClientOptions, Result};

/// The server, until it is dropped.
struct Server {
    process: Child,
    endpoint: String,
}

impl Server {
    /// None if there is none; one that `TAMIS_MOTO` names must start.
    fn start() -> Option<Self> {
        let named = std::env::var("TAMIS_MOTO");
        let mut command = Command::new(named.as_deref().unwrap_or("moto_server"));
        command.args(["--host", "127.0.0.1", "--port", "0"]);
        let spawned = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
        let mut process = match spawned {
            Ok(process) => process,
            Err(error) if named.is_ok() => panic!("{command:?}: {error}"),
            Err(_) => return None,
        };
        let mut lines = BufReader::new(process.stderr.take().unwrap()).lines();
        let endpoint = lines.by_ref().find_map(|line| {
            let line = line.ok()?;
            let (_, endpoint) = line.split_once("Running on ")?;
            Some(endpoint.trim().to_owned())
        });
        // It logs each request.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { process, endpoint: endpoint.expect("it says where it runs") })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A client that blocks, in threads of the runtime: its tree is a small one.
#[derive(Debug, Clone)]
struct Http {
    agent: ureq::Agent,
    /// The server looks at a put's conditions, and puts, in two steps: one put at a time.
    putting: Arc<tokio::sync::Mutex<()>>,
}

impl Http {
    fn new() -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { agent, putting: Arc::default() }
    }
}

impl HttpConnector for Http {
    fn connect(&self, _: &ClientOptions) -> Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait::async_trait]
impl HttpService for Http {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        let is_put = head.method == ureq::http::Method::PUT;
        let _turn = if is_put { Some(self.putting.lock().await) } else { None };
        let agent = self.agent.clone();
        let call = tokio::task::spawn_blocking(move || {
            let response = agent.run(ureq::http::Request::from_parts(head, body))?;
            let (head, mut body) = response.into_parts();
            let body = body.with_config().limit(u64::MAX).read_to_vec()?;
            Ok((head, body))
        });
        let failed = |error: ureq::Error| HttpError::new(HttpErrorKind::Request, error);
        let (head, body) = call.await.unwrap().map_err(failed)?;
        Ok(HttpResponse::from_parts(head, body.into()))
    }
}

/// A bucket of its own.
async fn bucket(server: &Server, name: &str) -> AmazonS3 {
    let http = Http::new();
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = ureq::http::Method::PUT;
    *request.uri_mut() = format!("{}/{name}", server.endpoint).parse().unwrap();
    let made = http.call(request).await.unwrap();
    assert!(made.status().is_success(), "{made:?}");
    let builder = AmazonS3Builder::new().with_endpoint(&server.endpoint).with_allow_http(true);
    let builder = builder.with_bucket_name(name).with_region("us-east-1");
    let builder = builder.with_access_key_id("key").with_secret_access_key("secret");
    let builder = builder.with_conditional_put(S3ConditionalPut::ETagMatch);
    builder.with_http_connector(http).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_s3() {
    let Some(server) = Server::start() else {
        println!("there is no moto_server: the suite does not run over S3");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let s3 = Arc::new(bucket(&server, "objects").await);
    let cache = cache(Some(&folder)).await;
    let stores = settings(s3.clone(), &cache);
    for store in &stores {
        everything(store, Suite { copies_over: true, ..Suite::default() }).await;
        let stats = store.stats();
        assert!(stats.metas_fetched > 0 && stats.blocks_found > 0, "{stats:?}");
    }
    multipart_out_of_order(&stores[1]).await;
    multipart_race_condition(&stores[1], true).await;
    // These write to the inner store, or list it: the first wrapper asks each time.
    for _ in 0..2 {
        multipart(&stores[0], &*s3).await;
        multipart_with_opts(&stores[0], &*s3).await;
        multipart_put_part_out_of_order(&stores[0], &*s3).await;
        list_paginated(&stores[0], &*s3).await;
    }
    drop(stores);
    cache.close().await.unwrap();
}
