//! `Renewal`: a change that gives an older blob other deadlines, and no other value.

use super::blob::NamedGeneration;
use super::error::{DecodeError, EncodeError};
use super::format::Position;
use super::wire::{Reader, Sink};
use crate::clock::Timestamp;
use crate::policy::Lifetime;

pub(crate) const KIND_DEADLINE_RENEWAL: u8 = 7;

const EXPIRES: u64 = 1;
const STALE_WINDOW: u64 = 1 << 1;
const IDLE_TTL: u64 = 1 << 2;
const SHORTENED: u64 = 1 << 3;
const FLAGS_ALL: u64 = (1 << 4) - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Renewal<'a> {
    pub(crate) namespace: NamedGeneration<'a>,
    /// The key's hash.
    pub(crate) hash: u64,
    /// Where the blob is.
    pub(crate) position: Position,
    /// From the touch on.
    pub(crate) life: Lifetime,
    /// This one, or one of the same blob before, has made a deadline earlier.
    pub(crate) shortened: bool,
}

impl<'a> Renewal<'a> {
    pub(super) fn check(&self) -> Result<(), EncodeError> {
        self.namespace.check()
    }

    /// Writes all but the namespace.
    pub(super) fn write(&self, sink: &mut impl Sink) {
        let Lifetime { written, expires, stale_serve, idle_ttl } = self.life;
        sink.u64(self.hash);
        sink.varint(self.position.value());
        sink.u64(written.0);
        let expires = (expires != Timestamp::NEVER).then(|| expires.0.wrapping_sub(written.0));
        let stale_window = (stale_serve > 0).then_some(stale_serve);
        let idle_ttl = (idle_ttl < u64::MAX).then_some(idle_ttl);
        let present = [
            (EXPIRES, expires.is_some()),
            (STALE_WINDOW, stale_window.is_some()),
            (IDLE_TTL, idle_ttl.is_some()),
            (SHORTENED, self.shortened),
        ];
        // Bounded: by the flags there are.
        let flags = present.into_iter().filter(|(_, is)| *is).fold(0, |all, (flag, _)| all | flag);
        sink.varint(flags);
        // Bounded: by the fields of a record.
        [expires, stale_window, idle_ttl].into_iter().flatten().for_each(|it| sink.varint(it));
    }

    pub(super) fn read(
        namespace: NamedGeneration<'a>,
        reader: &mut Reader<'a>,
    ) -> Result<Self, DecodeError> {
        let hash = reader.u64()?;
        let position = Position::new(reader.varint()?).ok_or(DecodeError::Misplaced)?;
        let written = reader.u64()?;
        let flags = reader.varint()?;
        if flags > FLAGS_ALL {
            return Err(DecodeError::Field);
        }
        let mut number = |flag| (flags & flag != 0).then(|| reader.varint()).transpose();
        let expires = number(EXPIRES)?.map(|delta| written.wrapping_add(delta));
        let (stale_window, idle_ttl) = (number(STALE_WINDOW)?, number(IDLE_TTL)?);
        // An absent field says the same.
        if expires == Some(u64::MAX) || stale_window == Some(0) || idle_ttl == Some(u64::MAX) {
            return Err(DecodeError::Field);
        }
        let life = Lifetime {
            written: Timestamp(written),
            expires: expires.map_or(Timestamp::NEVER, Timestamp),
            stale_serve: stale_window.unwrap_or(0),
            idle_ttl: idle_ttl.unwrap_or(u64::MAX),
        };
        Ok(Self { namespace, hash, position, life, shortened: flags & SHORTENED != 0 })
    }
}
