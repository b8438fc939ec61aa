//! `Expiry`: a change that makes older records stale, and removes none.

use super::blob::NamedGeneration;
use super::error::{DecodeError, EncodeError};
use super::format::KEY_BYTES_MAX;
use super::string_list::LabelHashes;
use super::wire::{Reader, Sink};

pub(crate) const KIND_KEY_EXPIRY: u8 = 8;
pub(crate) const KIND_LABEL_EXPIRY: u8 = 9;
pub(crate) const KIND_PREFIX_EXPIRY: u8 = 10;
pub(crate) const KIND_NAMESPACE_EXPIRY: u8 = 11;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Expiry<'a> {
    /// Since then they are stale at the latest.
    pub(crate) since_ns: u64,
    pub(crate) scope: ExpiryScope<'a>,
}

/// The older records that it makes stale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExpiryScope<'a> {
    Key { namespace: NamedGeneration<'a>, hash: u64 },
    Labels(LabelHashes<'a>),
    Prefix { namespace: NamedGeneration<'a>, prefix: &'a [u8] },
    Namespace(NamedGeneration<'a>),
}

/// Whether a record of this kind is one, which names a namespace or not.
pub(super) const fn names_namespace(kind: u8) -> Option<bool> {
    match kind {
        KIND_LABEL_EXPIRY => Some(false),
        KIND_KEY_EXPIRY | KIND_PREFIX_EXPIRY | KIND_NAMESPACE_EXPIRY => Some(true),
        _ => None,
    }
}

impl<'a> Expiry<'a> {
    pub(super) const fn kind(&self) -> u8 {
        match self.scope {
            ExpiryScope::Key { .. } => KIND_KEY_EXPIRY,
            ExpiryScope::Labels(_) => KIND_LABEL_EXPIRY,
            ExpiryScope::Prefix { .. } => KIND_PREFIX_EXPIRY,
            ExpiryScope::Namespace(_) => KIND_NAMESPACE_EXPIRY,
        }
    }

    pub(super) const fn namespace(&self) -> Option<NamedGeneration<'a>> {
        match self.scope {
            ExpiryScope::Key { namespace, .. }
            | ExpiryScope::Prefix { namespace, .. }
            | ExpiryScope::Namespace(namespace) => Some(namespace),
            ExpiryScope::Labels(_) => None,
        }
    }

    pub(super) fn check(&self) -> Result<(), EncodeError> {
        self.namespace().map_or(Ok(()), |namespace| namespace.check())?;
        match self.scope {
            ExpiryScope::Labels(labels) if labels.is_empty() => Err(EncodeError::Field),
            ExpiryScope::Prefix { prefix, .. } if prefix.len() > KEY_BYTES_MAX => {
                Err(EncodeError::Key)
            }
            _ => Ok(()),
        }
    }

    /// Writes all but the namespace.
    pub(super) fn write(&self, sink: &mut impl Sink) {
        sink.u64(self.since_ns);
        match self.scope {
            ExpiryScope::Key { hash, .. } => sink.u64(hash),
            ExpiryScope::Labels(labels) => labels.write(sink),
            ExpiryScope::Prefix { prefix, .. } => sink.prefixed(prefix),
            ExpiryScope::Namespace(_) => {}
        }
    }

    pub(super) fn read(
        kind: u8,
        namespace: Option<NamedGeneration<'a>>,
        reader: &mut Reader<'a>,
    ) -> Result<Self, DecodeError> {
        let since_ns = reader.u64()?;
        let scope = match (kind, namespace) {
            (KIND_KEY_EXPIRY, Some(namespace)) => {
                ExpiryScope::Key { namespace, hash: reader.u64()? }
            }
            (KIND_LABEL_EXPIRY, None) => ExpiryScope::Labels(LabelHashes::read(reader)?),
            (KIND_PREFIX_EXPIRY, Some(namespace)) => {
                ExpiryScope::Prefix { namespace, prefix: reader.prefixed(KEY_BYTES_MAX)? }
            }
            (KIND_NAMESPACE_EXPIRY, Some(namespace)) => ExpiryScope::Namespace(namespace),
            _ => return Err(DecodeError::Kind(kind)),
        };
        Ok(Self { since_ns, scope })
    }
}
