//! The store that is measured against: requests take 20 ms, and are counted. And an LRU cache of
//! ranges in memory, as many services have one.

use std::fmt;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use lru::LruCache;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

/// What a request costs before its first byte.
const LATENCY: Duration = Duration::from_millis(20);

/// What a byte costs: 100 MB/s for each request.
const PER_BYTE: Duration = Duration::from_nanos(10);

/// All but gets go to the store inside.
macro_rules! object_store {
    ($name:ty, $($get:tt)*) => {
        #[async_trait]
        impl ObjectStore for $name {
        $($get)*

        async fn put_opts(
            &self,
            location: &Path,
            payload: PutPayload,
            opts: PutOptions,
        ) -> Result<PutResult> {
            self.inner.put_opts(location, payload, opts).await
        }

        async fn put_multipart_opts(
            &self,
            location: &Path,
            opts: PutMultipartOptions,
        ) -> Result<Box<dyn MultipartUpload>> {
            self.inner.put_multipart_opts(location, opts).await
        }

        fn delete_stream(
            &self,
            locations: BoxStream<'static, Result<Path>>,
        ) -> BoxStream<'static, Result<Path>> {
            self.inner.delete_stream(locations)
        }

        fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
            self.inner.list(prefix)
        }

        async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
            self.inner.list_with_delimiter(prefix).await
        }

        async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
            self.inner.copy_opts(from, to, options).await
        }
        }
    };
}

/// A store in memory that is as far away as one over a network.
#[derive(Debug)]
pub(crate) struct Origin {
    inner: ThrottledStore<InMemory>,
    requests: AtomicU64,
    bytes: AtomicU64,
}

impl Origin {
    pub(crate) fn new(inner: InMemory) -> Self {
        let config = ThrottleConfig {
            wait_get_per_call: LATENCY,
            wait_get_per_byte: PER_BYTE,
            wait_list_per_call: LATENCY,
            wait_list_with_delimiter_per_call: LATENCY,
            wait_put_per_call: LATENCY,
            ..ThrottleConfig::default()
        };
        let inner = ThrottledStore::new(inner, config);
        Self { inner, requests: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Gets, and the bytes that they were asked for, since the last time.
    pub(crate) fn take(&self) -> (u64, u64) {
        (self.requests.swap(0, Ordering::Relaxed), self.bytes.swap(0, Ordering::Relaxed))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Origin")
    }
}

object_store! { Origin,
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let is_head = options.head;
        let result = self.inner.get_opts(location, options).await?;
        let bytes = if is_head { 0 } else { result.range.end - result.range.start };
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(result)
    }
}

/// Answers by path and range, the least recently used ones first to go.
#[derive(Debug)]
pub(crate) struct Lru {
    inner: Arc<dyn ObjectStore>,
    bytes_max: usize,
    held: Mutex<(LruCache<(Path, Range<u64>), (ObjectMeta, Bytes)>, usize)>,
}

impl Lru {
    pub(crate) fn new(inner: Arc<dyn ObjectStore>, bytes_max: usize) -> Self {
        let entries = NonZeroUsize::new(1 << 20).unwrap_or(NonZeroUsize::MIN);
        Self { inner, bytes_max, held: Mutex::new((LruCache::new(entries), 0)) }
    }

    fn keep(&self, key: (Path, Range<u64>), value: (ObjectMeta, Bytes)) {
        let mut held = self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        held.1 += value.1.len();
        if let Some((_, replaced)) = held.0.push(key, value) {
            held.1 -= replaced.1.len();
        }
        while held.1 > self.bytes_max {
            let Some((_, oldest)) = held.0.pop_lru() else { break };
            held.1 -= oldest.1.len();
        }
    }
}

impl fmt::Display for Lru {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Lru({})", self.inner)
    }
}

fn answer(range: Range<u64>, meta: ObjectMeta, bytes: Bytes) -> GetResult {
    let payload = GetResultPayload::Stream(futures::stream::once(async { Ok(bytes) }).boxed());
    GetResult { payload, meta, range, attributes: Default::default() }
}

object_store! { Lru,
    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let Some(GetRange::Bounded(range)) = options.range.clone() else {
            return self.inner.get_opts(location, options).await;
        };
        let key = (location.clone(), range);
        {
            let mut held = self.held.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            if let Some((meta, bytes)) = held.0.get(&key) {
                return Ok(answer(key.1, meta.clone(), bytes.clone()));
            }
        }
        let result = self.inner.get_opts(location, options).await?;
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let bytes = result.bytes().await?;
        self.keep(key, (meta.clone(), bytes.clone()));
        Ok(answer(range, meta, bytes))
    }
}
