//! `CacheError`: every error of a call.

use std::any::Any;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

/// Why a call failed. A failed call has changed nothing, with these exceptions:
///
/// - [`L2Io`](Self::L2Io) from a put, a touch, an invalidation or an `expire_*`, which is in force
///   in this process, and from [`open`](crate::BlobCache::open), which may have begun to write;
/// - a call for many keys that meets a close: the keys before it have been dealt with;
/// - [`backup`](crate::BlobCache::backup), which may leave a file that no open accepts;
/// - [`close`](crate::BlobCache::close): after any error the cache is closed.
///
/// Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The blob is larger than its policy allows, or than any tier that may hold it.
    #[error("blob of {size} bytes is over the limit of {max} bytes, {limit}")]
    BlobTooLarge {
        /// Bytes of the blob, with its key and metadata if a tier's budget is the limit.
        size: usize,
        /// The limit it is over.
        max: usize,
        /// Which limit that is: the highest one, if several tiers might have held the blob.
        limit: BlobLimit,
    },
    /// The content metadata has too many keys or too many bytes.
    #[error(
        "content metadata of {keys} keys and {bytes} bytes is over the limit of {max_keys} keys \
         (content_metadata_keys_max) and {max_bytes} bytes (content_metadata_bytes_max)"
    )]
    MetadataTooLarge {
        /// Number of metadata keys.
        keys: usize,
        /// Bytes of all metadata keys and values.
        bytes: usize,
        /// The configured `content_metadata_keys_max`.
        max_keys: usize,
        /// The configured `content_metadata_bytes_max`.
        max_bytes: usize,
    },
    /// The tags and dependencies are too many or too long.
    #[error(
        "{labels} labels of {bytes} bytes are over the limit of {max_labels} labels (labels_max) \
         and {max_bytes} bytes (label_bytes_max)"
    )]
    LabelsTooLarge {
        /// Number of tags and dependencies together.
        labels: usize,
        /// Bytes of all of them.
        bytes: usize,
        /// The configured `labels_max`.
        max_labels: usize,
        /// The configured `label_bytes_max`.
        max_bytes: usize,
    },
    /// The key is too long.
    #[error("key of {size} bytes is over the limit of {max} bytes, key_bytes_max")]
    KeyTooLarge {
        /// Length of the key.
        size: usize,
        /// The configured `key_bytes_max`.
        max: usize,
    },
    /// The namespace's name is too long.
    #[error("namespace name of {size} bytes is over the limit of {max} bytes")]
    NamespaceTooLarge {
        /// Length of the name.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// Every namespace slot is taken by a namespace that holds live entries. Empty or flush one of
    /// them, or raise the limit.
    #[error("all {max} namespaces are in use: empty or flush one, or raise max_namespaces")]
    TooManyNamespaces {
        /// The configured `max_namespaces`.
        max: usize,
    },
    /// A saved position, or its name, is too long.
    #[error("saved position or name of {size} bytes is over the limit of {max} bytes")]
    PositionTooLarge {
        /// Length of the position, or of the name.
        size: usize,
        /// The limit.
        max: usize,
    },
    /// There are positions under as many other names as there may be.
    #[error("positions are saved under {max} names already: save this one under one of them")]
    TooManyPositions {
        /// The limit.
        max: usize,
    },
    /// The live entry carries a version that is not below the one of the put.
    #[error("version {attempted} is not above the stored version {existing}")]
    VersionMismatch {
        /// The version of the live entry.
        existing: u64,
        /// The version of the refused put.
        attempted: u64,
    },
    /// The version that the put must be above could not be read from disk. Nothing has changed. A
    /// retry may read it; a put without a version, or an invalidation, needs no read.
    #[error("could not read the stored version that version {attempted} must be above")]
    VersionUnknown {
        /// The version of the refused put.
        attempted: u64,
        /// The operating system's error.
        source: IoError,
    },
    /// A field of the configuration is out of range or contradicts another.
    #[error("invalid configuration: {field}: {reason}")]
    InvalidConfig {
        /// The builder's setter of that name.
        field: &'static str,
        /// The offending value and its valid range.
        reason: String,
    },
    /// The file system cannot hold the store.
    #[error(
        "{} needs {size} more bytes and the file system has {max}: free some or lower l2_bytes_max",
        path.display()
    )]
    L2Full {
        /// The store's file.
        path: PathBuf,
        /// Bytes that the store needs.
        size: u64,
        /// Bytes that are free.
        max: u64,
    },
    /// The device failed. A put or an invalidation that returns this is in force in this process:
    /// no later get finds an older entry. After a restart one may be found. From
    /// [`open`](crate::BlobCache::open) it means that there is no cache; from
    /// [`reopen_l2`](crate::BlobCache::reopen_l2), that the cache goes on in memory; from
    /// [`sync`](crate::BlobCache::sync), that not everything acknowledged is on the device.
    #[error("the disk tier failed: {context}")]
    L2Io {
        /// The action that failed, and its path.
        context: String,
        /// The operating system's error.
        source: IoError,
    },
    /// This process cannot use the disk tier: a limit leaves it too few descriptors, threads or
    /// file bytes; the kernel refuses io_uring, and [`L2Engine::IoUring`](crate::L2Engine) asks for
    /// it; or it was forked from the process that opened the cache. Or the crate was built without
    /// its feature `disk`, or for another system than Linux. From
    /// [`backup`](crate::BlobCache::backup): the directory cannot have a copy.
    #[error("the disk tier is not available: {reason}")]
    L2Unavailable {
        /// The store, the cause (a sysctl, seccomp, a limit, a fork), and the remedy.
        reason: String,
    },
    /// Another cache uses the store.
    #[error("{} is in use by another cache: close that, or choose another path", path.display())]
    L2Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// The file is a store of another format, or not a store. It was not changed.
    #[error(
        "{} has format {found}, and {supported} is supported: {reason}; open it with the library \
         that made it, or choose another path",
        path.display()
    )]
    L2Format {
        /// The store's file.
        path: PathBuf,
        /// Why it cannot be opened.
        reason: String,
        /// The version found; 0 if it is not a store.
        found: u32,
        /// The version that this library supports.
        supported: u32,
    },
    /// The file is shorter than the store, or a [`backup`](crate::BlobCache::backup) into it was
    /// not finished. It was not changed.
    #[error("{} is damaged: {reason}; put it back, or remove its directory", path.display())]
    L2Damaged {
        /// The store's file.
        path: PathBuf,
        /// The length found and the length expected, or that it was not finished.
        reason: String,
    },
    /// A call for many keys refuses one of them. It has changed nothing.
    #[error("the key at index {index}: {source}")]
    AtIndex {
        /// The place of the key among those of the call, from 0 on.
        index: usize,
        /// What a call for this key alone would return.
        source: Box<CacheError>,
    },
    /// The cache has been closed.
    #[error("the cache is closed")]
    Closed,
}

