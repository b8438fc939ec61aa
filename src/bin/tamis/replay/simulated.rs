//! `Simulated`: one cache of a textbook policy, which counts nothing but the sizes of objects.
//!
//! A request is a get, followed by an insertion on a miss. An object keeps the size that it was
//! inserted with; one larger than the cache is never inserted. All policies evict from the old end
//! of one queue: FIFO as it is, LRU after a hit has moved its object to the new end, SIEVE what its
//! hand finds unvisited on its way from the old end to the new one, where it begins again.
//!
//! Memory: about a hundred bytes for each object that the simulated cache holds.

use std::collections::HashMap;

use super::super::traces::Request;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Policy {
    Sieve,
    Lru,
    Fifo,
}

impl Policy {
    pub(super) const ALL: [Self; 3] = [Self::Sieve, Self::Lru, Self::Fifo];

    /// As people write it.
    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Sieve => "SIEVE",
            Self::Lru => "LRU",
            Self::Fifo => "FIFO",
        }
    }

    /// As programs do.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sieve => "sieve",
            Self::Lru => "lru",
            Self::Fifo => "fifo",
        }
    }
}

#[derive(Debug)]
pub(super) struct Simulated {
    policy: Policy,
    /// In bytes, as `used`.
    capacity: u64,
    used: u64,
    /// Where objects are in `nodes`, by key.
    places: HashMap<u64, usize>,
    nodes: Vec<Node>,
    /// Places of `nodes` that are not in use.
    free: Vec<usize>,
    oldest: Option<usize>,
    newest: Option<usize>,
    /// Where SIEVE goes on. None: at the oldest.
    hand: Option<usize>,
    pub(super) misses: u64,
    pub(super) missed_bytes: u64,
}

#[derive(Debug)]
struct Node {
    key: u64,
    size: u64,
    older: Option<usize>,
    newer: Option<usize>,
    is_visited: bool,
}

impl Simulated {
    pub(super) fn new(policy: Policy, capacity: u64) -> Self {
        Self {
            policy,
            capacity,
            used: 0,
            places: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            oldest: None,
            newest: None,
            hand: None,
            misses: 0,
            missed_bytes: 0,
        }
    }

    pub(super) fn policy(&self) -> Policy {
        self.policy
    }

    pub(super) fn request(&mut self, Request { key, size }: Request) {
        if let Some(&place) = self.places.get(&key) {
            match self.policy {
                Policy::Sieve => self.nodes[place].is_visited = true,
                Policy::Lru => {
                    self.unlink(place);
                    self.link_newest(place);
                }
                Policy::Fifo => {}
            }
            return;
        }
        self.misses += 1;
        self.missed_bytes = self.missed_bytes.saturating_add(size);
        if size > self.capacity {
            return;
        }
        while self.used > self.capacity - size {
            self.evict();
        }
        let node = Node { key, size, older: None, newer: None, is_visited: false };
        let place = match self.free.pop() {
            Some(place) => {
                self.nodes[place] = node;
                place
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        };
        self.used += size;
        self.places.insert(key, place);
        self.link_newest(place);
    }

    /// There is an object, since bytes are in use.
    fn evict(&mut self) {
        let Some(victim) = self.victim() else { return };
        self.unlink(victim);
        self.used -= self.nodes[victim].size;
        self.places.remove(&self.nodes[victim].key);
        self.free.push(victim);
    }

    fn victim(&mut self) -> Option<usize> {
        if self.policy != Policy::Sieve {
            return self.oldest;
        }
        let mut at = self.hand.or(self.oldest)?;
        while self.nodes[at].is_visited {
            self.nodes[at].is_visited = false;
            at = self.nodes[at].newer.or(self.oldest)?;
        }
        self.hand = self.nodes[at].newer;
        Some(at)
    }

    fn unlink(&mut self, place: usize) {
        let (older, newer) = (self.nodes[place].older, self.nodes[place].newer);
        match older {
            Some(older) => self.nodes[older].newer = newer,
            None => self.oldest = newer,
        }
        match newer {
            Some(newer) => self.nodes[newer].older = older,
            None => self.newest = older,
        }
    }

    fn link_newest(&mut self, place: usize) {
        (self.nodes[place].older, self.nodes[place].newer) = (self.newest, None);
        match self.newest.replace(place) {
            Some(newest) => self.nodes[newest].newer = Some(place),
            None => self.oldest = Some(place),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::values::Random;
    use super::*;

    /// The same policies, as simply as possible: objects in a list, the oldest first.
    #[derive(Default)]
    struct Naive {
        objects: Vec<(u64, u64, bool)>,
        hand: usize,
        misses: u64,
    }

    impl Naive {
        fn request(&mut self, policy: Policy, capacity: u64, Request { key, size }: Request) {
            if let Some(place) = self.objects.iter().position(|object| object.0 == key) {
                self.objects[place].2 = true;
                if policy == Policy::Lru {
                    let object = self.objects.remove(place);
                    self.objects.push(object);
                }
                return;
            }
            self.misses += 1;
            if size > capacity {
                return;
            }
            while self.objects.iter().map(|object| object.1).sum::<u64>() + size > capacity {
                while policy == Policy::Sieve && self.objects[self.hand].2 {
                    self.objects[self.hand].2 = false;
                    self.hand = (self.hand + 1) % self.objects.len();
                }
                self.objects.remove(if policy == Policy::Sieve { self.hand } else { 0 });
                if self.hand == self.objects.len() {
                    self.hand = 0;
                }
            }
            self.objects.push((key, size, false));
        }
    }

    #[test]
    fn policies_miss_as_naive_ones() {
        for seed in 0..300 {
            let mut random = Random::new(seed << 32);
            let mut below = |limit: u64| random.next() % limit;
            let (keys, capacity) = (below(60) + 1, below(400) + 1);
            let (sizes, length) = (below(capacity + 20) + 1, below(600));
            let requests: Vec<_> = (0..length)
                .map(|_| {
                    let key = below(keys) * below(keys) / keys;
                    Request { key, size: below(sizes) + 1 }
                })
                .collect();
            for policy in Policy::ALL {
                let (mut naive, mut simulated) =
                    (Naive::default(), Simulated::new(policy, capacity));
                for (number, &request) in requests.iter().enumerate() {
                    naive.request(policy, capacity, request);
                    simulated.request(request);
                    assert_eq!(simulated.misses, naive.misses, "{policy:?} {seed} {number}");
                }
                let used: u64 = naive.objects.iter().map(|object| object.1).sum();
                assert_eq!(simulated.used, used, "{policy:?} {seed}");
            }
        }
    }

    #[test]
    fn policies_differ_where_they_should() {
        // A is asked for again before the scan that evicts it from a FIFO.
        let keys = [1, 2, 3, 1, 4, 1, 5, 1, 6, 1];
        let misses = Policy::ALL.map(|policy| {
            let mut cache = Simulated::new(policy, 3);
            keys.iter().for_each(|&key| cache.request(Request { key, size: 1 }));
            cache.misses
        });
        assert_eq!(misses, [6, 6, 7]);
    }
}
