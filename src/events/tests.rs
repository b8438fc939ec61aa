//! The channel by itself: threads that do not start, listeners replaced, events without room.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

use super::*;

fn replaced(events: &Events) {
    let about = || About { namespace: "a", key: Some(b"key"), bytes: None, tier: CacheTier::L1 };
    events.tell(EntryChange::Replaced, about);
}

#[test]
fn without_a_thread_the_earlier_listener_stays() {
    let events = Events::default();
    let mut first = events.listen(None).unwrap();
    replaced(&events);
    let refusal = |_| Err(io::ErrorKind::WouldBlock.into());
    assert!(events.listen_on(None, refusal).is_err());
    replaced(&events);
    let next = |first: &mut BlobCacheEvents| futures::executor::block_on(first.next());
    assert!(next(&mut first).is_some() && next(&mut first).is_some());
    assert_eq!(events.lost(), 0);
}

#[test]
fn what_a_replaced_listener_had_not_read_is_lost() {
    let events = Events::default();
    let recovered = BlobCacheEvent::Recovered { records: 1, segments_dropped: 0 };
    let first = events.listen(Some(recovered.clone())).unwrap();
    replaced(&events);
    replaced(&events);
    let second = events.listen(Some(recovered)).unwrap();
    assert_eq!(events.lost(), 2);
    replaced(&events);
    drop((first, second));
    assert_eq!((events.lost(), events.memory_bytes()), (2, 0), "who drops wants no more");
}

#[test]
fn an_event_without_room_is_not_made() {
    let events = Events::default();
    let _listener = events.listen(None).unwrap();
    for _ in 0..EVENTS_MAX {
        replaced(&events);
    }
    let before = events.lost();
    assert!(before > 0);
    events.push(0, || panic!("made"));
    assert_eq!(events.lost(), before + 1);
    assert!(events.memory_bytes() <= BYTES_MAX);
}

#[test]
fn a_key_without_room_is_not_copied() {
    let events = Events::default();
    let _listener = events.listen(None).unwrap();
    events.push(BYTES_MAX - QUEUE_BYTES, || panic!("made"));
    assert_eq!(events.lost(), 1);
}
