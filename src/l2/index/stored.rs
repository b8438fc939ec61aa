//! `StoredTable`: a table of the index in an image of it. `docs/format.md`, section 9.
//!
//! An image has a table's entries in the order of its buckets, so that a table is made again with
//! few misses of the processor's cache, and without a search for each entry.

use std::ops::Range;
use std::sync::PoisonError;

use super::slot_table::{Mixed, SlotTable};
use super::table_directory::TableDirectory;
use super::{Index, Slot};
use crate::key::KeyHash;
use crate::l2::error::DecodeError;
use crate::l2::format::Position;
use crate::l2::wire::{Reader, Sink};

/// A hash, a position with flags, a count of blocks.
const ENTRY_BYTES: usize = 18;

/// A number, a depth, a count of entries.
const HEAD_BYTES: usize = 9;

/// A table that was read, and what its entries add up to.
pub(crate) struct StoredTable {
    number: usize,
    table: SlotTable,
    /// Records that are not dead, and their blocks beyond their first ones.
    pub(crate) live: usize,
    pub(crate) further_blocks: u64,
    /// The newest position, if there is any.
    pub(crate) newest: Option<Position>,
}

/// An index of so many tables, of which some were added.
pub(crate) struct IndexOfTables {
    index: Index,
    tables: usize,
    added: usize,
}

impl Index {
    /// The bytes of a table in an image.
    pub(crate) fn stored_bytes(&self, number: usize) -> usize {
        let table = self.directory.table(number).read().unwrap_or_else(PoisonError::into_inner);
        HEAD_BYTES + table.len() * ENTRY_BYTES
    }

    /// Writes a table of an index that changes no more. False if it has too many entries.
    pub(crate) fn store_table(&self, number: usize, into: &mut impl Sink) -> bool {
        let table = self.directory.table(number).read().unwrap_or_else(PoisonError::into_inner);
        let depth = u8::try_from(table.depth);
        let (Ok(number), Ok(depth), Ok(len)) =
            (u32::try_from(number), depth, u32::try_from(table.len()))
        else {
            return false;
        };
        into.u32(number);
        into.u8(depth);
        into.u32(len);
        // Bounded: by the entries of one table.
        for (hash, slot) in table.iter() {
            let mut entry = [0; ENTRY_BYTES];
            entry[..8].copy_from_slice(&hash.0.to_le_bytes());
            entry[8..16].copy_from_slice(&slot.to_word().to_le_bytes());
            entry[16..].copy_from_slice(&slot.blocks.to_le_bytes());
            into.bytes(&entry);
        }
        true
    }
}

impl StoredTable {
    /// Reads a table whose positions must lie within `log`.
    ///
    /// # Errors
    /// Why it is none.
    pub(crate) fn read(
        reader: &mut Reader<'_>,
        log: &Range<Position>,
    ) -> Result<Self, DecodeError> {
        let number = reader.u32()? as usize;
        let depth = u32::from(reader.u8()?);
        let len = reader.u32()? as usize;
        let bytes = len.checked_mul(ENTRY_BYTES).ok_or(DecodeError::Length)?;
        let entries = reader.take(bytes)?.chunks_exact(ENTRY_BYTES);
        if depth > TableDirectory::TABLES_MAX.ilog2() {
            return Err(DecodeError::Field);
        }
        let mut stored = Self {
            number,
            table: SlotTable::with_room(len, depth),
            live: 0,
            further_blocks: 0,
            newest: None,
        };
        // Bounded: by the entries of one table.
        for entry in entries {
            let mut entry = Reader::new(entry);
            let (hash, word, blocks) = (KeyHash(entry.u64()?), entry.u64()?, entry.u16()?);
            let (slot, mixed) = (Slot::from_word(word, blocks), Mixed::new(hash));
            if !log.contains(&slot.position) || mixed.low_bits(depth) != number {
                return Err(DecodeError::Misplaced);
            }
            stored.table.add(hash, mixed, slot);
            stored.live += usize::from(!slot.dead);
            stored.further_blocks += slot.further_blocks();
            stored.newest = stored.newest.max(Some(slot.position));
        }
        Ok(stored)
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }
}

impl IndexOfTables {
    /// None if no index has so many tables.
    pub(crate) fn new(tables: usize) -> Option<Self> {
        let is_possible = (1..=TableDirectory::TABLES_MAX).contains(&tables);
        is_possible.then(|| Self { index: Index::new(), tables, added: 0 })
    }

    /// Adds the next table. False if it is not the next one.
    pub(crate) fn add(&mut self, stored: StoredTable) -> bool {
        let StoredTable { number, table, .. } = stored;
        if number != self.added || number >= self.tables || table.depth != self.depth_of(number) {
            return false;
        }
        self.index.put_table(number, table);
        self.added += 1;
        true
    }

    /// Whether it has all tables.
    pub(crate) fn is_whole(&self) -> bool {
        self.added == self.tables
    }

    pub(crate) fn into_index(self) -> Index {
        self.index
    }

