//! `NamespaceScope`: the namespaces that one call is about.

/// The namespaces in which a call looks for labels: one, several, or all that are in use.
///
/// Wherever one is asked for, the name of a namespace will do, or a slice of names. The call takes
/// effect in all of them at one moment.
///
/// ```
/// # futures::executor::block_on(async {
/// use tamis::{BlobCache, BlobCacheConfig, BlobCachePut, NamespaceScope};
///
/// let cache = BlobCache::open(BlobCacheConfig::default()).await?;
/// for namespace in ["pages", "fragments", "json"] {
///     cache.put(namespace, "7", BlobCachePut::new("...").with_tags(["product:7"])).await?;
/// }
/// assert_eq!(cache.invalidate_tags("pages", &["product:7"]).await?, 1);
/// assert_eq!(cache.invalidate_tags(&["pages", "json"], &["product:7"]).await?, 1);
/// assert_eq!(cache.invalidate_tags(NamespaceScope::All, &["product:7"]).await?, 1);
/// # Ok::<(), tamis::CacheError>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum NamespaceScope<'a> {
    /// The namespace of this name.
    One(&'a str),
    /// The namespaces of these names. A name that occurs twice counts once.
    Several(&'a [&'a str]),
    /// Every namespace of the cache, those that begin later for what was read before included.
    All,
}

impl<'a> NamespaceScope<'a> {
    /// The names that it lists: none for all.
    pub(crate) fn names(&'a self) -> &'a [&'a str] {
        match self {
            Self::One(name) => std::slice::from_ref(name),
            Self::Several(names) => names,
            Self::All => &[],
        }
    }
}

impl<'a> From<&'a str> for NamespaceScope<'a> {
    fn from(name: &'a str) -> Self {
        Self::One(name)
    }
}

impl<'a> From<&'a String> for NamespaceScope<'a> {
    fn from(name: &'a String) -> Self {
        Self::One(name)
    }
}

impl<'a> From<&'a [&'a str]> for NamespaceScope<'a> {
    fn from(names: &'a [&'a str]) -> Self {
        Self::Several(names)
    }
}

impl<'a, const N: usize> From<&'a [&'a str; N]> for NamespaceScope<'a> {
    fn from(names: &'a [&'a str; N]) -> Self {
        Self::Several(names)
    }
}

impl<'a> From<&'a Vec<&'a str>> for NamespaceScope<'a> {
    fn from(names: &'a Vec<&'a str>) -> Self {
        Self::Several(names)
    }
}