/// The limit that a blob exceeds. `Display` names the setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BlobLimit {
    /// `max_blob_bytes` of the policy.
    Policy,
    /// An eighth of `l1_bytes_max`: the most that [`L1Admission::Auto`](crate::L1Admission::Auto)
    /// lets into memory.
    ShareOfMemory,
    /// `l1_bytes_max`.
    Memory,
    /// `l1_bytes_max` of the namespace's quota.
    Quota,
    /// The room in a segment of `l2_segment_bytes`.
    Segment,
}

impl fmt::Display for BlobLimit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Policy => "the policy's max_blob_bytes",
            Self::ShareOfMemory => {
                "an eighth of l1_bytes_max: raise that, or admit the blob with L1Admission::Always"
            }
            Self::Memory => "l1_bytes_max",
            Self::Quota => "l1_bytes_max of the namespace's quota",
            Self::Segment => "the room in a segment of l2_segment_bytes",
        })
    }
}

/// Why there is no value: the fetch failed. All callers that waited for it share the error. It is
/// not cached, but may be held for a while: [`retry_after`](crate::FetchPolicy::retry_after).
///
/// It is an [`Error`](std::error::Error) for every `E` that can be shown, so `?` takes it into
/// `anyhow::Error` and `Box<dyn Error + Send + Sync>` whether `E` is an enum, a `String`, or one of
/// those two itself. Its message includes that of `E` as `{:#}`, with all causes of an
/// `anyhow::Error`; its source is what comes after that, so that no report says anything twice.
///
/// ```
/// # futures::executor::block_on(async {
/// # use tamis::{BlobCache, BlobCacheConfig, BlobCacheHit, BlobCachePut, FetchError};
/// # let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// type AnyError = Box<dyn std::error::Error + Send + Sync>;
///
/// async fn render(path: &str) -> Result<BlobCachePut, AnyError> {
///     Err(format!("{path} is not there").into())
/// }
///
/// async fn page(cache: &BlobCache, path: &str) -> Result<BlobCacheHit, AnyError> {
///     Ok(cache.get_or_fetch("pages", path, || render(path)).await?)
/// }
///
/// let error = page(&cache, "/index").await.unwrap_err();
/// assert_eq!(error.to_string(), "the fetch failed: /index is not there");
/// # Ok::<(), AnyError>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum FetchError<E> {
    /// The fetch returned an error.
    Fetch(Arc<E>),
    /// The fetch panicked, when it was called or polled. The panic ends there.
    Panicked,
    /// The fetch took longer than [`hard_timeout`](crate::FetchPolicy::hard_timeout).
    TimedOut,
    /// A call was to run its fetch in a task, and the configuration has no
    /// [`spawner`](crate::BlobCacheConfigBuilder::spawner). Nothing was looked up or fetched.
    NoSpawner,
}

