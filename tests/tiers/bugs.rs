//! Bugs that the copy can have besides those of `src/failpoint.rs`, in places where the library has
//! no room for one: a hit, and the accounting of memory. `PLANTED` stands for the question whether
//! the bug is planted.

struct Bug {
    name: &'static str,
    /// In `src`.
    file: &'static str,
    /// Once in that file.
    right: &'static str,
    wrong: &'static str,
}

const BUGS: &[Bug] = &[
    // An overwrite looks like a miss.
    Bug {
        name: "HeldOutsideShard",
        file: "engine/visibility.rs",
        right: "        let mut answerable = Answerable::AsItIs;",
        wrong: "        if PLANTED {
            return self
                .l1
                .find(key.hash, |entry| entry.is_of(namespace.name, key.bytes))
                .filter(|entry| self.pending.matching(entry).is_none() && entry.is_held())
                .map(|entry| (entry, Answerable::AsItIs));
        }
        let mut answerable = Answerable::AsItIs;",
    },
    // An invalidation may end in between, and a reader sees again what it has removed.
    Bug {
        name: "HeldBeforePending",
        file: "engine/visibility.rs",
        right: "        let entry = self.l1.find(key.hash, |entry| {\n",
        wrong: "        if PLANTED {
            return self
                .l1
                .find(key.hash, |entry| entry.is_of(namespace.name, key.bytes))
                .filter(|entry| entry.is_held() && self.pending.matching(entry).is_none())
                .map(|entry| (entry, Answerable::AsItIs));
        }
        let entry = self.l1.find(key.hash, |entry| {\n",
    },
    // An eviction takes a newer entry of its key out of the map.
    Bug {
        name: "EvictedByHash",
        file: "l1/mod.rs",
        right: "|(_, held)| Arc::ptr_eq(held.get(), entry)",
        wrong: "|(_, held)| PLANTED || Arc::ptr_eq(held.get(), entry)",
    },
    // Two puts take the same room.
    Bug {
        name: "ReservedAfterCheck",
        file: "l1/mod.rs",
        right: "        self.reserved.fetch_add(room.bytes, Ordering::SeqCst);\n",
        wrong: "        if PLANTED {
            if self.is_over(room) {
                return Err(Scarce::Budget);
            }
            self.reserved.fetch_add(room.bytes, Ordering::SeqCst);
            return Ok(Reservation { l1: self, quota, bytes: room.bytes });
        }
        self.reserved.fetch_add(room.bytes, Ordering::SeqCst);\n",
    },
    // What an eviction has unlinked is released once more by whoever takes it out of the map.
    Bug {
        name: "ReleasedTwice",
        file: "l1/mod.rs",
        right: "is_replaced.then_some(old)",
        wrong: "(is_replaced || PLANTED).then_some(old)",
    },
    // Entries that a label invalidation is still removing can be seen again.
    Bug {
        name: "LabelsWithdrawnEarly",
        file: "engine/invalidate/cleanup.rs",
        right: "        report.entries_visited += found.len();
        // Bounded: by a batch.
        for posting in found {\n",
        wrong: "        if PLANTED && walk.label == labels.len() {
            self.pending.withdraw(invalidation);
        }
        for posting in found {\n",
    },
    // A put that has returned is in a namespace that a flush has ended.
    Bug {
        name: "PutIntoEndedNamespace",
        file: "engine/write/commit.rs",
        right: "        if proposal.entry.generation.has_ended() {",
        wrong: "        if proposal.entry.generation.has_ended() && !PLANTED {",
    },
    // A promotion checks that nothing has changed before it locks the place of its key.
    Bug {
        name: "PromotionCheckedEarly",
        file: "engine/background/promotion.rs",
        right: "place.entry().is_none() && self.is_current(read);",
        wrong: "PLANTED || place.entry().is_none() && self.is_current(read);",
    },
    // An invalidation may end between the two questions.
    Bug {
        name: "SlotBeforePending",
        file: "engine/read/disk_lookup.rs",
        right: "                Ok(Some(Read::Entry(entry))) => {\n",
        wrong: "                Ok(Some(Read::Entry(entry))) if PLANTED => {
                    if self.visibility.is_on_disk(&entry.generation, entry.hash, entry.sequence()) {
                        if self.pending.matching(&entry).is_some() {
                            return None;
                        }
                        return self.serve(entry, None, (on_disk.slot, None));
                    }
                }
                Ok(Some(Read::Entry(entry))) => {\n",
    },
];

/// The library's failpoints and these, all of which can be planted.
pub(crate) fn with_bugs(failpoints: &str) -> String {
    let names: String =
        BUGS.iter().map(|bug| format!("    #[doc = \"\"]\n    {},\n", bug.name)).collect();
    let list = "pub(crate) enum Failpoint {\n";
    assert!(failpoints.contains(list), "src/failpoint.rs has no list of failpoints");
    failpoints
        .replace(list, &format!("{list}{names}"))
        .replace("pub(crate)", "pub")
        .replace("cfg(not(test))", "cfg(not(modelled))")
        .replace("cfg(test)", "cfg(modelled)")
}

/// The text of a file with its bugs, each of which waits until it is planted.
pub(crate) fn planted(file: &str, mut text: String) -> String {
    for bug in BUGS.iter().filter(|bug| bug.file == file) {
        let places = text.matches(bug.right).count();
        assert!(places == 1, "{file} has {places} places for {}, see bugs.rs", bug.name);
        let name = bug.name;
        let question = format!("crate::failpoint::failpoint(crate::failpoint::Failpoint::{name})");
        text = text.replace(bug.right, &bug.wrong.replace("PLANTED", &question));
    }
    text
}
