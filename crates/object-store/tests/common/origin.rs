//! `Origin`: an inner store whose tests see every request, and that fails, waits and forgets e-tags
//! as they like.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::Semaphore;

use super::object_store::memory::InMemory;
use super::object_store::path::Path;
use super::object_store::{
    CopyOptions, Error, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};

/// One get, as the inner store has received it.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) options: GetOptions,
}

/// A door that requests stand at, before or after their effect.
#[derive(Debug)]
pub(crate) struct Door {
    open: Semaphore,
    is_shut: AtomicBool,
    arrived: Semaphore,
}

impl Default for Door {
    fn default() -> Self {
        let (open, arrived) = (Semaphore::new(0), Semaphore::new(0));
        Self { open, arrived, is_shut: AtomicBool::new(false) }
    }
}

impl Door {
    pub(crate) fn shut(&self) {
        self.open.forget_permits(usize::MAX);
        self.is_shut.store(true, Ordering::SeqCst);
    }

    pub(crate) fn open(&self) {
        self.is_shut.store(false, Ordering::SeqCst);
        self.open.add_permits(1000);
    }

    /// While it stays shut for those who come later.
    pub(crate) fn let_one_pass(&self) {
        self.open.add_permits(1);
    }

    /// Until one more request stands here.
    pub(crate) async fn arrival(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    async fn pass(&self) {
        if self.is_shut.load(Ordering::SeqCst) {
            self.arrived.add_permits(1);
            self.open.acquire().await.unwrap().forget();
        }
    }
}

/// All that a stream has; its errors first.
fn taken_at_once(
    locations: BoxStream<'static, Result<Path>>,
    before: Arc<Door>,
) -> BoxStream<'static, Result<Path>> {
    let taken = async move {
        let all: Vec<Result<Path>> = locations.collect().await;
        let (errors, paths): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_err);
        let paths = async move {
            before.pass().await;
            futures::stream::iter(paths)
        };
        futures::stream::iter(errors).chain(futures::stream::once(paths).flatten())
    };
    futures::stream::once(taken).flatten().boxed()
}

fn is_down() -> Error {
    Error::Generic { store: "Origin", source: "it is down".into() }
}

#[derive(Debug, Default)]
pub(crate) struct Origin {
    pub(crate) inner: InMemory,
    asked: std::sync::Mutex<Vec<Asked>>,
    /// Gets stand here before they look, and after.
    pub(crate) before_get: Door,
    pub(crate) after_get: Door,
    /// Writes stand here before they take effect, and after.
    pub(crate) before_write: Door,
    pub(crate) after_write: Door,
    /// Gets take so many turns before they look.
    pub(crate) turns: AtomicU64,
    /// Deletes of a stream stand here, when all of its paths have been taken.
    pub(crate) before_deletes: Arc<Door>,
    /// It takes all paths of a stream before it deletes one, and passes the caller's errors on
    /// first.
    pub(crate) takes_all: AtomicBool,
    pub(crate) fails: AtomicBool,
    pub(crate) has_no_e_tags: AtomicBool,
    /// It keeps all versions by number, as a bucket with versioning does.
    pub(crate) has_versions: AtomicBool,
    versions: std::sync::Mutex<HashMap<(Path, String), (Bytes, ObjectMeta)>>,
    puts: AtomicU64,
}

impl Origin {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The gets since the last time.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }

    /// The ranges of the gets since the last time.
    pub(crate) fn asked_ranges(&self) -> Vec<Option<GetRange>> {
        self.asked().into_iter().map(|asked| asked.options.range).collect()
    }

    /// A write past the wrapper.
    pub(crate) async fn put_past(&self, path: &Path, bytes: Vec<u8>) {
        let options = PutOptions::default();
        self.put(path, bytes.into(), options).await.unwrap();
    }

    async fn put(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let mut result = self.inner.put_opts(path, payload.clone(), opts).await?;
        if self.has_versions.load(Ordering::SeqCst) {
            let version = self.puts.fetch_add(1, Ordering::SeqCst).to_string();
            let got = self.inner.get_opts(path, GetOptions::default()).await?;
            let meta = ObjectMeta { version: Some(version.clone()), ..got.meta };
            let kept = (Bytes::from(payload), meta);
            self.versions.lock().unwrap().insert((path.clone(), version.clone()), kept);
            result.version = Some(version);
        }
        Ok(result)
    }

    fn failure(&self) -> Result<()> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(is_down());
        }
        Ok(())
    }

    fn of_version(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let version = options.version.clone().unwrap();
        let kept = self.versions.lock().unwrap().get(&(path.clone(), version)).cloned();
        let (bytes, meta) = kept.ok_or_else(|| Error::NotFound {
            path: path.to_string(),
            source: "no such version".into(),
        })?;
        options.check_preconditions(&meta)?;
        let range = options.range.map_or(0..meta.size, |range| range.as_range(meta.size).unwrap());
        let start = usize::try_from(range.start).unwrap();
        let part = bytes.slice(start..usize::try_from(range.end).unwrap());
        let stream = futures::stream::once(async { Ok(part) }).boxed();
        Ok(crate::get_result(stream, meta, range))
    }

    async fn get(&self, path: &Path, mut options: GetOptions) -> Result<GetResult> {
        if options.version.is_some() && self.has_versions.load(Ordering::SeqCst) {
            return self.of_version(path, options);
        }
        let has_no_e_tags = self.has_no_e_tags.load(Ordering::SeqCst);
        if has_no_e_tags {
            options.if_match = None;
            options.if_none_match = None;
        }
        let mut result = self.inner.get_opts(path, options).await?;
        if has_no_e_tags {
            result.meta.e_tag = None;
        }
        if self.has_versions.load(Ordering::SeqCst) {
            let versions = self.versions.lock().unwrap();
            let e_tag = &result.meta.e_tag;
            let of =
                versions.iter().find(|((of, _), (_, meta))| of == path && meta.e_tag == *e_tag);
            result.meta.version = of.map(|((_, version), _)| version.clone());
        }
        Ok(result)
    }

    async fn write<T>(&self, write: impl Future<Output = Result<T>>) -> Result<T> {
        self.before_write.pass().await;
        self.failure()?;
        let result = write.await;
        self.after_write.pass().await;
        result
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Origin")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Origin {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        self.write(self.put(location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(location, opts).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.asked.lock().unwrap().push(Asked { options: options.clone() });
        self.before_get.pass().await;
        for _ in 0..self.turns.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        self.failure()?;
        let result = self.get(location, options).await;
        self.after_get.pass().await;
        result
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.failure()?;
        self.inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let inner = self.inner.clone();
        let fails = self.fails.load(Ordering::SeqCst);
        let locations = if self.takes_all.load(Ordering::SeqCst) {
            taken_at_once(locations, Arc::clone(&self.before_deletes))
        } else {
            locations
        };
        let delete = move |path: Result<Path>| {
            let inner = inner.clone();
            async move {
                let path = path?;
                if fails {
                    return Err(is_down());
                }
                let one = futures::stream::once(async { Ok(path) }).boxed();
                inner.delete_stream(one).next().await.unwrap()
            }
        };
        locations.then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.write(self.inner.copy_opts(from, to, options)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, options: RenameOptions) -> Result<()> {
        self.write(self.inner.rename_opts(from, to, options)).await
    }
}
