//! `Meta`: what is known of an object, as the cache holds it. `Found`: with what came along.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tamis::Codec;

use super::hand::Hand;
use super::moment::{Moment, Order};
use super::object::Object;

/// The first byte of what the cache holds. A later form has another, and does not decode this one.
const FORM: u8 = 1;

/// What a fetch has found. The cache holds the meta alone; who has fetched it has the rest in hand.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) meta: Meta,
    pub(crate) hand: Option<Hand>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Meta {
    /// When the origin was asked, in nanoseconds since 1970: it knew this then, or later.
    asked: u64,
    order: Order,
    /// None: there was no object.
    pub(crate) object: Option<Object>,
}

impl Meta {
    pub(crate) fn new(asked: Moment, object: Option<Object>) -> Self {
        Self { asked: nanos(asked.time), order: asked.order, object }
    }

    /// Whether the origin was asked after a moment.
    pub(crate) fn is_after(&self, moment: Moment) -> bool {
        self.order.is_after(moment.order)
    }

    /// Whether it is what the origin knew within a span of time. A time behind it is one of before
    /// the clock was set back.
    pub(crate) fn is_within(&self, span: RangeInclusive<SystemTime>) -> bool {
        (nanos(*span.start())..=nanos(*span.end())).contains(&self.asked)
    }
}

fn nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// A byte for the form, and what postcard makes of the meta.
#[derive(Debug)]
pub(crate) struct MetaCodec;

/// Bytes of another form, or none at all.
#[derive(Debug)]
pub(crate) struct NotMeta;

impl fmt::Display for NotMeta {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("not what is known of an object")
    }
}

impl std::error::Error for NotMeta {}

impl Codec<Found> for MetaCodec {
    type Error = NotMeta;

    fn encode(&self, found: &Found) -> Result<Bytes, NotMeta> {
        let encoded = postcard::to_extend(&found.meta, vec![FORM]).map_err(|_| NotMeta)?;
        Ok(encoded.into())
    }

    fn decode(&self, bytes: &Bytes) -> Result<Found, NotMeta> {
        let (&FORM, rest) = bytes.split_first().ok_or(NotMeta)? else { return Err(NotMeta) };
        let (meta, left): (Meta, _) = postcard::take_from_bytes(rest).map_err(|_| NotMeta)?;
        let is_sound = meta.object.as_ref().is_none_or(|object| object.block_bytes > 0);
        if !left.is_empty() || !is_sound {
            return Err(NotMeta);
        }
        Ok(Found { meta, hand: None })
    }
}

#[cfg(test)]
mod tests {
    use super::super::object::tests::object;
    use super::super::object_store::path::Path;
    use super::*;

    #[test]
    fn what_is_known_of_an_object_comes_back_whole() {
        let (object, meta, attributes) = object(25);
        let asked = UNIX_EPOCH + Duration::from_secs(5);
        let moment = |store, number| Moment { time: asked, order: Order { store, number } };
        let found = Found { meta: Meta::new(moment(7, 2), Some(object)), hand: None };
        let bytes = MetaCodec.encode(&found).unwrap();
        let back = MetaCodec.decode(&bytes).unwrap();
        assert!(back.meta.is_after(moment(7, 1)));
        assert!(!back.meta.is_after(moment(7, 2)) && !back.meta.is_after(moment(8, 1)));
        let (tick, known) = (Duration::from_nanos(1), &back.meta);
        assert!(known.is_within(asked..=asked) && !known.is_within(asked + tick..=asked + tick));
        assert!(!known.is_within(UNIX_EPOCH..=asked - tick), "the clock was set back");
        let object = back.meta.object.unwrap();
        assert_eq!(object.meta(&Path::from("a")), meta);
        assert_eq!(object.attributes(), attributes);
        assert!(object.is(&meta));

        for cut in 0..bytes.len() {
            assert!(MetaCodec.decode(&bytes.slice(..cut)).is_err());
        }
        let longer = Bytes::from([&bytes[..], &[0]].concat());
        assert!(MetaCodec.decode(&longer).is_err());
        let of_another_form = Bytes::from([&[FORM + 1], &bytes[1..]].concat());
        assert!(MetaCodec.decode(&of_another_form).is_err());
    }
}
