//! `FetchError` in the error types of services: `?` compiles, and nothing that was said is lost.

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::sync::Arc;

use anyhow::Context;
use futures::executor::block_on;
use tamis::{BlobCache, BlobCacheHit, BlobCachePut, CacheError, FetchError};
use thiserror::Error;

use crate::{Call, open};

type Boxed = Box<dyn Error + Send + Sync>;

#[derive(Debug, Clone, PartialEq, Eq, Error)]
enum OriginError {
    #[error("the origin is down")]
    Down(#[source] Refused),
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("connection refused")]
struct Refused;

/// Calls whose fetch fails, in functions that answer any error.
macro_rules! with_question_mark {
    ($cache:expr, $fail:expr) => {{
        async fn into_anyhow(cache: &BlobCache) -> anyhow::Result<BlobCacheHit> {
            Ok(cache.get_or_fetch("n", "key", || async { Err($fail) }).await?)
        }
        async fn into_box(cache: &BlobCache) -> Result<BlobCacheHit, Boxed> {
            Ok(cache.get_or_fetch("n", "key", || async { Err($fail) }).await?)
        }
        async fn into_local_box(cache: &BlobCache) -> Result<BlobCacheHit, Box<dyn Error>> {
            Ok(cache.get_or_fetch("n", "key", || async { Err($fail) }).await?)
        }
        let boxed = block_on(into_box($cache)).unwrap_err().to_string();
        let local = block_on(into_local_box($cache)).unwrap_err().to_string();
        let error = block_on(into_anyhow($cache)).unwrap_err();
        assert_eq!((&boxed, &local), (&error.to_string(), &error.to_string()));
        error
    }};
}

fn causes(error: &anyhow::Error) -> Vec<String> {
    error.chain().map(ToString::to_string).collect()
}

#[test]
fn errors_of_the_system_keep_their_source() {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let error = with_question_mark!(&open(), io::Error::from(io::ErrorKind::ConnectionRefused));
    assert_eq!(causes(&error), [format!("the fetch failed: {}", refused())]);
    assert!(error.downcast_ref::<FetchError<io::Error>>().is_some());
    let error = with_question_mark!(&open(), CacheError::Closed);
    assert_eq!(format!("{error:#}"), "the fetch failed: the cache is closed");
    let error = with_question_mark!(&open(), io::Error::other(OriginError::Down(Refused)));
    assert_eq!(format!("{error:#}"), "the fetch failed: the origin is down: connection refused");
}

#[test]
fn errors_that_hold_any_error_convert() {
    let error = with_question_mark!(&open(), Boxed::from(OriginError::Down(Refused)));
    let said = ["the fetch failed: the origin is down", "connection refused"];
    assert_eq!(causes(&error), said);
    let error = with_question_mark!(&open(), anyhow::Error::new(Refused).context("page 7"));
    assert_eq!(error.to_string(), "the fetch failed: page 7: connection refused");
    let error = with_question_mark!(&open(), String::from("no page 7"));
    assert_eq!(causes(&error), ["the fetch failed: no page 7"]);
}

#[test]
fn an_enum_converts_and_has_its_sources_on_request() {
    let error = with_question_mark!(&open(), OriginError::Down(Refused));
    assert_eq!(causes(&error), ["the fetch failed: the origin is down"]);
    let fail = || async { Err(OriginError::Down(Refused)) };
    let failed = block_on(open().get_or_fetch("n", "key", fail));
    let error = failed.map_err(FetchError::with_sources).context("as asked").unwrap_err();
    let said = ["as asked", "the fetch failed", "the origin is down", "connection refused"];
    assert_eq!(causes(&error), said);
    assert!(error.chain().any(|cause| cause.is::<Refused>()));
}

#[test]
fn the_error_of_the_fetch_comes_out() {
    let cache = open();
    let fail = || async { Err(OriginError::Down(Refused)) };
    let error = block_on(cache.get_or_fetch("n", "key", fail)).unwrap_err();
    assert_eq!(error.inner(), Some(&OriginError::Down(Refused)));
    let inner = error.into_inner().unwrap();
    assert_eq!(Arc::into_inner(inner), Some(OriginError::Down(Refused)), "held by nobody else");
    let panics =
        || async { if true { panic!("as planned") } else { Ok::<_, Refused>("v".into()) } };
    let error = block_on(cache.get_or_fetch("n", "key", panics)).unwrap_err();
    assert!(error.inner().is_none() && error.clone().into_inner().is_none());
    assert!(error.with_sources().source().is_none());
}

/// What the documents say to write.
#[test]
fn types_are_inferred_where_the_result_names_them() {
    async fn named(cache: &BlobCache) -> Result<BlobCacheHit, FetchError<OriginError>> {
        cache.get_or_fetch("n", "key", || async { Ok("value".into()) }).await
    }
    async fn never_fails(cache: &BlobCache) -> anyhow::Result<BlobCacheHit> {
        let fetch = || async { Ok::<_, Infallible>(BlobCachePut::new("value")) };
        Ok(cache.get_or_fetch("n", "other", fetch).await?)
    }
    async fn by_question_mark(cache: &BlobCache) -> anyhow::Result<BlobCacheHit> {
        let fetch = || async {
            let page = std::str::from_utf8(b"value")?;
            anyhow::Ok(page.into())
        };
        Ok(cache.get_or_fetch("n", "third", fetch).await?)
    }
    let cache = open();
    let hits = [
        block_on(named(&cache)).unwrap(),
        block_on(never_fails(&cache)).unwrap(),
        block_on(by_question_mark(&cache)).unwrap(),
    ];
    assert!(hits.iter().all(|hit| hit.value() == b"value"));
    // Any E that can be shared between threads will do; only `?` needs it to be shown.
    struct Silent;
    let mut call =
        Call::new(async move { cache.get_or_fetch("n", "silent", || async { Err(Silent) }).await });
    assert!(matches!(call.run().unwrap(), Err(FetchError::Fetch(_))));
}
