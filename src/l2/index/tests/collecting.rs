//! An index that collects, beside a naive map.

use super::*;

#[test]
fn an_index_that_collects_keeps_the_newest_slot_of_each_hash() {
    run_cases(200, |random| {
        let (mut index, mut model) = (Index::new(), HashMap::<u64, Slot>::new());
        let shift = [0, 48, 54, 61][usize::try_from(random.below(4)).unwrap()];
        for place in 0..random.below(3) {
            let (mut collected, mut dropped) = (index.len(), Vec::new());
            for number in 0..random.below(rounds(6000, 600)) {
                // In no order.
                let position = Position::from_multiple(8 * (number * 4099 % 6001 + 6001 * place));
                let (hash, slot) = (random.next() >> shift, Slot { position, ..any_slot(random) });
                index.prefetch_end(KeyHash(hash));
                index.collect(KeyHash(hash), slot, &mut dropped);
                collected += 1;
                let newest = model.entry(hash).or_insert(slot);
                *newest = if newest.position > position { *newest } else { slot };
                if random.below(1000) == 0 {
                    while index.split_for(2 * index.len()) {}
                }
            }
            let (mut settled, mut spare) = (Settled::default(), SpareChunks::default());
            (0..index.tables()).for_each(|number| index.settle(number, &mut spare, &mut settled));
            assert_same(&index, &model);
            assert_eq!(
                (settled.slots, settled.shadowed.len() + dropped.len()),
                (model.len(), collected - model.len())
            );
            let live: Vec<&Slot> = model.values().filter(|slot| !slot.dead).collect();
            let blocks: u64 = live.iter().map(|it| u64::from(it.blocks).saturating_sub(1)).sum();
            assert_eq!((settled.live, settled.further_blocks), (live.len(), blocks));
        }
    });
}

#[test]
fn overwrites_of_few_keys_take_little_memory_while_they_are_collected() {
    for keys in [1, 10_u32] {
        let (mut index, mut dropped) = (Index::new(), Vec::new());
        let (mut bytes_max, count) = (0, 100_000);
        for number in 0..count {
            let slot = Slot::new(Position::from_multiple(8 * number), 1);
            index.collect(KeyHash((number % u64::from(keys)) << 40), slot, &mut dropped);
            bytes_max = bytes_max.max(index.memory_bytes());
        }
        let (mut settled, mut spare) = (Settled::default(), SpareChunks::default());
        for number in 0..index.tables() {
            let before = settled.shadowed.len();
            index.settle(number, &mut spare, &mut settled);
            assert!(settled.shadowed.len() - before <= 2048, "one step settles one small table");
        }
        assert_eq!(settled.live as u64, u64::from(keys));
        assert_eq!((settled.shadowed.len() + dropped.len()) as u64, count - u64::from(keys));
        assert!(bytes_max < (1 << 16) * (1 + keys as usize), "{bytes_max} bytes for {keys} keys");
    }
}
