//! Touches above a disk: the renewed deadlines count in both tiers, whatever happens, and no
//! others.

use std::time::{Duration, SystemTime};

use super::super::bench::Bench;
use crate::cache::BlobCache;
use crate::clock::Clock;
use crate::config::BlobCacheConfig;
use crate::engine::removal::Removal;
use crate::engine::renewed_slots::RenewedSlots;
use crate::events::{BlobCacheEvent, EntryChange};
use crate::failpoint::{Failpoint, plant};
use crate::hit::BlobCacheHit;
use crate::modes::{L1Admission, L2Compression};
use crate::policy::{BlobCachePolicy, ExpiredBy, Freshness};
use crate::put::BlobCachePut;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn ttl(of: u64) -> BlobCachePolicy {
    BlobCachePolicy::default().ttl(seconds(of))
}

fn config(clock: &Clock) -> crate::config::BlobCacheConfigBuilder {
    BlobCacheConfig::builder()
        .l1_bytes_max(64 << 10)
        .l2_path("simulated")
        .l2_bytes_max(8 * (64 << 10))
        .l2_segment_bytes(64 << 10)
        .l2_compression(L2Compression::Off)
        .clock(clock.clone())
}

fn bench(clock: &Clock) -> Bench {
    Bench::with(1, config(clock).build().unwrap())
}

fn clock() -> Clock {
    Clock::manual(SystemTime::UNIX_EPOCH + seconds(1 << 30))
}

fn put(bench: &mut Bench, policy: BlobCachePolicy) {
    let cache = bench.cache();
    let put = BlobCachePut::new("value").with_tags(["t"]).with_policy(policy);
    bench.run(cache.put("a", "k", put)).unwrap();
    bench.run(cache.sync()).unwrap();
}

fn touch(bench: &mut Bench, policy: &BlobCachePolicy) -> bool {
    let cache = bench.cache();
    bench.run(cache.touch("a", "k", policy)).unwrap()
}

fn get(bench: &mut Bench) -> Option<BlobCacheHit> {
    let cache = bench.cache();
    bench.run(cache.get("a", "k"))
}

/// Unlike a drop, it leaves an image of the index where it can.
fn close(bench: &mut Bench) {
    let cache = bench.cache();
    bench.run(cache.close()).unwrap();
    drop(cache);
    bench.reopen();
}

/// Overwrites keys until the log has been all around.
fn turn(cache: &BlobCache, bench: &mut Bench) {
    for number in 0..30_u32 {
        let policy = BlobCachePolicy::default().l1_admission(L1Admission::Never);
        let other = BlobCachePut::new(vec![7; 20_000]).with_policy(policy);
        bench.run(cache.put("others", number.to_le_bytes(), other)).unwrap();
    }
}

