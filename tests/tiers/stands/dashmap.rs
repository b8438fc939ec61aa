//! Stands for `dashmap`: each shard is a list behind a lock.

use std::hash::{BuildHasher, Hash};
use std::marker::PhantomData;
use std::vec;

use super::parking_lot::{RwLock, RwLockWriteGuard};

/// Two shards, so that some keys share one and others do not.
const SHARDS: usize = 2;

#[derive(Debug)]
pub(crate) struct DashMap<K, V, S> {
    shards: Box<[RwLock<RawTable<K, V>>]>,
    hasher: PhantomData<fn() -> S>,
}

/// Stands for a raw table of `hashbrown`.
#[derive(Debug)]
pub(crate) struct RawTable<K, V>(Vec<(K, SharedValue<V>)>);

#[derive(Debug)]
pub(crate) struct SharedValue<V>(V);

impl<V> SharedValue<V> {
    pub(crate) fn get(&self) -> &V {
        &self.0
    }
}

impl<K, V> Default for RawTable<K, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<K, V> RawTable<K, V> {
    pub(crate) fn get(
        &self,
        _hash: u64,
        wanted: impl FnMut(&(K, SharedValue<V>)) -> bool,
    ) -> Option<&(K, SharedValue<V>)> {
        let mut wanted = wanted;
        self.0.iter().find(|it| wanted(it))
    }

    pub(crate) fn remove_entry(
        &mut self,
        _hash: u64,
        wanted: impl FnMut(&(K, SharedValue<V>)) -> bool,
    ) -> Option<(K, SharedValue<V>)> {
        let place = self.0.iter().position(wanted)?;
        Some(self.0.swap_remove(place))
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.0.capacity()
    }

    pub(crate) fn shrink_to(&mut self, room: usize, _hash: impl Fn(&(K, SharedValue<V>)) -> u64) {
        self.0.shrink_to(room);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &V> {
        self.0.iter().map(|(_, value)| &value.0)
    }
}

impl<K, V> IntoIterator for RawTable<K, V> {
    type Item = (K, SharedValue<V>);
    type IntoIter = vec::IntoIter<(K, SharedValue<V>)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Copy + Eq + Hash, V, S: BuildHasher + Default> DashMap<K, V, S> {
    pub(crate) fn with_capacity_and_hasher_and_shard_amount(
        _capacity: usize,
        _hasher: S,
        _shards: usize,
    ) -> Self {
        let shards = (0..SHARDS).map(|_| RwLock::new(RawTable::default())).collect();
        Self { shards, hasher: PhantomData }
    }

    pub(crate) fn shards(&self) -> &[RwLock<RawTable<K, V>>] {
        &self.shards
    }

    pub(crate) fn determine_map(&self, key: &K) -> usize {
        (S::default().hash_one(key) >> 32) as usize % SHARDS
    }

    pub(crate) fn entry(&self, key: K) -> mapref::entry::Entry<'_, K, V> {
        let table = self.shards[self.determine_map(&key)].write();
        match table.0.iter().position(|(of, _)| *of == key) {
            Some(place) => mapref::entry::Entry::Occupied(OccupiedEntry { table, place }),
            None => mapref::entry::Entry::Vacant(VacantEntry { table, key }),
        }
    }

    pub(crate) fn remove_if(
        &self,
        key: &K,
        unwanted: impl FnOnce(&K, &V) -> bool,
    ) -> Option<(K, V)> {
        let mut table = self.shards[self.determine_map(key)].write();
        let place = table.0.iter().position(|(of, _)| of == key)?;
        let is_unwanted = unwanted(key, &table.0[place].1.0);
        is_unwanted.then(|| table.0.swap_remove(place)).map(|(key, value)| (key, value.0))
    }
}

pub(crate) struct OccupiedEntry<'a, K, V> {
    table: RwLockWriteGuard<'a, RawTable<K, V>>,
    place: usize,
}

impl<K, V> OccupiedEntry<'_, K, V> {
    pub(crate) fn get(&self) -> &V {
        &self.table.0[self.place].1.0
    }

    pub(crate) fn insert(&mut self, value: V) -> V {
        std::mem::replace(&mut self.table.0[self.place].1.0, value)
    }

    pub(crate) fn remove(mut self) -> V {
        self.table.0.swap_remove(self.place).1.0
    }
}

pub(crate) struct VacantEntry<'a, K, V> {
    table: RwLockWriteGuard<'a, RawTable<K, V>>,
    key: K,
}

impl<K, V> VacantEntry<'_, K, V> {
    pub(crate) fn insert(mut self, value: V) {
        self.table.0.push((self.key, SharedValue(value)));
    }
}

pub(crate) mod mapref {
    pub(crate) mod entry {
        pub(crate) enum Entry<'a, K, V> {
            Occupied(super::super::OccupiedEntry<'a, K, V>),
            Vacant(super::super::VacantEntry<'a, K, V>),
        }
    }
}
