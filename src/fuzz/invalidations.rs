//! Calls that remove what a scope covers, or make it stale. Each gives its count, if it has one.

use super::model::Scope;
use super::value::{SPACES, tag};
use crate::cache::BlobCache;
use crate::error::CacheError;
use crate::scope::NamespaceScope;

pub(super) async fn expire(cache: &BlobCache, scope: Scope) -> Result<usize, CacheError> {
    match scope {
        Scope::Key(full_key) => cache.expire_key(full_key.namespace(), full_key.name()).await,
        Scope::Prefix(space, first) => cache.expire_prefix(SPACES[space], [first]).await,
        Scope::Tag(space, number) => cache.expire_tags(SPACES[space], &[&tag(number)]).await,
        Scope::TagEverywhere(number) => {
            cache.expire_tags(NamespaceScope::All, &[&tag(number)]).await
        }
        Scope::Space(space) => cache.expire_namespace(SPACES[space]).await.map(usize::from),
        Scope::All => Ok(0),
    }
}

pub(super) async fn invalidate(cache: &BlobCache, scope: Scope) -> Result<usize, CacheError> {
    match scope {
        Scope::Key(full_key) => cache.invalidate_key(full_key.namespace(), full_key.name()).await,
        Scope::Prefix(space, first) => cache.invalidate_prefix(SPACES[space], [first]).await,
        Scope::Tag(space, number) => cache.invalidate_tags(SPACES[space], &[&tag(number)]).await,
        Scope::TagEverywhere(number) if number == 0 => {
            cache.invalidate_tags(&SPACES, &[&tag(number)]).await
        }
        Scope::TagEverywhere(number) => {
            cache.invalidate_tags(NamespaceScope::All, &[&tag(number)]).await
        }
        Scope::Space(space) => cache.invalidate_namespace(SPACES[space]).await.map(usize::from),
        Scope::All => cache.invalidate_all().await.map(|()| 0),
    }
}
