//! Histories of concurrent calls, and the checker of the one rule.
//!
//! Each call is recorded with two tickets of a shared counter, drawn before it begins and after it
//! has returned. If one call's second ticket is below another's first, it returned before the other
//! began; otherwise they are concurrent, and either order is allowed.
//!
//! A call may see a value if the value's put had begun by then; if no mutation that began after the
//! put had returned and itself returned before the call began has overwritten or covered it; and,
//! if the put carried a read point, if no mutation lies between the two. Of two consecutive calls,
//! the second sees nothing older than the first: no value whose put had returned before the put of
//! the first one's value began, and none that the first one missed although its put had returned.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct FullKey {
    pub(crate) namespace: &'static str,
    pub(crate) key: &'static str,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Labels {
    pub(crate) tag: Option<&'static str>,
    pub(crate) dependency: Option<&'static str>,
}

/// The entries removed by an invalidation, or by a put that stores nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    Key(FullKey),
    Prefix(&'static str, &'static str),
    Tag(&'static str, &'static str),
    Dependency(&'static str, &'static str),
    Namespace(&'static str),
    All,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Put {
    pub(crate) full_key: FullKey,
    /// Unique to each put.
    pub(crate) value: u64,
    pub(crate) labels: Labels,
    pub(crate) version: Option<u64>,
    /// Drawn after the read point was taken.
    pub(crate) read_at: Option<u64>,
    /// Whether it has certainly taken effect.
    pub(crate) is_certain: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Put(Put),
    Invalidation(Scope),
    /// A put that stores nothing, and may have been refused or dropped.
    PossibleRemoval(FullKey),
    /// A get; None for a miss.
    Get(FullKey, Option<u64>),
    /// A call of `exists`.
    Exists(FullKey, bool),
    /// A put refused because of this version.
    Mismatch(FullKey, u64),
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) event: Event,
}

/// The shared counter.
#[derive(Debug, Default)]
pub(crate) struct Tickets(AtomicU64);