impl<E> FetchError<E> {
    /// The error that the fetch returned.
    #[must_use]
    pub fn inner(&self) -> Option<&E> {
        match self {
            Self::Fetch(error) => Some(error),
            Self::Panicked | Self::TimedOut | Self::NoSpawner => None,
        }
    }

    /// The error that the fetch returned, which other callers may hold as well:
    /// [`Arc::into_inner`] gives it to the last of them, [`Arc::unwrap_or_clone`] clones it unless
    /// this is the last.
    ///
    /// ```
    /// # use std::sync::Arc;
    /// # use tamis::FetchError;
    /// # let failed: FetchError<String> = FetchError::Fetch(Arc::new("down".to_owned()));
    /// assert_eq!(failed.into_inner().map(Arc::unwrap_or_clone).as_deref(), Some("down"));
    /// ```
    #[must_use]
    pub fn into_inner(self) -> Option<Arc<E>> {
        match self {
            Self::Fetch(error) => Some(error),
            Self::Panicked | Self::TimedOut | Self::NoSpawner => None,
        }
    }
}

impl<E: std::error::Error + Send + Sync + 'static> FetchError<E> {
    /// The same error, whose [`source`](std::error::Error::source) is that of the fetch and whose
    /// message leaves that to it: for reports that print all causes, and for who looks for a cause
    /// by its type. `FetchError` itself, an error for any `E`, has the message of `E` in its own,
    /// and then the source of `E` only if that is an `io::Error`, a [`CacheError`] or a boxed
    /// error.
    ///
    /// ```
    /// # use std::error::Error;
    /// # use std::sync::Arc;
    /// # use tamis::FetchError;
    /// # let failed = FetchError::Fetch(Arc::new(std::fmt::Error));
    /// # fn report(_: impl Error) {}
    /// let result: Result<(), FetchError<std::fmt::Error>> = Err(failed);
    /// let error = result.map_err(FetchError::with_sources).unwrap_err();
    /// assert!(error.source().is_some_and(|source| source.is::<std::fmt::Error>()));
    /// assert_eq!(error.to_string(), "the fetch failed");
    /// ```
    #[must_use]
    pub fn with_sources(self) -> impl std::error::Error + Send + Sync + 'static {
        WithSources(self)
    }
}

impl<E> Clone for FetchError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Fetch(error) => Self::Fetch(Arc::clone(error)),
            Self::Panicked => Self::Panicked,
            Self::TimedOut => Self::TimedOut,
            Self::NoSpawner => Self::NoSpawner,
        }
    }
}

impl<E: fmt::Display> fmt::Display for FetchError<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // In the long form an `anyhow::Error` names all of its causes.
            Self::Fetch(error) => write!(formatter, "the fetch failed: {error:#}"),
            Self::Panicked => formatter.write_str("the fetch panicked"),
            Self::TimedOut => formatter.write_str("the fetch took too long"),
            Self::NoSpawner => formatter.write_str(
                "there is no spawner to run the fetch: BlobCacheConfigBuilder::spawner sets one",
            ),
        }
    }
}

/// Not only for an `E` that is an error: the errors that hold any error are none themselves. The
/// message has that of `E`, so the source is the one of `E`: reports print both.
impl<E: fmt::Debug + fmt::Display + 'static> std::error::Error for FetchError<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        type Boxed = Box<dyn std::error::Error + Send + Sync>;
        let error: &dyn Any = self.inner()?;
        if let Some(error) = error.downcast_ref::<Boxed>() {
            return error.source();
        }
        if let Some(error) = error.downcast_ref::<CacheError>() {
            return std::error::Error::source(error);
        }
        error.downcast_ref::<io::Error>().and_then(std::error::Error::source)
    }
}

#[derive(Debug)]
struct WithSources<E>(FetchError<E>);

impl<E: fmt::Display> fmt::Display for WithSources<E> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            FetchError::Fetch(_) => formatter.write_str("the fetch failed"),
            other => other.fmt(formatter),
        }
    }
}

impl<E: std::error::Error + 'static> std::error::Error for WithSources<E> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.inner().map(|error| error as _)
    }
}

/// A shared error of the operating system. Errors of one kind are equal.
#[derive(Debug, Clone)]
pub struct IoError(Arc<io::Error>);

impl IoError {
    /// The underlying error.
    #[must_use]
    pub fn get_ref(&self) -> &io::Error {
        &self.0
    }
}

impl From<io::Error> for IoError {
    fn from(error: io::Error) -> Self {
        Self(Arc::new(error))
    }
}

impl PartialEq for IoError {
    fn eq(&self, other: &Self) -> bool {
        self.0.kind() == other.0.kind()
    }
}

impl Eq for IoError {}

impl fmt::Display for IoError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl std::error::Error for IoError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source()
    }
}
