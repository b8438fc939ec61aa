//! `CacheError`: every error of a call.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

/// Why a call failed. A failed call has changed nothing, with two exceptions:
/// [`L2Io`](Self::L2Io) from a put or an invalidation, which is in force in this process, and any
/// error from [`close`](crate::BlobCache::close), after which the cache is closed.
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
    /// [`sync`](crate::BlobCache::sync), that not everything acknowledged is on the device.
    #[error("the disk tier failed: {context}")]
    L2Io {
        /// The action that failed, and its path.
        context: String,
        /// The operating system's error.
        source: IoError,
    },
    /// This process cannot use the disk tier: the kernel refuses enough descriptors, threads or
    /// file bytes, or io_uring where [`L2Engine::IoUring`](crate::L2Engine) asks for it; or it was
    /// forked from the process that opened the cache.
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
    /// The file is shorter than the store. It was not changed.
    #[error("{} is damaged: {reason}; put it back, or remove its directory", path.display())]
    L2Damaged {
        /// The store's file.
        path: PathBuf,
        /// The length found and the length expected.
        reason: String,
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

/// Why there is no value: the fetch failed. All callers that waited for it share the error, and it
/// is not cached.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FetchError<E> {
    /// The fetch returned an error.
    #[error("the fetch failed: {0}")]
    Fetch(#[source] Arc<E>),
    /// This caller's fetch panicked, when it was called or polled. The panic ends there.
    #[error("the fetch panicked")]
    Panicked,
}

impl<E> Clone for FetchError<E> {
    fn clone(&self) -> Self {
        match self {
            Self::Fetch(error) => Self::Fetch(Arc::clone(error)),
            Self::Panicked => Self::Panicked,
        }
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