impl Tickets {
    pub(crate) fn draw(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

#[derive(Debug)]
pub(crate) struct History {
    calls: Vec<Call>,
    /// The put of each value, with its call.
    puts: HashMap<u64, (Call, Put)>,
}

impl Scope {
    fn covers(self, full_key: FullKey, labels: Labels) -> bool {
        match self {
            Self::Key(of) => of == full_key,
            Self::Prefix(namespace, prefix) => {
                namespace == full_key.namespace && full_key.key.starts_with(prefix)
            }
            Self::Tag(namespace, tag) => namespace == full_key.namespace && labels.tag == Some(tag),
            Self::Dependency(namespace, dependency) => {
                namespace == full_key.namespace && labels.dependency == Some(dependency)
            }
            Self::Namespace(namespace) => namespace == full_key.namespace,
            Self::All => true,
        }
    }
}

impl Event {
    /// Whether this removes an earlier entry of this key and these labels.
    pub(crate) fn ends(&self, full_key: FullKey, labels: Labels) -> bool {
        match self {
            Self::Put(put) => put.is_certain && put.full_key == full_key,
            Self::Invalidation(cover) => cover.covers(full_key, labels),
            _ => false,
        }
    }
}

impl History {
    pub(crate) fn new(calls: Vec<Call>) -> Self {
        let put = |call: &Call| match call.event {
            Event::Put(put) => Some((put.value, (*call, put))),
            _ => None,
        };
        let puts = calls.iter().filter_map(put).collect();
        Self { calls, puts }
    }

    /// The first violation, with all calls involved.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut sightings: HashMap<FullKey, Vec<(&Call, Option<u64>)>> = HashMap::new();
        for call in &self.calls {
            match call.event {
                Event::Get(full_key, found) => {
                    self.check_value(call, full_key, found)?;
                    sightings.entry(full_key).or_default().push((call, found));
                }
                Event::Exists(full_key, true) => self.check_presence(call, full_key, None)?,
                Event::Exists(full_key, false) => {
                    sightings.entry(full_key).or_default().push((call, None));
                }
                Event::Mismatch(full_key, version) => {
                    self.check_presence(call, full_key, Some(version))?;
                }
                Event::Put(_) | Event::Invalidation(_) | Event::PossibleRemoval(_) => {}
            }
        }
        sightings.values().try_for_each(|sightings| self.check_order(sightings))
    }

    /// The first unexplained miss, in a cache with room for all: after a put that has certainly
    /// taken effect, without a later call that may have removed or replaced its entry.
    pub(crate) fn check_misses(&self) -> Result<(), String> {
        for call in &self.calls {
            let (Event::Get(full_key, None) | Event::Exists(full_key, false)) = call.event else {
                continue;
            };
            let was_put = |(of, put): &&(Call, Put)| {
                put.full_key == full_key && put.is_certain && of.end < call.start
            };
            let Some((of, _)) = self.puts.values().filter(was_put).max_by_key(|(of, _)| of.start)
            else {
                continue;
            };
            let may_explain = |other: &&Call| {
                other.end > of.start && other.start < call.end && self.may_empty(other, full_key)
            };
            if self.calls.iter().find(may_explain).is_none() {
                return Err(format!("{call:?}\nhas missed\n{of:?}\nwithout a reason"));
            }
        }
        Ok(())
    }

    fn may_empty(&self, call: &Call, full_key: FullKey) -> bool {
        match call.event {
            Event::PossibleRemoval(of) => of == full_key,
            Event::Invalidation(cover) => self
                .puts
                .values()
                .any(|(_, put)| put.full_key == full_key && cover.covers(full_key, put.labels)),
            _ => false,
        }
    }

    fn check_value(
        &self,
        call: &Call,
        full_key: FullKey,
        found: Option<u64>,
    ) -> Result<(), String> {
        let Some(value) = found else { return Ok(()) };
        let (of, put) =
            self.puts.get(&value).ok_or(format!("{call:?}: a value that was never put"))?;
        if put.full_key != full_key {
            return Err(format!("{call:?}\nhas found the value of\n{of:?}"));
        }
        match self.reason_against(of, put, call) {
            Some(reason) => {
                Err(format!("{call:?}\nhas found what\n{of:?}\nhas put, in spite of\n{reason:?}"))
            }
            None => Ok(()),
        }
    }

    /// Whether the call may have seen an entry, with that version if there is one.
    fn check_presence(
        &self,
        reader: &Call,
        full_key: FullKey,
        version: Option<u64>,
    ) -> Result<(), String> {
        let could_be_seen = |(of, put): &(Call, Put)| {
            put.full_key == full_key
                && (version.is_none() || put.version == version)
                && self.reason_against(of, put, reader).is_none()
        };
        if self.puts.values().any(could_be_seen) {
            return Ok(());
        }
        Err(format!("{reader:?}\nhas seen something where nothing was"))
    }

    /// The call that makes it impossible for `reader` to see the value of `put`.
    fn reason_against(&self, of: &Call, put: &Put, reader: &Call) -> Option<Call> {
        if of.start > reader.end {
            return Some(*of);
        }
        let is_between = |call: &&Call| call.start > of.end && call.end < reader.start;
        let is_overlooked = |call: &&Call| {
            put.read_at.is_some_and(|point| call.start > point && call.end < of.start)
        };
        self.calls
            .iter()
            .filter(|call| is_between(call) || is_overlooked(call))
            .find(|call| call.event.ends(put.full_key, put.labels))
            .copied()
    }

    /// Sightings of one key never go back in time.
    fn check_order(&self, sightings: &[(&Call, Option<u64>)]) -> Result<(), String> {
        let put_of = |value: &Option<u64>| value.map(|value| &self.puts[&value].0);
        for (later, found) in sightings {
            let Some(of) = put_of(found) else { continue };
            for (earlier, before) in sightings {
                let newer = put_of(before);
                let known_since = newer.map_or(earlier.start, |newer| newer.start);
                if earlier.end < later.start && of.end < known_since {
                    return Err(format!(
                        "{later:?}\nhas found\n{of:?}\nthough earlier on\n{earlier:?}\nhad found\n\
                         {newer:?}"
                    ));
                }
            }
        }
        Ok(())
    }
}

/// The checker's own tests: invalid histories, and how they become valid.
#[cfg(test)]
mod tests {
    use super::*;

