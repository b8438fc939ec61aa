//! A clock that steps back and forth, by a nanosecond, seconds and years, to its first and its last
//! moment, and beside every deadline; in memory, on disk and over restarts.
//!
//! By the clock at the call, no entry is served at or past its end, and each is stale exactly where
//! it should be. Nothing is lost without a reason: an entry whose end the clock has not reached
//! since its put is there, wherever the clock has been.
//!
//! `TAMIS_CASES` sets the number of cases, `TAMIS_SEED` runs one alone.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::bench::{Bench, two_tiers};
use crate::clock::{Clock, Timestamp};
use crate::hit::{BlobCacheHit, CacheTier};
use crate::modes::{BackgroundSweep, CrashSafety, L1Admission};
use crate::policy::{BlobCachePolicy, ExtendedTtlPolicy, Lifetime, end_of_window};
use crate::put::BlobCachePut;
use crate::sweep::SweepLimit;

const START: u64 = 1_000_000_000_000_000_000;
const SECOND: u64 = 1_000_000_000;
const YEAR: u64 = 31_557_600 * SECOND;

/// The model of an entry.
struct Written {
    number: u64,
    life: Lifetime,
    /// The latest moment of the clock since the put, and the latest one at which it was accessed.
    latest: u64,
    accessed: u64,
}

#[derive(Debug, Default)]
struct Tally {
    fresh: u64,
    stale: u64,
    gone: u64,
    on_disk: u64,
    restarts: u64,
    steps: u64,
}

struct Steps {
    random: StdRng,
    bench: Bench,
    clock: Clock,
    written: BTreeMap<u64, Written>,
    numbers: u64,
    tally: Tally,
}

fn policy(random: &mut StdRng, now: u64) -> BlobCachePolicy {
    let span = |random: &mut StdRng| {
        let unit = [1, SECOND, 3600 * SECOND, YEAR][random.random_range(0..4)];
        let nanos = unit.saturating_mul(random.random_range(0..60));
        let ever = random.random_bool(0.05);
        if ever { Duration::MAX } else { Duration::from_nanos(nanos) }
    };
    let admissions = [L1Admission::Always, L1Admission::Never];
    let mut policy = BlobCachePolicy::default().l1_admission(admissions[random.random_range(0..2)]);
    if random.random_bool(0.7) {
        policy = policy.ttl(span(random));
    }
    if random.random_bool(0.3) {
        let at = now.saturating_add(random.random_range(0..100) * SECOND);
        policy = policy.expires_at(SystemTime::from(Timestamp(at)));
    }
    policy.extended(ExtendedTtlPolicy {
        stale_serve: random.random_bool(0.5).then(|| span(random)),
        idle_ttl: random.random_bool(0.2).then(|| span(random)),
        jitter_pct: [0, 0, 10, 255][random.random_range(0..4)],
    })
}

impl Steps {
    fn new(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let clock = Clock::manual(UNIX_EPOCH + Duration::from_nanos(START));
        let safeties = [CrashSafety::Process, CrashSafety::Power];
        let config = two_tiers(&clock)
            .background_sweep(BackgroundSweep::Off)
            .crash_safety(safeties[random.random_range(0..2)]);
        let bench = Bench::with(seed, config.build().unwrap());
        Self { random, bench, clock, written: BTreeMap::new(), numbers: 0, tally: Tally::default() }
    }

    fn now(&self) -> u64 {
        self.clock.timestamp().0
    }

    /// Beside a deadline, back or forth by a span, or to an end of time.
    fn step(&mut self) {
        let now = self.now();
        let random = &mut self.random;
        let span = [1, SECOND, 60 * SECOND, 3600 * SECOND, YEAR][random.random_range(0..5)]
            .saturating_mul(random.random_range(1..30));
        let to = match random.random_range(0..20) {
            0 => 0,
            1 => u64::MAX,
            2 => u64::MAX - 1,
            3 | 4 => START,
            5..8 => now.saturating_add(span),
            8..11 => now.saturating_sub(span),
            _ => {
                let chosen = random.random_range(0..=self.written.len());
                let Some(written) = self.written.values().nth(chosen) else { return };
                let Lifetime { expires, stale_serve, idle_ttl, .. } = written.life;
                let idle = written.accessed.saturating_add(idle_ttl);
                let deadlines = [expires.0, end_of_window(expires, stale_serve).0, idle];
                let deadline = deadlines[random.random_range(0..deadlines.len())];
                [deadline.saturating_sub(1), deadline, deadline.saturating_add(1)]
                    [random.random_range(0..3)]
            }
        };
        self.clock.set(SystemTime::from(Timestamp(to)));
        self.tally.steps += 1;
        for written in self.written.values_mut() {
            written.latest = written.latest.max(to);
        }
    }

