//! With the feature `serde`, statistics serialize with every figure under the name of its getter.

#![cfg(feature = "serde")]
#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use std::fmt;

use futures::executor::block_on;
use serde::ser::{
    Error, Impossible, Serialize, SerializeStruct, SerializeStructVariant, Serializer,
};
use tamis::{BlobCache, BlobCacheConfig, L2State, NamespaceQuota};

/// A JSON serializer for the types used in statistics; refuses all others.
struct Json;

#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

/// The fields of a struct so far.
struct Fields(Vec<String>);

impl Fields {
    fn add<T: Serialize + ?Sized>(&mut self, name: &str, value: &T) -> Result<(), Refused> {
        self.0.push(format!("\"{name}\":{}", value.serialize(Json)?));
        Ok(())
    }
}

impl SerializeStruct for Fields {
    type Ok = String;
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.add(name, value)
    }

    fn end(self) -> Result<String, Refused> {
        Ok(format!("{{{}}}", self.0.join(",")))
    }
}

impl SerializeStructVariant for Fields {
    type Ok = String;
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.add(name, value)
    }

    fn end(self) -> Result<String, Refused> {
        Ok(format!("{{{}}}", self.0.join(",")))
    }
}

macro_rules! shown {
    ($($name:ident: $type:ty,)*) => { $(
        fn $name(self, value: $type) -> Result<String, Refused> {
            Ok(value.to_string())
        }
    )* };
}

macro_rules! refused {
    ($($name:ident($($type:ty),*) -> $result:ty;)*) => { $(
        fn $name(self, $(_: $type),*) -> Result<$result, Refused> {
            Err(Refused::custom(stringify!($name)))
        }
    )* };
}

type Never = Impossible<String, Refused>;

impl Serializer for Json {
    type Ok = String;
    type Error = Refused;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    shown! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_f32: f32,
        serialize_f64: f64,
    }

    refused! {
        serialize_char(char) -> String;
        serialize_bytes(&[u8]) -> String;
        serialize_unit() -> String;
        serialize_unit_struct(&'static str) -> String;
        serialize_seq(Option<usize>) -> Never;
        serialize_tuple(usize) -> Never;
        serialize_tuple_struct(&'static str, usize) -> Never;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Never;
        serialize_map(Option<usize>) -> Never;
    }

    fn serialize_str(self, value: &str) -> Result<String, Refused> {
        Ok(format!("{value:?}"))
    }

    fn serialize_none(self) -> Result<String, Refused> {
        Ok("null".to_owned())
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<String, Refused> {
        value.serialize(self)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<String, Refused> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: &T,
    ) -> Result<String, Refused> {
        Err(Refused::custom(name))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<String, Refused> {
        Err(Refused::custom(name))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields, Refused> {
        Ok(Fields(Vec::new()))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Fields, Refused> {
        Ok(Fields(vec![format!("\"variant\":{variant:?}")]))
    }
}

fn json(value: &impl Serialize) -> String {
    value.serialize(Json).unwrap()
}

#[test]
fn statistics_serialize_under_their_getter_names() {
    let quota = NamespaceQuota { l1_bytes_max: Some(1 << 20), l2_bytes_max: None };
    let config = BlobCacheConfig::builder().quota("n", quota).build().unwrap();
    let cache = block_on(BlobCache::open(config)).unwrap();
    block_on(cache.put("n", "k", "value")).unwrap();
    block_on(cache.get("n", "k")).unwrap();
    let stats = cache.stats();

    let all = json(&stats);
    // `Debug` is derived, and lists each field.
    let shown = format!("{stats:?}");
    let names = shown.split([' ', '{']).filter_map(|word| word.strip_suffix(':'));
    let names: Vec<_> = names.collect();
    assert!(names.len() > 50, "{shown}");
    for name in names {
        assert!(all.contains(&format!("\"{name}\":")), "{name} is not in {all}");
    }
    for part in
        ["\"hits\":1,", "\"entries\":1,", "\"l2_state\":\"Off\",", "{\"secs\":0,\"nanos\":0}"]
    {
        assert!(all.contains(part), "{part} is not in {all}");
    }

    let held = json(&cache.namespace_stats("n").unwrap());
    let limits = "\"quota\":{\"l1_bytes_max\":1048576,\"l2_bytes_max\":null}";
    assert!(held.contains(limits), "{held}");

    let fetch = "{\"begun\":0,\"errors\":0,\"timeouts\":0,\"held_off\":0,\"spawned\":0,\
                 \"not_spawned\":0,\"tasks\":0,\"refreshes_ahead\":0,\"soft_timeouts\":0,\
                 \"not_stored\":0,\"joined\":0,\"waits_timed_out\":0,\"under_way\":0}";
    assert_eq!(json(&stats.fetch()), fetch);
    assert!(json(&stats.l1()).starts_with("{\"hits\":1,"));
    let disk = json(&stats.l2());
    assert!(disk.starts_with("{\"state\":\"Off\",") && disk.contains(",\"hits\":0,"), "{disk}");
    assert!(json(&stats.memory()).starts_with("{\"l1_bytes\":"));

    let off = json(&L2State::Degraded { reason: "no space".into() });
    assert_eq!(off, "{\"variant\":\"Degraded\",\"reason\":\"no space\"}");
}