    /// Low bits that the hashes of a table share, once there are all.
    fn depth_of(&self, number: usize) -> u32 {
        let level = self.tables.ilog2();
        let split = self.tables - (1 << level);
        // Those that were split, and their other halves.
        let is_deeper = number < split || number >= 1 << level;
        level + u32::from(is_deeper)
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::super::{READS_MAX, ScanCursor};
    use super::*;

    fn random_index(random: &mut StdRng, entries: u64) -> Index {
        let index = Index::new();
        for number in 0..entries {
            let hash = KeyHash(random.random());
            let slot = Slot {
                dead: random.random_bool(0.1),
                versioned: random.random_bool(0.1),
                reads: random.random_range(0..=READS_MAX),
                ..Slot::new(Position::from_multiple(8 * number), random.random_range(0..9))
            };
            index.insert(hash, slot);
            if random.random_bool(0.1) {
                index.remove_if(hash, slot.position);
            }
        }
        index
    }

    fn stored(index: &Index) -> Vec<Vec<u8>> {
        let tables = (0..index.tables()).map(|number| {
            let mut bytes = Vec::new();
            assert!(index.store_table(number, &mut bytes));
            assert_eq!(bytes.len(), index.stored_bytes(number));
            bytes
        });
        tables.collect()
    }

    fn read(bytes: &[u8], entries: u64) -> Result<StoredTable, DecodeError> {
        let log = Position::FIRST..Position::from_multiple(8 * entries);
        StoredTable::read(&mut Reader::new(bytes), &log)
    }

    fn all(index: &Index) -> Vec<(u64, u64, u16)> {
        let (mut found, mut cursor) = (Vec::new(), Some(ScanCursor::default()));
        while let Some(from) = cursor {
            cursor = index.scan(from, Position::FIRST..Position::LAST, 1000, &mut found);
        }
        let mut found: Vec<_> =
            found.iter().map(|(hash, slot)| (hash.0, slot.to_word(), slot.blocks)).collect();
        found.sort_unstable();
        found
    }

    #[test]
    fn tables_make_the_same_index_again() {
        let mut random = StdRng::seed_from_u64(1);
        for entries in [0, 1, 7, 500, 513, 3000, 50_000] {
            let index = random_index(&mut random, entries);
            let tables = stored(&index);
            let mut made = IndexOfTables::new(tables.len()).unwrap();
            let (mut live, mut blocks, mut newest) = (0, 0, None);
            for bytes in &tables {
                let table = read(bytes, entries).unwrap();
                live += table.live;
                blocks += table.further_blocks;
                newest = newest.max(table.newest);
                assert!(made.add(table));
            }
            assert!(made.is_whole());
            let made = made.into_index();
            let (expected, found) = (all(&index), all(&made));
            assert!(found == expected, "{entries} entries");
            assert_eq!(made.len(), index.len());
            assert!(made.memory_bytes() <= index.memory_bytes() * 6 / 5 + 256);
            let slots = expected.iter().map(|&(_, word, count)| Slot::from_word(word, count));
            let slots: Vec<Slot> = slots.collect();
            assert_eq!(live, slots.iter().filter(|slot| !slot.dead).count());
            let further = |slot: &Slot| u64::from(slot.blocks).saturating_sub(1);
            assert_eq!(blocks, slots.iter().filter(|it| !it.dead).map(further).sum::<u64>());
            assert_eq!(newest, slots.iter().map(|slot| slot.position).max());
            // It goes on as the other one would.
            for (hash, ..) in expected {
                assert_eq!(made.get(KeyHash(hash)), index.get(KeyHash(hash)));
            }
            for number in 0..2000 {
                let hash = KeyHash(random.random());
                let slot = Slot::new(Position::from_multiple(8 * number), 1);
                assert_eq!(made.insert(hash, slot), index.insert(hash, slot));
            }
            assert_eq!(all(&made), all(&index));
        }
    }

    #[test]
    fn tables_that_do_not_belong_together_make_none() {
        let mut random = StdRng::seed_from_u64(2);
        let entries = 5000;
        let index = random_index(&mut random, entries);
        let tables = stored(&index);
        let made = |numbers: &[usize], of: usize| {
            let mut made = IndexOfTables::new(of).unwrap();
            let mut tables = numbers.iter().map(|number| read(&tables[*number], entries).unwrap());
            tables.all(|table| made.add(table)) && made.is_whole()
        };
        let count = tables.len();
        let mut numbers: Vec<usize> = (0..count).collect();
        assert!(made(&numbers, count));
        assert!(!made(&numbers[..count - 1], count) && !made(&numbers, count - 1));
        assert!(!made(&numbers, count + 1));
        numbers.swap(1, 2);
        assert!(!made(&numbers, count));
        numbers[1] = 0;
        assert!(!made(&numbers, count));
        // A hash of another table; a position outside of the log; entries that are cut off.
        let mut strange = tables[0].clone();
        strange[HEAD_BYTES] ^= 1;
        assert_eq!(read(&strange, entries).err(), Some(DecodeError::Misplaced));
        assert_eq!(read(&tables[0], 1).err(), Some(DecodeError::Misplaced));
        let cut = &tables[0][..tables[0].len() - 1];
        assert_eq!(read(cut, entries).err(), Some(DecodeError::Truncated));
        assert!(IndexOfTables::new(0).is_none());
        assert!(IndexOfTables::new(TableDirectory::TABLES_MAX + 1).is_none());
    }
}
