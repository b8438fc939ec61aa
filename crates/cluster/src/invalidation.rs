//! `Invalidation`: what is to be forgotten, on every node.

use serde::{Deserialize, Serialize};

use crate::error::ClusterError;

/// What is to be invalidated: a key, a prefix, tags, dependencies, a namespace, or everything.
///
/// ```
/// use tamis_cluster::Invalidation;
///
/// let page = Invalidation::key("pages", "/about");
/// let user = Invalidation::tags("pages", ["user:7"]).soft();
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalidation {
    pub(crate) scope: Scope,
    pub(crate) is_soft: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Scope {
    Key(String, Vec<u8>),
    Prefix(String, Vec<u8>),
    Tags(String, Vec<String>),
    Dependencies(String, Vec<String>),
    Namespace(String),
    All,
}

/// How many bytes the names, keys and labels of one invalidation may have.
pub(crate) const BYTES_MAX: usize = 32 << 10;

/// Taken for each string, and for each invalidation: no encoded length is longer than five bytes.
const OVERHEAD: usize = 8;

impl Invalidation {
    /// Of one key, as [`tamis::BlobCache::invalidate_key`].
    pub fn key(namespace: impl Into<String>, key: impl AsRef<[u8]>) -> Self {
        Self::hard(Scope::Key(namespace.into(), key.as_ref().to_vec()))
    }

    /// Of all keys that begin so, as [`tamis::BlobCache::invalidate_prefix`].
    pub fn prefix(namespace: impl Into<String>, prefix: impl AsRef<[u8]>) -> Self {
        Self::hard(Scope::Prefix(namespace.into(), prefix.as_ref().to_vec()))
    }

    /// Of all entries with any of these tags, as [`tamis::BlobCache::invalidate_tags`].
    pub fn tags<T: Into<String>>(
        namespace: impl Into<String>,
        tags: impl IntoIterator<Item = T>,
    ) -> Self {
        Self::hard(Scope::Tags(namespace.into(), tags.into_iter().map(Into::into).collect()))
    }

    /// Of all entries with any of these dependencies, as
    /// [`tamis::BlobCache::invalidate_dependencies`].
    pub fn dependencies<T: Into<String>>(
        namespace: impl Into<String>,
        dependencies: impl IntoIterator<Item = T>,
    ) -> Self {
        let dependencies = dependencies.into_iter().map(Into::into).collect();
        Self::hard(Scope::Dependencies(namespace.into(), dependencies))
    }

    /// Of a whole namespace, as [`tamis::BlobCache::invalidate_namespace`].
    pub fn namespace(namespace: impl Into<String>) -> Self {
        Self::hard(Scope::Namespace(namespace.into()))
    }

    /// Of everything, as [`tamis::BlobCache::invalidate_all`].
    #[must_use]
    pub fn all() -> Self {
        Self::hard(Scope::All)
    }

    /// Entries that have a stale window are served as stale from now on, as by
    /// [`tamis::BlobCache::expire_key`] and its siblings. Of everything there is no soft
    /// invalidation: [`all`](Self::all) stays hard.
    #[must_use]
    pub fn soft(mut self) -> Self {
        self.is_soft = !matches!(self.scope, Scope::All);
        self
    }

    fn hard(scope: Scope) -> Self {
        Self { scope, is_soft: false }
    }

    /// An upper bound of the encoded bytes.
    pub(crate) fn bytes(&self) -> usize {
        let label = |label: &String| label.len() + OVERHEAD;
        OVERHEAD
            + match &self.scope {
                Scope::Key(namespace, key) | Scope::Prefix(namespace, key) => {
                    namespace.len() + key.len() + 2 * OVERHEAD
                }
                Scope::Tags(namespace, labels) | Scope::Dependencies(namespace, labels) => {
                    let labels: usize = labels.iter().map(label).sum();
                    namespace.len() + labels + 2 * OVERHEAD
                }
                Scope::Namespace(namespace) => namespace.len() + OVERHEAD,
                Scope::All => 0,
            }
    }

    /// The namespace, or none for everything.
    pub(crate) fn name(&self) -> Option<&str> {
        match &self.scope {
            Scope::Key(name, _)
            | Scope::Prefix(name, _)
            | Scope::Tags(name, _)
            | Scope::Dependencies(name, _)
            | Scope::Namespace(name) => Some(name),
            Scope::All => None,
        }
    }

    pub(crate) fn check(&self) -> Result<(), ClusterError> {
        match self.bytes() {
            size if size > BYTES_MAX => Err(ClusterError::TooLarge { size, max: BYTES_MAX }),
            _ => Ok(()),
        }
    }
}