    fn put(&mut self, key: u64) {
        let now = self.now();
        let policy = policy(&mut self.random, now);
        self.numbers += 1;
        let number = self.numbers;
        let (key_bytes, life) = {
            let bytes = key.to_le_bytes();
            (bytes, policy.lifetime("a", &bytes, Timestamp(now)))
        };
        let put = BlobCachePut::copy_from_slice(&number.to_le_bytes()).with_policy(policy);
        let cache = self.bench.cache();
        self.bench.run(cache.put("a", key_bytes, put)).unwrap();
        self.written.insert(key, Written { number, life, latest: now, accessed: now });
    }

    fn ask(&mut self, key: u64) -> Result<(), String> {
        let cache = self.bench.cache();
        let name = key.to_le_bytes();
        let hit = if self.random.random_bool(0.7) {
            self.bench.run(cache.get("a", name))
        } else {
            // What is stale is better than an error.
            let fetch = || async { Err::<BlobCachePut, _>("none") };
            self.bench.run(cache.get_or_fetch("a", name, fetch)).ok()
        };
        self.judge(key, hit.as_ref())
    }

    fn judge(&mut self, key: u64, hit: Option<&BlobCacheHit>) -> Result<(), String> {
        let now = self.now();
        let Some(written) = self.written.get_mut(&key) else {
            return hit.map_or(Ok(()), |_| Err(format!("{key} was never put")));
        };
        let Lifetime { expires, stale_serve, idle_ttl, .. } = written.life;
        let end = end_of_window(expires, stale_serve).0;
        let Some(hit) = hit else {
            self.tally.gone += 1;
            let has_ended = written.latest >= end && end != u64::MAX;
            let is_idle = idle_ttl != u64::MAX;
            return if has_ended || is_idle {
                Ok(())
            } else {
                Err(format!("{key} is lost at {now}: ends {end}, seen {}", written.latest))
            };
        };
        if hit.value() != written.number.to_le_bytes() {
            return Err(format!("{key} has an old value"));
        }
        let is_ended =
            (now >= end && end != u64::MAX) || now.saturating_sub(written.accessed) > idle_ttl;
        let is_stale = now >= expires.0 && expires.0 != u64::MAX;
        if is_ended || hit.is_stale() != is_stale {
            let of = (expires.0, end, written.accessed, idle_ttl);
            return Err(format!("{key} at {now}, stale {}: {of:?}", hit.is_stale()));
        }
        written.accessed = written.accessed.max(now);
        let count = if is_stale { &mut self.tally.stale } else { &mut self.tally.fresh };
        *count += 1;
        self.tally.on_disk += u64::from(hit.tier() == CacheTier::L2);
        Ok(())
    }

    fn restart(&mut self) {
        self.tally.restarts += 1;
        let cache = self.bench.cache();
        self.bench.run(cache.sync()).unwrap();
        if self.random.random_bool(0.5) {
            self.bench.run(cache.close()).unwrap();
            self.bench.reopen();
        } else {
            self.bench.kill();
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..150 {
            let key = self.random.random_range(0..12);
            match self.random.random_range(0..100) {
                0..30 => self.step(),
                30..55 => self.put(key),
                55..93 => self.ask(key)?,
                93..96 => {
                    let cache = self.bench.cache();
                    self.bench.run(cache.sweep_expired(SweepLimit::Entries(usize::MAX)));
                }
                96..98 => self.bench.pass(Duration::from_secs(2)),
                _ => self.restart(),
            }
        }
        let panics = self.bench.simulation.panics();
        if panics.is_empty() { Ok(()) } else { Err(format!("{panics:?}")) }
    }
}

#[test]
fn a_clock_that_steps_serves_nothing_past_its_end_and_loses_nothing_before() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let seeds = match number("TAMIS_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("TAMIS_CASES").unwrap_or(400),
    };
    let (cases, mut all) = (seeds.end - seeds.start, Tally::default());
    for seed in seeds {
        let mut steps = Steps::new(seed);
        steps.run().unwrap_or_else(|what| panic!("TAMIS_SEED={seed} fails: {what}"));
        let Tally { fresh, stale, gone, on_disk, restarts, steps } = steps.tally;
        all.fresh += fresh;
        all.stale += stale;
        all.gone += gone;
        all.on_disk += on_disk;
        all.restarts += restarts;
        all.steps += steps;
    }
    println!("{cases} cases: {all:?}");
    let least = [all.fresh, 4 * all.stale, all.gone, all.on_disk, all.restarts];
    assert!(cases < 100 || least.iter().all(|least| *least > cases), "{all:?}");
}
