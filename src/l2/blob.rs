//! The fields of a blob's head: everything about a value but the value.
//!
//! Usual values take no bytes: absent fields, priority 128, raw bodies. Fields are borrowed, from
//! the caller that writes or from the head that was read.
//! `docs/format.md`, section 7.

use super::checksum::BodySum;
use super::error::{DecodeError, EncodeError};
use super::format::{GenerationNumber, KEY_BYTES_MAX, NAME_BYTES_MAX, PRIORITY_NORMAL};
use super::string_list::{Labels, Metadata};
use super::wire::{Reader, Sink};
use crate::clock::Timestamp;
use crate::modes::L1Admission;
use crate::policy::Lifetime;

const EXPIRES: u64 = 1;
const STALE_WINDOW: u64 = 1 << 1;
const IDLE_TTL: u64 = 1 << 2;
const VERSION: u64 = 1 << 3;
const ZSTD: u64 = 1 << 4;
const METADATA: u64 = 1 << 5;
const TAGS: u64 = 1 << 6;
const DEPENDENCIES: u64 = 1 << 7;
const PRIORITY: u64 = 1 << 8;
const NEVER_IN_MEMORY: u64 = 1 << 9;
const ALWAYS_IN_MEMORY: u64 = 1 << 10;
const ABSENT: u64 = 1 << 11;
const FLAGS_ALL: u64 = (1 << 12) - 1;

/// A namespace's name and the generation that a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NamedGeneration<'a> {
    /// At most 255 bytes.
    pub(crate) name: &'a str,
    pub(crate) generation: GenerationNumber,
}

impl<'a> NamedGeneration<'a> {
    pub(crate) fn check(&self) -> Result<(), EncodeError> {
        if self.name.len() <= NAME_BYTES_MAX { Ok(()) } else { Err(EncodeError::NamespaceName) }
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        sink.prefixed(self.name.as_bytes());
        sink.varint(self.generation.0);
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let name = reader.text(NAME_BYTES_MAX)?;
        Ok(Self { name, generation: GenerationNumber(reader.varint()?) })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Codec {
    Raw,
    /// One zstd frame.
    Zstd {
        /// Uncompressed length. A reader checks it against its own limits before it allocates.
        uncompressed_bytes: u32,
    },
}

/// A blob's record without the body itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blob<'a> {
    pub(crate) namespace: NamedGeneration<'a>,
    pub(crate) key: &'a [u8],
    /// When it was put; kept by reinsertion.
    pub(crate) written_ns: u64,
    /// When it stops being fresh.
    pub(crate) expires_ns: Option<u64>,
    /// How long after that it may be served stale.
    pub(crate) stale_window_ns: Option<u64>,
    /// It expires if not read for longer than this.
    pub(crate) idle_ttl_ns: Option<u64>,
    /// For compare-and-set; zero is a version, too.
    pub(crate) version: Option<u64>,
    /// 128 is normal.
    pub(crate) priority: u8,
    pub(crate) admission: L1Admission,
    /// A negative entry: the body is empty.
    pub(crate) is_absent: bool,
    pub(crate) metadata: Metadata<'a>,
    /// Tags, in the order of the put.
    pub(crate) tags: Labels<'a>,
    /// Dependencies, in the order of the put.
    pub(crate) dependencies: Labels<'a>,
    pub(crate) codec: Codec,
    /// Length and checksum of the body as stored.
    pub(crate) body: BodySum,
}

impl<'a> Blob<'a> {
    pub(crate) const fn new(
        namespace: NamedGeneration<'a>,
        key: &'a [u8],
        written_ns: u64,
        body: BodySum,
    ) -> Self {
        Self {
            namespace,
            key,
            written_ns,
            expires_ns: None,
            stale_window_ns: None,
            idle_ttl_ns: None,
            version: None,
            priority: PRIORITY_NORMAL,
            admission: L1Admission::Auto,
            is_absent: false,
            metadata: Metadata::EMPTY,
            tags: Labels::EMPTY,
            dependencies: Labels::EMPTY,
            codec: Codec::Raw,
            body,
        }
    }

    /// The same with the deadlines of a life that a touch has begun.
    pub(crate) fn with_life(&self, life: &Lifetime) -> Self {
        Self {
            expires_ns: (life.expires != Timestamp::NEVER).then_some(life.expires.0),
            stale_window_ns: (life.stale_serve > 0).then_some(life.stale_serve),
            idle_ttl_ns: (life.idle_ttl < u64::MAX).then_some(life.idle_ttl),
            ..*self
        }
    }

    /// When it expires at the latest, without regard to idle time.
    pub(crate) fn window_end_ns(&self) -> Option<u64> {
        let window = self.stale_window_ns.unwrap_or(0);
        self.expires_ns.map(|expires| expires.saturating_add(window))
    }

