//! `Spawn`: starts tasks on the executor of the service.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

/// A fetch to run in a task of its own. It never panics, and ends when the fetch does: with a
/// [`hard_timeout`](crate::FetchPolicy::hard_timeout) that is so even if the origin hangs.
pub type FetchTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts tasks on an executor, so that a fetch goes on whatever becomes of its caller: for
/// [`get_or_fetch_spawned`](crate::BlobCache::get_or_fetch_spawned) and
/// [`get_or_refresh_spawned`](crate::BlobCache::get_or_refresh_spawned). Given by
/// [`spawner`](crate::BlobCacheConfigBuilder::spawner).
///
/// With the feature `tokio` it is implemented for `tokio::runtime::Handle`. A closure will do for
/// any other executor:
///
/// ```
/// # futures::executor::block_on(async {
/// use std::sync::mpsc;
///
/// use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, FetchTask};
///
/// // An executor with one thread. With smol: `|task: FetchTask| smol::spawn(task).detach()`.
/// let (tasks, to_run) = mpsc::channel::<FetchTask>();
/// std::thread::spawn(move || {
///     for task in to_run {
///         futures::executor::block_on(task);
///     }
/// });
/// let spawner = move |task: FetchTask| {
///     let _ = tasks.send(task);
/// };
/// let cache = BlobCache::open(BlobCacheConfig::builder().spawner(spawner).build()?).await?;
/// let fetch = || async { Ok::<_, std::io::Error>(BlobCachePut::new("<h1>Tamis</h1>")) };
/// let page = cache.get_or_fetch_spawned("pages", "/index", fetch).await.unwrap();
/// assert_eq!(page.value(), b"<h1>Tamis</h1>");
/// assert_eq!(cache.stats().fetches_spawned(), 1);
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
///
/// A spawner may drop a task, never poll it, or panic: then the caller runs the fetch itself, at
/// once or after 100 to 200 ms, and a refresh is left to a later call.
pub trait Spawn: Send + Sync + 'static {
    /// Starts a task, which outlives this call, and is polled as long as it is woken. To drop it
    /// refuses it. Called in polls of callers, without a lock; it should not block.
    fn spawn(&self, task: FetchTask);
}

impl<F: Fn(FetchTask) + Send + Sync + 'static> Spawn for F {
    fn spawn(&self, task: FetchTask) {
        self(task);
    }
}

impl<S: Spawn + ?Sized> Spawn for Arc<S> {
    fn spawn(&self, task: FetchTask) {
        (**self).spawn(task);
    }
}

/// On that runtime. Its shutdown drops the tasks: their callers run the fetches themselves.
#[cfg(feature = "tokio")]
impl Spawn for tokio::runtime::Handle {
    fn spawn(&self, task: FetchTask) {
        drop(Self::spawn(self, task));
    }
}

impl fmt::Debug for dyn Spawn {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Spawn")
    }
}
