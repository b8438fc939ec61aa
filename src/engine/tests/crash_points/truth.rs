//! `Truth`: what a get may find of each key.

use std::collections::{BTreeMap, BTreeSet};

use super::calls::{Call, Freshness, KEYS, Key, SPACES};

/// A value that may be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value {
    number: u32,
    freshness: Freshness,
}

#[derive(Clone, Default)]
pub(super) struct Truth {
    /// The values that may be found, the oldest first. None: there is none any more.
    right: BTreeMap<Key, Vec<Option<Value>>>,
    /// Keys whose value has to be found.
    certain: BTreeSet<Key>,
}

impl Truth {
    pub(super) fn begin(&mut self, call: Call) {
        let after = match call {
            Call::Put(_, number, _) => Some(Value { number, freshness: Freshness::Put }),
            _ => None,
        };
        for space in 0..SPACES.len() {
            for key in (0..KEYS).map(|key| (space, key)).filter(|&key| call.matches(key)) {
                let right = self.right.entry(key).or_insert_with(|| vec![None]);
                if call.changes(Freshness::Put).is_none() {
                    right.push(after);
                } else {
                    let mut after: Vec<_> =
                        right.iter().map(|value| changed(call, *value)).collect();
                    after.retain(|value| !right.contains(value));
                    right.extend(after);
                }
                self.certain.remove(&key);
            }
        }
    }

    /// A touch has found an entry, or not.
    pub(super) fn end(&mut self, call: Call, has_found: bool) {
        for (&key, right) in &mut self.right {
            if call.matches(key) && call.changes(Freshness::Put).is_none() {
                right.drain(..right.len() - 1);
            } else if call.matches(key) && call.is_touch() && !has_found {
                right.retain(|value| {
                    value.is_none_or(|value| value.freshness == Freshness::Expired)
                });
                right.push(None);
            } else if call.matches(key) {
                let is_it = |value: &Option<Value>| {
                    let is_expired =
                        value.is_some_and(|value| value.freshness == Freshness::Expired);
                    *value == changed(call, *value) && !(is_expired && call.is_touch())
                };
                right.retain(is_it);
            }
            let is_live = matches!(right[..], [Some(value)] if value.freshness.is_live());
            if matches!(call, Call::Sync) && is_live {
                self.certain.insert(key);
            }
        }
    }

    /// Judges what is found, which is then the only right value. `is_later`: behind the ttl of
    /// puts, when only what a touch has extended is fresh. Returns whether the value may be
    /// extended.
    pub(super) fn find(
        &mut self,
        key: Key,
        (number, is_stale): (u32, bool),
        is_later: bool,
    ) -> Result<bool, String> {
        let right = self.right.entry(key).or_insert_with(|| vec![None]);
        let is_it = |value: &Value| {
            value.number == number && value.freshness.is_stale(is_later) == is_stale
        };
        let found: Vec<_> =
            right.iter().copied().filter(|it| it.as_ref().is_some_and(is_it)).collect();
        if found.is_empty() {
            let how = if is_stale { "stale" } else { "fresh" };
            return Err(format!(
                "{key:?} has {how} value {number}, where {right:?} would be right"
            ));
        }
        *right = found;
        Ok(right.iter().flatten().any(|value| value.freshness == Freshness::Extended))
    }

    /// What was once lost never comes back.
    pub(super) fn miss(&mut self, key: Key) {
        self.right.insert(key, vec![None]);
    }

    /// The value that has to be found, as text.
    pub(super) fn certain(&self, key: Key) -> Option<String> {
        self.certain.contains(&key).then(|| format!("{:?}", self.right.get(&key)))
    }

    pub(super) fn forgive(&mut self) {
        self.certain.clear();
    }

    /// Whether any entry may have been made to last.
    pub(super) fn has_extended(&self) -> bool {
        let mut values = self.right.values().flatten().flatten();
        values.any(|value| value.freshness == Freshness::Extended)
    }
}

fn changed(call: Call, value: Option<Value>) -> Option<Value> {
    let Value { number, freshness } = value?;
    call.changes(freshness).map(|freshness| Value { number, freshness })
}