type Way = (&'static str, fn(&mut Bench));

const WAYS: [Way; 5] = [
    ("in place", |_| {}),
    ("after a kill", Bench::kill),
    ("after a close", close),
    ("after two kills", |bench| {
        bench.kill();
        bench.kill();
    }),
    ("after a promotion", |bench| {
        for _ in 0..3 {
            get(bench);
        }
    }),
];

const ADMISSIONS: [L1Admission; 3] = [L1Admission::Always, L1Admission::Auto, L1Admission::Never];

#[test]
fn the_last_deadlines_count_in_both_tiers_after_a_kill_and_after_a_close() {
    // The ttls of put and touches, all at the beginning.
    let lives = [vec![100, 10], vec![10, 100], vec![100, 10, 50], vec![10, 100, 50], vec![50, 50]];
    for (told, way) in WAYS {
        for admission in ADMISSIONS {
            for ttls in &lives {
                let told = format!("{ttls:?} {told}, {admission:?}");
                let clock = clock();
                let mut bench = bench(&clock);
                put(&mut bench, ttl(ttls[0]).l1_admission(admission));
                for of in &ttls[1..] {
                    assert!(touch(&mut bench, &ttl(*of)), "{told}");
                }
                way(&mut bench);
                let last = ttls[ttls.len() - 1];
                clock.advance(seconds(last - 1));
                let hit = get(&mut bench).unwrap_or_else(|| panic!("early end of {told}"));
                let end = SystemTime::UNIX_EPOCH + seconds((1 << 30) + last);
                assert_eq!(hit.expires_at(), Some(end), "{told}");
                let put_at = SystemTime::UNIX_EPOCH + seconds(1 << 30);
                assert_eq!(hit.written_at(), put_at, "{told}");
                clock.advance(seconds(1));
                assert!(get(&mut bench).is_none(), "late end of {told}");
                assert!(!touch(&mut bench, &ttl(100)), "{told}");
                way(&mut bench);
                assert!(get(&mut bench).is_none(), "{told}: back");
            }
        }
    }
}

#[test]
fn an_entry_on_disk_only_is_touched_by_its_head_and_stays_there() {
    for admission in [L1Admission::Auto, L1Admission::Never] {
        let clock = clock();
        let mut bench = bench(&clock);
        put(&mut bench, ttl(10).l1_admission(admission).version(3));
        bench.kill();
        assert!(touch(&mut bench, &ttl(100).version(9).priority(7)));
        let stats = bench.cache().stats();
        assert_eq!((stats.touches(), stats.entries()), (1, 0));
        clock.advance(seconds(99));
        let hit = get(&mut bench).expect("alive");
        assert_eq!(hit.version(), Some(3), "deadlines only");
        assert_eq!(bench.cache().stats().l2_hits(), 1);
    }
}

/// Whether a record that was touched and reinserted is found just before its end, and at its end,
/// after kills.
fn reinserted((first, then): (u64, u64), admission: L1Admission) -> [bool; 3] {
    let clock = clock();
    let mut bench = bench(&clock);
    put(&mut bench, ttl(first).l1_admission(admission));
    assert!(touch(&mut bench, &ttl(then)));
    let before = bench.cache().stats().l2_reinserted();
    let mut turns = 0;
    while bench.cache().stats().l2_reinserted() == before {
        // Read records are in use.
        assert!(get(&mut bench).is_some() && get(&mut bench).is_some(), "{first} {then}");
        let cache = bench.cache();
        turn(&cache, &mut bench);
        turns += 1;
        assert!(turns < 9, "it is not reinserted");
    }
    bench.kill();
    clock.advance(seconds(then - 1));
    let early = get(&mut bench).is_some();
    clock.advance(seconds(1));
    let late = get(&mut bench).is_some();
    bench.kill();
    [early, late, get(&mut bench).is_some()]
}

#[test]
fn reinserted_records_carry_the_renewed_deadlines() {
    for lives in [(1000, 100), (100, 1000)] {
        for admission in [L1Admission::Never, L1Admission::Always] {
            let found = reinserted(lives, admission);
            assert_eq!(found, [true, false, false], "{lives:?}, {admission:?}");
        }
    }
    let _planted = plant(Failpoint::RenewalNotReinserted);
    assert!(reinserted((1000, 100), L1Admission::Never)[1], "the bug is not found");
}

/// An entry is read, then touched, then promoted. Whether that is done, and whether it is found
/// after the end that it has from the touch.
fn promoted_after_a_touch() -> [bool; 2] {
    let clock = clock();
    let mut bench = bench(&clock);
    put(&mut bench, ttl(100).l1_admission(L1Admission::Always));
    bench.kill();
    let read = get(&mut bench).unwrap().entry;
    let cache = bench.cache();
    drop(cache.engine.parts.l1.remove(read.hash, |_| true));
    assert!(touch(&mut bench, &ttl(10)));
    let is_promoted = bench.run(cache.engine.promoter.promote(&read));
    clock.advance(seconds(10));
    [is_promoted, get(&mut bench).is_some()]
}

#[test]
fn what_was_read_before_a_touch_is_not_promoted_after_it() {
    assert_eq!(promoted_after_a_touch(), [false, false]);
    let _planted = plant(Failpoint::RenewalNotPromoted);
    assert_eq!(promoted_after_a_touch(), [true, true], "the bug is not found");
}

#[test]
fn what_is_stale_by_its_ttl_is_fresh_again_and_what_was_expired_softly_is_not() {
    for admission in [L1Admission::Always, L1Admission::Never] {
        let clock = clock();
        let mut bench = bench(&clock);
        let policy = ttl(10).stale_serve(seconds(100)).l1_admission(admission);
        put(&mut bench, policy.clone());
        clock.advance(seconds(20));
        assert!(get(&mut bench).unwrap().is_stale());
        assert!(touch(&mut bench, &policy));
        assert!(!get(&mut bench).unwrap().is_stale(), "{admission:?}");
        let cache = bench.cache();
        assert_eq!(bench.run(cache.expire_key("a", "k")), Ok(1));
        drop(cache);
        for _ in 0..2 {
            assert!(!touch(&mut bench, &policy), "{admission:?}");
            let hit = get(&mut bench).expect("stale");
            assert_eq!(hit.stale_window_remaining(), Some(seconds(100)), "{admission:?}");
            bench.kill();
        }
        put(&mut bench, policy.clone());
        let cache = bench.cache();
        assert_eq!(bench.run(cache.expire_tags("a", &["t"])), Ok(1));
        assert_eq!(bench.run(cache.touch("a", "k", &policy)), Ok(false));
        bench.run(cache.put("a", "k", "new")).unwrap();
        assert!(bench.run(cache.expire_namespace("a")).unwrap());
        assert_eq!(bench.run(cache.touch("a", "k", &policy)), Ok(false), "without a window");
        assert_eq!(cache.stats().touches(), 1 - u64::from(cache.stats().recovery_records() > 0));
    }
}

#[test]
fn an_expiry_after_a_touch_counts_with_the_window_of_the_touch() {
    for admission in [L1Admission::Always, L1Admission::Never] {
        for (first, then) in [(100, 10), (10, 100)] {
            let clock = clock();
            let mut bench = bench(&clock);
            put(&mut bench, ttl(500).stale_serve(seconds(first)).l1_admission(admission));
            assert!(touch(&mut bench, &ttl(500).stale_serve(seconds(then))));
            let cache = bench.cache();
            assert_eq!(bench.run(cache.expire_prefix("a", "k")), Ok(1));
            drop(cache);
            for _ in 0..2 {
                let left = get(&mut bench).expect("stale").stale_window_remaining();
                assert_eq!(left, Some(seconds(then)), "{first} {then} {admission:?}");
                bench.kill();
            }
            clock.advance(seconds(then));
            assert!(get(&mut bench).is_none(), "{first} {then} {admission:?}");
        }
    }
}

#[test]
fn it_counts_as_an_access() {
    for admission in [L1Admission::Always, L1Admission::Never] {
        for kill in [false, true] {
            let clock = clock();
            let mut bench = bench(&clock);
            let policy = BlobCachePolicy::default().idle_ttl(seconds(10));
            put(&mut bench, policy.clone().l1_admission(admission));
            for _ in 0..3 {
                clock.advance(seconds(8));
                assert!(touch(&mut bench, &policy), "{admission:?}");
                if kill {
                    bench.kill();
                }
            }
            clock.advance(seconds(10));
            assert!(get(&mut bench).is_some(), "{admission:?}, {kill}");
            clock.advance(seconds(11));
            assert!(!touch(&mut bench, &policy), "{admission:?}, {kill}");
        }
    }
}

#[test]
fn a_fill_read_before_a_touch_is_stored() {
    for admission in [L1Admission::Always, L1Admission::Never] {
        let clock = clock();
        let mut bench = bench(&clock);
        put(&mut bench, ttl(100).l1_admission(admission));
        let cache = bench.cache();
        let point = cache.read_point();
        assert!(touch(&mut bench, &ttl(10)));
        let fill = BlobCachePut::new("filled").read_at(point).with_policy(ttl(50));
        bench.run(cache.put("a", "k", fill)).unwrap();
        assert_eq!(get(&mut bench).unwrap().value(), b"filled");
        clock.advance(seconds(49));
        assert_eq!(get(&mut bench).unwrap().value(), b"filled", "its own deadlines");
        let point = cache.read_point();
        let _planted = plant(Failpoint::TouchVoidsFills);
        assert!(touch(&mut bench, &ttl(10)));
        bench.run(cache.put("a", "k", BlobCachePut::new("late").read_at(point))).unwrap();
        assert_eq!(get(&mut bench).unwrap().value(), b"filled", "the bug is not found");
    }
}

#[test]
fn tags_quota_and_counts_are_those_of_the_put() {
    for admission in [L1Admission::Always, L1Admission::Never] {
        let clock = clock();
        let mut bench = bench(&clock);
        put(&mut bench, ttl(100).l1_admission(admission));
        let before = bench.cache().stats();
        for of in [10, 20, 30] {
            assert!(touch(&mut bench, &ttl(of).stale_serve(seconds(5)).idle_ttl(seconds(50))));
        }
        let stats = bench.cache().stats();
        assert_eq!(stats.entries(), before.entries());
        assert_eq!(stats.l2_entries(), before.l2_entries());
        assert_eq!(stats.memory_labels_bytes(), before.memory_labels_bytes());
        assert!(stats.bytes_in_use() <= before.bytes_in_use() + 300 * stats.entries());
        let cache = bench.cache();
        assert_eq!(bench.run(cache.invalidate_tags("a", &["t"])), Ok(1));
        assert!(!touch(&mut bench, &ttl(10)));
        let stats = cache.stats();
        let left = (stats.entries(), stats.bytes_in_use(), stats.memory_labels_bytes());
        assert_eq!(left, (0, 0, 0));
        drop((cache, stats));
        bench.kill();
        assert!(get(&mut bench).is_none() && !touch(&mut bench, &ttl(10)));
    }
}

#[test]
fn more_touches_than_memory_remembers_end_early_and_never_late() {
    for is_shortened in [true, false] {
        let clock = clock();
        // A sixteenth has room for few.
        let config = config(&clock).l2_bytes_max(512 * (64 << 10)).l2_index_bytes_max(1 << 20);
        let mut bench = Bench::with(1, config.build().unwrap());
        let cache = bench.cache();
        let (first, then) = if is_shortened { (100, 10) } else { (10, 100) };
        let count = 12_000_u32;
        for number in 0..count {
            let put = BlobCachePut::new("v");
            let policy = ttl(first).l1_admission(L1Admission::Never);
            bench.run(cache.put("a", number.to_le_bytes(), put.with_policy(policy))).unwrap();
        }
        bench.run(cache.sync()).unwrap();
        for number in 0..count {
            let policy = ttl(then);
            let touched = cache.touch("a", number.to_le_bytes(), &policy);
            assert_eq!(bench.run(touched), Ok(true));
        }
        drop(cache);
        for _ in 0..2 {
            let cache = bench.cache();
            clock.advance(seconds(9));
            let mut found = [0, 0];
            for (which, now) in [9, 11].into_iter().enumerate() {
                for number in 0..count {
                    let hit = bench.run(cache.get("a", number.to_le_bytes()));
                    found[which] += u32::from(hit.is_some());
                }
                clock.advance(seconds(11 - now));
            }
            let [early, late] = found;
            if is_shortened {
                assert!((300..count).contains(&early), "{early} before the end");
                assert_eq!(late, 0, "after the end");
            } else {
                assert_eq!(early, count, "before the end of the put");
                assert!((300..count).contains(&late), "{late} before the end of the touch");
            }
            clock.set(SystemTime::UNIX_EPOCH + seconds(1 << 30));
            drop(cache);
            bench.kill();
            let found = bench.cache().stats().recovery_records();
            let least = if is_shortened { 300 } else { u64::from(count) };
            assert!(found >= least, "{found}: touches take the room of records");
        }
        let stats = bench.cache().stats();
        assert!(stats.memory_index_bytes() <= (1 << 20), "{}", stats.memory_index_bytes());
    }
}

#[test]
fn what_was_judged_before_a_touch_is_not_removed_after_it() {
    for has_been_touched in [false, true] {
        let clock = clock();
        let mut bench = bench(&clock);
        put(&mut bench, ttl(10).l1_admission(L1Admission::Never));
        assert!(!has_been_touched || touch(&mut bench, &ttl(10)));
        let read = get(&mut bench).unwrap().entry;
        let cache = bench.cache();
        let removal = Removal::new(&cache.engine.parts);
        let renewed = RenewedSlots::new(&cache.engine.parts);
        let judged = || {
            let slot = read.generation.live_slot(read.hash, read.sequence()).expect("alive");
            renewed.of(read.hash, slot)
        };
        let of = (read.hashed_key(), read.sequence());
        let expired = Freshness::Expired(ExpiredBy::Ttl);
        let before = judged();
        clock.advance(seconds(9));
        assert!(touch(&mut bench, &ttl(100)));
        clock.advance(seconds(2));
        removal.expire_on_disk(&read.generation, of, (expired, before));
        assert!(get(&mut bench).is_some(), "touched before: {has_been_touched}");
        assert_eq!(cache.stats().expirations(), 0);
        clock.advance(seconds(100));
        removal.expire_on_disk(&read.generation, of, (expired, judged()));
        assert_eq!(cache.stats().expirations(), 1);
    }
}

#[test]
fn accesses_count_once_a_touch_has_given_an_idle_ttl() {
    let clock = clock();
    let mut bench = bench(&clock);
    put(&mut bench, ttl(1000).l1_admission(L1Admission::Always));
    assert!(touch(&mut bench, &ttl(1000).idle_ttl(seconds(10))));
    for _ in 0..3 {
        clock.advance(seconds(8));
        assert!(get(&mut bench).is_some(), "its last access is forgotten");
        let cache = bench.cache();
        for number in 0..9_u32 {
            let policy = BlobCachePolicy::default().l1_admission(L1Admission::Always);
            let other = BlobCachePut::new(vec![7; 20_000]).with_policy(policy);
            bench.run(cache.put("others", number.to_le_bytes(), other)).unwrap();
        }
    }
}

#[test]
fn a_touch_to_the_same_idle_ttl_is_an_access_of_what_was_read_before() {
    let clock = clock();
    let mut bench = bench(&clock);
    let policy = BlobCachePolicy::default().idle_ttl(seconds(10));
    put(&mut bench, policy.clone().l1_admission(L1Admission::Never));
    let read = get(&mut bench).unwrap().entry;
    clock.advance(seconds(9));
    assert!(touch(&mut bench, &policy));
    let cache = bench.cache();
    assert!(RenewedSlots::new(&cache.engine.parts).are_current(&read));
    assert_eq!(read.last_access(), Some(clock.timestamp()));
}

#[test]
fn a_read_fault_is_an_error_and_changes_nothing() {
    let clock = clock();
    let mut bench = bench(&clock);
    put(&mut bench, ttl(100).l1_admission(L1Admission::Never));
    bench.disk.plan(|plan| plan.read_failure = 1.0);
    let cache = bench.cache();
    let touched = bench.run(cache.touch("a", "k", &ttl(10)));
    assert!(matches!(touched, Err(crate::error::CacheError::L2Io { .. })), "{touched:?}");
    bench.disk.plan(|plan| plan.read_failure = 0.0);
    clock.advance(seconds(99));
    assert!(get(&mut bench).is_some());
}

#[test]
fn a_listener_is_told_of_touches() {
    let clock = clock();
    let mut bench = bench(&clock);
    put(&mut bench, ttl(100).l1_admission(L1Admission::Never));
    let cache = bench.cache();
    let mut events = cache.events().unwrap();
    assert!(touch(&mut bench, &ttl(10)));
    let told = futures::executor::block_on(async {
        // Bounded: by the events of two calls.
        loop {
            if let Some(BlobCacheEvent::Entry(event)) = events.next().await {
                break event;
            }
        }
    });
    assert_eq!((told.change(), told.key()), (EntryChange::Touched, Some(&b"k"[..])));
}