    pub(crate) fn check(&self) -> Result<(), EncodeError> {
        self.namespace.check()?;
        if self.key.len() > KEY_BYTES_MAX {
            return Err(EncodeError::Key);
        }
        if self.is_absent && self.body.length > 0 {
            return Err(EncodeError::Field);
        }
        let pairs = self.metadata.iter().flat_map(|(key, value)| [key, value]);
        let mut texts = pairs.chain(self.tags.iter()).chain(self.dependencies.iter());
        if texts.any(|text| text.len() > KEY_BYTES_MAX) {
            return Err(EncodeError::Text);
        }
        Ok(())
    }

    pub(crate) fn write(&self, sink: &mut impl Sink) {
        sink.u64(self.body.checksum);
        sink.u64(self.written_ns);
        sink.varint(self.flags());
        self.namespace.write(sink);
        sink.prefixed(self.key);
        let expires = self.expires_ns.map(|expires| expires.wrapping_sub(self.written_ns));
        let numbers = [expires, self.stale_window_ns, self.idle_ttl_ns, self.version];
        // Bounded: by the fields of a record.
        numbers.into_iter().flatten().for_each(|number| sink.varint(number));
        if let Codec::Zstd { uncompressed_bytes } = self.codec {
            sink.varint(u64::from(uncompressed_bytes));
        }
        if !self.metadata.is_empty() {
            self.metadata.write(sink);
        }
        // Bounded: two.
        for labels in [self.tags, self.dependencies] {
            if !labels.is_empty() {
                labels.write(sink);
            }
        }
        if self.priority != PRIORITY_NORMAL {
            sink.u8(self.priority);
        }
    }

    pub(crate) fn read(reader: &mut Reader<'a>, body_length: u32) -> Result<Self, DecodeError> {
        let body = BodySum { checksum: reader.u64()?, length: body_length };
        let written_ns = reader.u64()?;
        let flags = reader.varint()?;
        if flags > FLAGS_ALL {
            return Err(DecodeError::Field);
        }
        let admission = match flags & (NEVER_IN_MEMORY | ALWAYS_IN_MEMORY) {
            0 => L1Admission::Auto,
            NEVER_IN_MEMORY => L1Admission::Never,
            ALWAYS_IN_MEMORY => L1Admission::Always,
            _ => return Err(DecodeError::Field),
        };
        let namespace = NamedGeneration::read(reader)?;
        let key = reader.prefixed(KEY_BYTES_MAX)?;
        let mut blob = Self::new(namespace, key, written_ns, body);
        blob.admission = admission;
        blob.is_absent = flags & ABSENT != 0;
        if blob.is_absent && body_length > 0 {
            return Err(DecodeError::Field);
        }
        let mut number = |flag| (flags & flag != 0).then(|| reader.varint()).transpose();
        blob.expires_ns = number(EXPIRES)?.map(|delta| written_ns.wrapping_add(delta));
        blob.stale_window_ns = number(STALE_WINDOW)?;
        blob.idle_ttl_ns = number(IDLE_TTL)?;
        blob.version = number(VERSION)?;
        if let Some(length) = number(ZSTD)? {
            let uncompressed_bytes = u32::try_from(length).map_err(|_| DecodeError::Length)?;
            blob.codec = Codec::Zstd { uncompressed_bytes };
        }
        if flags & METADATA != 0 {
            blob.metadata = Metadata::read(reader)?;
        }
        if flags & TAGS != 0 {
            blob.tags = Labels::read(reader)?;
        }
        if flags & DEPENDENCIES != 0 {
            blob.dependencies = Labels::read(reader)?;
        }
        if flags & PRIORITY != 0 {
            blob.priority = reader.u8()?;
            if blob.priority == PRIORITY_NORMAL {
                return Err(DecodeError::Field);
            }
        }
        Ok(blob)
    }

    fn flags(&self) -> u64 {
        let present = [
            (EXPIRES, self.expires_ns.is_some()),
            (STALE_WINDOW, self.stale_window_ns.is_some()),
            (IDLE_TTL, self.idle_ttl_ns.is_some()),
            (VERSION, self.version.is_some()),
            (ZSTD, self.codec != Codec::Raw),
            (METADATA, !self.metadata.is_empty()),
            (TAGS, !self.tags.is_empty()),
            (DEPENDENCIES, !self.dependencies.is_empty()),
            (PRIORITY, self.priority != PRIORITY_NORMAL),
            (NEVER_IN_MEMORY, self.admission == L1Admission::Never),
            (ALWAYS_IN_MEMORY, self.admission == L1Admission::Always),
            (ABSENT, self.is_absent),
        ];
        // Bounded: by the flags there are.
        present.into_iter().filter(|(_, is)| *is).fold(0, |flags, (flag, _)| flags | flag)
    }
}