    const HERE: FullKey = FullKey { namespace: "n", key: "a/1" };

    fn put(start: u64, end: u64, value: u64) -> Call {
        let labels = Labels { tag: Some("t"), dependency: None };
        let (version, read_at, is_certain) = (None, None, true);
        let put = Put { full_key: HERE, value, labels, version, read_at, is_certain };
        Call { start, end, event: Event::Put(put) }
    }

    fn get(start: u64, end: u64, found: Option<u64>) -> Call {
        Call { start, end, event: Event::Get(HERE, found) }
    }

    fn ending(start: u64, end: u64, scope: Scope) -> Call {
        Call { start, end, event: Event::Invalidation(scope) }
    }

    fn is_right(calls: &[Call]) -> bool {
        History::new(calls.to_vec()).check().is_ok()
    }

    #[test]
    fn calls_in_between_must_be_seen_and_concurrent_ones_need_not() {
        assert!(is_right(&[put(0, 1, 1), put(2, 9, 2), get(5, 6, Some(1)), get(7, 8, Some(2))]));
        assert!(!is_right(&[put(0, 1, 1), put(2, 3, 2), get(5, 6, Some(1))]), "overwritten");
        assert!(!is_right(&[get(5, 6, Some(1)), put(7, 8, 1)]), "seen before it was put");
        let covers = [
            Scope::Key(HERE),
            Scope::Prefix("n", "a/"),
            Scope::Tag("n", "t"),
            Scope::Namespace("n"),
            Scope::All,
        ];
        for cover in covers {
            assert!(!is_right(&[put(0, 1, 1), ending(2, 3, cover), get(4, 5, Some(1))]));
            assert!(is_right(&[put(0, 2, 1), ending(1, 3, cover), get(4, 5, Some(1))]));
            assert!(is_right(&[put(0, 1, 1), ending(2, 4, cover), get(3, 5, Some(1))]));
        }
        for cover in [Scope::Prefix("n", "b"), Scope::Dependency("n", "t"), Scope::Tag("m", "t")] {
            assert!(is_right(&[put(0, 1, 1), ending(2, 3, cover), get(4, 5, Some(1))]));
        }
    }

    #[test]
    fn sightings_never_go_back() {
        let puts = [put(0, 1, 1), put(2, 20, 2)];
        let with = |gets: [Call; 2]| [puts.to_vec(), gets.to_vec()].concat();
        assert!(is_right(&with([get(5, 6, Some(1)), get(7, 8, Some(2))])));
        assert!(!is_right(&with([get(5, 6, Some(2)), get(7, 8, Some(1))])));
        assert!(!is_right(&with([get(5, 6, None), get(7, 8, Some(1))])), "missed, then found");
        assert!(is_right(&with([get(5, 6, None), get(7, 8, Some(2))])), "not yet there");
    }

    #[test]
    fn a_miss_needs_a_reason_if_there_is_room() {
        let is_explained = |calls: &[Call]| History::new(calls.to_vec()).check_misses().is_ok();
        assert!(!is_explained(&[put(0, 1, 1), get(2, 3, None)]));
        assert!(!is_explained(&[ending(0, 1, Scope::All), put(2, 3, 1), get(4, 5, None)]));
        assert!(is_explained(&[ending(0, 3, Scope::All), put(2, 4, 1), get(5, 6, None)]));
        assert!(is_explained(&[put(0, 2, 1), get(1, 3, None)]));
    }

    #[test]
    fn a_put_that_overlooks_a_mutation_must_not_be_stored() {
        let mut late = put(6, 7, 1);
        let Event::Put(put) = &mut late.event else { unreachable!() };
        put.read_at = Some(2);
        let with =
            |start| is_right(&[ending(start, 5, Scope::Key(HERE)), late, get(8, 9, Some(1))]);
        assert!(!with(3) && with(1));
    }
}
