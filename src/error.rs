//! `CacheError`: every way a call can be refused.

use thiserror::Error;

/// Why a call was refused. A refused call has changed nothing.
///
/// Sizes are in bytes.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum CacheError {
    /// The blob is larger than its policy allows, or than any tier that may hold it.
    #[error("blob of {size} bytes is over the limit of {max} bytes")]
    BlobTooLarge {
        /// What the blob comes to, with its key and metadata where the tier's budget is the limit.
        size: usize,
        /// The limit it is over.
        max: usize,
    },
    /// The content metadata has too many keys or too many bytes.
    #[error(
        "content metadata of {keys} keys and {bytes} bytes is over the limit of {max_keys} keys \
         and {max_bytes} bytes"
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
        "{labels} labels of {bytes} bytes are over the limit of {max_labels} labels and \
         {max_bytes} bytes"
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
    #[error("key of {size} bytes is over the limit of {max} bytes")]
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
    /// Every namespace slot is taken by a namespace that holds entries.
    #[error("all {max} namespaces are in use")]
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
    /// A field of the configuration is out of range or contradicts another.
    #[error("invalid configuration: {field}: {reason}")]
    InvalidConfig {
        /// The builder's method of that name.
        field: &'static str,
        /// What is wrong with it, and the range it must lie in.
        reason: String,
    },
    /// The cache has been closed.
    #[error("the cache is closed")]
    Closed,
}
