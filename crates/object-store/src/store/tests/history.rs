//! `History`: an inner store that remembers every state that each path has had, and since when;
//! that fails at random; whose writes take effect whatever becomes of who has asked for them; and
//! that keeps all versions, as a bucket may.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tamis::Clock;

use super::object_store::memory::InMemory;
use super::object_store::path::Path;
use super::object_store::{
    Attributes, CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, RenameOptions, Result,
};
use super::{content, get_result};

/// One state of a path.
#[derive(Clone)]
pub(crate) struct Life {
    /// The seed of the content and its length; None if there was no object.
    pub(crate) object: Option<(u64, u64)>,
    /// As the inner store has it, whatever it tells.
    meta: Option<ObjectMeta>,
    /// When it began.
    pub(crate) tick: u64,
    pub(crate) time: SystemTime,
}

impl Life {
    pub(crate) fn e_tag(&self) -> Option<&str> {
        self.meta.as_ref()?.e_tag.as_deref()
    }

    /// The name of the object's version.
    pub(crate) fn version(&self) -> Option<String> {
        self.object.map(|_| self.tick.to_string())
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = self.time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        write!(formatter, "{}@{time}: {:?}", self.tick, self.object)
    }
}

#[derive(Debug)]
struct State {
    inner: InMemory,
    lives: HashMap<Path, Vec<Life>>,
    random: StdRng,
}

/// How the inner store behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manners {
    /// Of a hundred requests so many fail.
    pub(crate) failures: u32,
    /// Requests wait for up to so many turns.
    pub(crate) turns: u32,
    pub(crate) has_e_tags: bool,
    pub(crate) has_versions: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct History {
    state: Arc<Mutex<State>>,
    ticks: Arc<AtomicU64>,
    clock: Clock,
    manners: Manners,
}

fn failure() -> Error {
    Error::Generic { store: "History", source: "it has failed".into() }
}

impl History {
    pub(crate) fn new(clock: Clock, seed: u64, manners: Manners) -> Self {
        let (inner, random) = (InMemory::new(), StdRng::seed_from_u64(seed));
        let state = State { inner, lives: HashMap::new(), random };
        Self { state: Arc::new(Mutex::new(state)), ticks: Arc::default(), clock, manners }
    }

    /// The next moment of all.
    pub(crate) fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// All states of a path, with the first, in which there is no object.
    pub(crate) fn lives(&self, path: &Path) -> Vec<Life> {
        let time = SystemTime::UNIX_EPOCH;
        let first = Life { object: None, meta: None, tick: 0, time };
        let state = self.state.lock().unwrap();
        let later = state.lives.get(path).cloned().unwrap_or_default();
        std::iter::once(first).chain(later).collect()
    }

    /// Remembers what has become of a path, and since when.
    fn remember(&self, state: &mut State, path: &Path, object: Option<(u64, u64)>) {
        let head = state.inner.get_opts(path, GetOptions::new().with_head(true));
        let meta = head.now_or_never().unwrap().ok().map(|answer| answer.meta);
        let life = Life { object, meta, tick: self.tick(), time: self.clock.now() };
        state.lives.entry(path.clone()).or_default().push(life);
    }

    fn put_now(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let mut state = self.state.lock().unwrap();
        let bytes = Bytes::from(payload.clone());
        let result = state.inner.put_opts(path, payload, opts).now_or_never().unwrap()?;
        let seed = bytes.get(4..8).map_or(0, |seed| u32::from_le_bytes(seed.try_into().unwrap()));
        self.remember(&mut state, path, Some((u64::from(seed), bytes.len() as u64)));
        Ok(result)
    }

    fn delete_now(&self, path: &Path) -> Result<Path> {
        let mut state = self.state.lock().unwrap();
        let one = futures::stream::once(futures::future::ready(Ok(path.clone()))).boxed();
        let deleted = state.inner.delete_stream(one).next().now_or_never().unwrap().unwrap()?;
        self.remember(&mut state, path, None);
        Ok(deleted)
    }

    fn copy_now(&self, from: &Path, to: &Path) -> Result<()> {
        let mut state = self.state.lock().unwrap();
        let copy = state.inner.copy_opts(from, to, CopyOptions::default());
        copy.now_or_never().unwrap()?;
        let object = state.lives.get(from).and_then(|lives| lives.last()?.object);
        self.remember(&mut state, to, object);
        Ok(())
    }

    pub(crate) fn put_past(&self, path: &Path, content: Vec<u8>) {
        self.put_now(path, content.into(), PutOptions::default()).unwrap();
    }

    pub(crate) fn delete_past(&self, path: &Path) {
        self.delete_now(path).unwrap();
    }

