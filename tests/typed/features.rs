//! The codecs behind features.

use futures::executor::block_on;
use serde::{Deserialize, Serialize};

use crate::{clock, open};

#[derive(Serialize, Deserialize, Debug, Clone, PartialEq)]
struct User {
    name: String,
    ages: Vec<u32>,
}

fn ada() -> User {
    User { name: "ada".into(), ages: vec![1, 300, 70_000] }
}

#[cfg(feature = "json")]
#[test]
fn json_is_what_serde_json_writes() {
    use tamis::{Json, TypedError};

    let cache = open(&clock());
    let users = cache.namespace("users").typed::<User, _>(Json);
    block_on(users.put("7", ada())).unwrap();
    assert_eq!(block_on(users.get("7")).unwrap().value(), Some(&ada()));
    let stored = block_on(cache.get("users", "7")).unwrap();
    assert_eq!(stored.value(), br#"{"name":"ada","ages":[1,300,70000]}"#);
    block_on(cache.put("users", "7", r#"{"name":"ada"}"#)).unwrap();
    assert!(block_on(users.get("7")).is_none(), "a field is missing");
    let fetch = || async { Ok::<_, std::io::Error>(ada()) };
    assert_eq!(block_on(users.get_or_fetch("7", fetch)).unwrap().value(), Some(&ada()));
    assert_eq!(block_on(users.get("7")).unwrap().value(), Some(&ada()));
    assert_eq!(cache.stats().values_undecoded(), 2);
    // A map whose keys are no strings has no JSON.
    type Odd = std::collections::BTreeMap<Vec<u8>, u8>;
    let odd = cache.namespace("odd").typed::<Odd, _>(Json);
    let refused = block_on(odd.put("k", Odd::from([(vec![1], 1)])));
    assert!(matches!(refused, Err(TypedError::Encode(_))), "{refused:?}");
}

#[cfg(feature = "postcard")]
#[test]
fn postcard_is_compact_and_refuses_what_is_left_over() {
    use tamis::Postcard;

    let cache = open(&clock());
    let users = cache.namespace("users").typed::<User, _>(Postcard);
    block_on(users.put("7", ada())).unwrap();
    assert_eq!(block_on(users.get("7")).unwrap().value(), Some(&ada()));
    let stored = block_on(cache.get("users", "7")).unwrap().into_bytes();
    assert_eq!(stored.len(), 11);
    for bad in [stored.slice(..10), [&stored[..], b"more"].concat().into()] {
        block_on(cache.put("users", "7", bad)).unwrap();
        assert!(block_on(users.get("7")).is_none());
    }
    assert_eq!(cache.stats().values_undecoded(), 2);
}