    /// What there is now, or of a version by its name.
    fn answer(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let has_versions = self.manners.has_versions;
        if let Some(version) = options.version.as_ref().filter(|_| has_versions) {
            let mut lives = self.lives(path).into_iter();
            let of = lives.find(|life| life.version().as_ref() == Some(version));
            let life = of.ok_or_else(|| Error::NotFound {
                path: path.to_string(),
                source: "no such version".into(),
            })?;
            return of_version(&life, options);
        }
        let inner = self.state.lock().unwrap().inner.clone();
        let mut result = inner.get_opts(path, options).now_or_never().unwrap()?;
        if has_versions {
            let e_tag = result.meta.e_tag.as_deref();
            // Written meanwhile by another thread, perhaps.
            let lives = self.lives(path);
            let life = lives.iter().find(|life| life.e_tag() == e_tag);
            result.meta.version = life.and_then(Life::version);
        }
        Ok(result)
    }

    fn chance(&self, percent: u32) -> bool {
        self.state.lock().unwrap().random.random_range(0..100) < percent
    }

    async fn wait(&self) {
        let turns = self.state.lock().unwrap().random.random_range(0..=self.manners.turns);
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
    }

    /// In a task: it takes effect though nobody waits for it. It may fail before or after that.
    async fn write<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let here = self.clone();
        let carried_out = tokio::spawn(async move {
            here.wait().await;
            if here.chance(here.manners.failures) {
                return Err(failure());
            }
            let result = write(&here);
            here.wait().await;
            if here.chance(here.manners.failures) {
                return Err(failure());
            }
            result
        });
        carried_out.await.unwrap()
    }
}

fn of_version(life: &Life, options: GetOptions) -> Result<GetResult> {
    let (seed, length) = life.object.unwrap();
    let meta = ObjectMeta { version: life.version(), ..life.meta.clone().unwrap() };
    options.check_preconditions(&meta)?;
    let range = options.range.map_or(Ok(0..length), |range| range.as_range(length));
    let range = range.map_err(|error| {
        let source = error.to_string().into();
        Error::Generic { store: "History", source }
    })?;
    let place = |place: u64| usize::try_from(place).unwrap();
    let bytes = Bytes::from(content(seed, length)).slice(place(range.start)..place(range.end));
    let stream = futures::stream::once(futures::future::ready(Ok(bytes))).boxed();
    Ok(get_result(stream, meta, range, Attributes::new()))
}

impl fmt::Display for History {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("History")
    }
}

#[async_trait::async_trait]
impl ObjectStore for History {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        opts: PutOptions,
    ) -> Result<PutResult> {
        let location = location.clone();
        self.write(move |here| here.put_now(&location, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let upload = Upload { here: self.clone(), location: location.clone(), parts: Vec::new() };
        Ok(Box::new(upload))
    }

    async fn get_opts(&self, location: &Path, mut options: GetOptions) -> Result<GetResult> {
        self.wait().await;
        if self.chance(self.manners.failures) {
            return Err(failure());
        }
        if !self.manners.has_e_tags {
            options.if_match = None;
            options.if_none_match = None;
        }
        let result = self.answer(location, options);
        // Whatever the answer, it takes time, in which the object may change.
        self.wait().await;
        let mut result = result?;
        if !self.manners.has_e_tags {
            result.meta.e_tag = None;
        }
        let (meta, range) = (result.meta.clone(), result.range.clone());
        // In chunks that fit no block.
        let bytes = result.bytes().await?;
        let ends = self.chance(self.manners.failures);
        let mut chunks: Vec<_> =
            bytes.chunks(50_000).map(|chunk| Ok(bytes.slice_ref(chunk))).collect();
        if ends {
            chunks.push(Err(failure()));
        }
        let stream = futures::stream::iter(chunks).boxed();
        Ok(get_result(stream, meta, range, Attributes::new()))
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.wait().await;
        let inner = self.state.lock().unwrap().inner.clone();
        inner.get_ranges(location, ranges).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let here = self.clone();
        let delete = move |path: Path| {
            let here = here.clone();
            async move { here.write(move |here| here.delete_now(&path)).await }
        };
        locations.map_ok(delete).try_buffered(3).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.state.lock().unwrap().inner.list(prefix)
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(failure())
    }

    async fn copy_opts(&self, from: &Path, to: &Path, _: CopyOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.write(move |here| here.copy_now(&from, &to)).await
    }

    async fn rename_opts(&self, from: &Path, to: &Path, _: RenameOptions) -> Result<()> {
        let (from, to) = (from.clone(), to.clone());
        self.write(move |here| {
            here.copy_now(&from, &to)?;
            here.delete_now(&from).map(drop)
        })
        .await
    }
}

/// The object is put when it is complete.
#[derive(Debug)]
struct Upload {
    here: History,
    location: Path,
    parts: Vec<u8>,
}

#[async_trait::async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> super::object_store::UploadPart {
        self.parts.extend_from_slice(&Bytes::from(data));
        futures::future::ready(Ok(())).boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let payload = std::mem::take(&mut self.parts).into();
        let put = self.here.put_opts(&self.location, payload, PutOptions::default());
        put.await
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
