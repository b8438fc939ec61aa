//! What a history must be like. Calls are placed in real time by ticks: one that had ended before
//! another began came first, and nothing else is known of their order. From that follows what a
//! hit may not be, whatever was evicted, lost or dropped meanwhile.

use std::collections::HashMap;

use super::call::{Place, Put, Scope};

/// What is known of whether a mutation took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// It may have, or may yet.
    Possible,
    /// It has, for good.
    Certain,
    /// It has, in the process that lived then.
    CertainInLife(u32),
    /// It has not.
    None,
}

/// A mutation, as its caller knows it.
#[derive(Clone, Debug)]
pub(super) struct Mutation {
    pub(super) number: u32,
    scope: Scope,
    put: Option<Put>,
    /// Of a fill, when its point was taken: it is no newer than that.
    begun: u64,
    /// From here on it had taken effect, if it ever did: it had ended, or was seen.
    known: u64,
    ended: u64,
    effect: Effect,
    /// Seconds of the clock when it ended.
    clock: u64,
}

/// What a get found.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) number: u32,
    pub(super) version: Option<u64>,
    pub(super) is_stale: bool,
}

/// When something was asked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) begun: u64,
    /// Seconds of the clock at that moment.
    pub(super) clock: u64,
    pub(super) life: u32,
}

/// What a reader has seen of a place in this life.
#[derive(Clone, Copy, Debug)]
struct Sight {
    ended: u64,
    number: u32,
}

#[derive(Debug, Default)]
pub(super) struct Checker {
    now: u64,
    mutations: Vec<Mutation>,
    places: HashMap<u32, usize>,
    sights: HashMap<Place, Vec<Sight>>,
    /// Nothing is ever forgotten here: misses and races for a version are judged, too.
    is_roomy: bool,
    /// Gets find nothing any more.
    pub(super) is_closed: bool,
    /// How each life ended.
    ends: Vec<String>,
}

const NEVER: u64 = u64::MAX;

impl Mutation {
    fn place(&self) -> Option<Place> {
        match self.scope {
            Scope::Key(place) if self.put.is_some() => Some(place),
            _ => None,
        }
    }

    fn covers(&self, put: &Mutation) -> bool {
        let (Some(place), Some(what)) = (put.place(), &put.put) else { return false };
        match self.scope {
            Scope::Key(of) => of == place,
            Scope::Prefix(space, first) => space == place.space && place.name()[0] == first,
            Scope::Tag(space, tag) => space == place.space && what.tags.contains(&tag),
            Scope::Dependency(space, on) => space == place.space && what.dependencies.contains(&on),
            Scope::Space(space) => space == place.space,
            Scope::All => true,
        }
    }

    fn is_certain(&self, life: u32) -> bool {
        match self.effect {
            Effect::Certain => true,
            Effect::CertainInLife(of) => of == life,
            Effect::Possible | Effect::None => false,
        }
    }
}

impl Checker {
    pub(super) fn new(is_roomy: bool) -> Self {
        Self { is_roomy, ..Self::default() }
    }

    /// The next moment.
    pub(super) fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub(super) fn begin(&mut self, number: u32, scope: Scope, put: Option<Put>) {
        let begun = self.tick();
        self.places.insert(number, self.mutations.len());
        self.mutations.push(Mutation {
            number,
            scope,
            put,
            begun,
            known: NEVER,
            ended: NEVER,
            effect: Effect::Possible,
            clock: 0,
        });
    }

    /// A call is gone; if it was a mutation, it may have taken effect, or may yet.
    pub(super) fn dropped(&mut self, number: u32, clock: u64) {
        if self.places.contains_key(&number) {
            self.end(number, Effect::Possible, clock);
        }
    }

    pub(super) fn is_invalidation(&self, number: u32) -> bool {
        self.mutations[self.places[&number]].put.is_none()
    }

    pub(super) fn end(&mut self, number: u32, effect: Effect, clock: u64) {
        let now = self.tick();
        let mutation = &mut self.mutations[self.places[&number]];
        // What a fill was read from may be as old as its point; that it is stored is no news of it.
        let is_fill = mutation.put.as_ref().is_some_and(|put| put.is_fill);
        let known = if is_fill { mutation.begun } else { now };
        mutation.known = mutation.known.min(known);
        (mutation.ended, mutation.clock) = (now, clock);
        let is_refusable = is_fill && effect != Effect::None;
        mutation.effect = if is_refusable { Effect::Possible } else { effect };
    }

    /// The process has come to its end, and all that it was doing.
    pub(super) fn end_life(&mut self, clock: u64, how: String) {
        self.ends.push(format!("at {} a life ends: {how}\n", self.now));
        let open: Vec<u32> = self
            .mutations
            .iter()
            .filter(|mutation| mutation.ended == NEVER)
            .map(|mutation| mutation.number)
            .collect();
        for number in open {
            self.end(number, Effect::Possible, clock);
        }
        self.sights.clear();
    }

    /// A get that ends now has found nothing, or something.
    pub(super) fn got(
        &mut self,
        place: Place,
        asked: Asked,
        found: Option<Found>,
    ) -> Result<(), String> {
        let now = self.tick();
        let Some(found) = found else { return self.missed(place, asked) };
        let Some(&at) = self.places.get(&found.number) else {
            return Err(format!("a get of {place:?} finds {found:?}, which was never put"));
        };
        let told = |checker: &Self, what: String| {
            let put = &checker.mutations[at];
            Err(format!("a get of {place:?}, {asked:?} to {now}, finds {put:?}: {what}"))
        };
        let mutation = &self.mutations[at];
        let Some(put) = &mutation.put else { return told(self, "not a put".to_owned()) };
        if mutation.place() != Some(place) {
            return told(self, "which was put elsewhere".to_owned());
        }
        if mutation.effect == Effect::None {
            return told(self, "which was refused".to_owned());
        }
        if put.version != found.version {
            return told(self, format!("with the version {:?}", found.version));
        }
        if let Some(ttl) = put.ttl.filter(|_| mutation.ended != NEVER) {
            if asked.clock >= mutation.clock + ttl + put.stale {
                return told(self, "which is past its life".to_owned());
            }
            if !found.is_stale && asked.clock >= mutation.clock + ttl {
                return told(self, "which is past its ttl, and not said to be stale".to_owned());
            }
        }
        if let Some(newer) = self.shadow(mutation, asked) {
            return told(self, format!("behind {newer:?}"));
        }
        if let Some(seen) = self.seen_newer(mutation, place, asked) {
            return told(self, format!("after another had seen {seen:?}"));
        }
        self.mutations[at].known = self.mutations[at].known.min(now);
        self.sights.entry(place).or_default().push(Sight { ended: now, number: found.number });
        Ok(())
    }

    /// `exists` has said that the place has an entry in memory.
    pub(super) fn existed(&mut self, place: Place, asked: Asked) -> Result<(), String> {
        self.tick();
        let may_be = |mutation: &Mutation| {
            mutation.place() == Some(place)
                && mutation.effect != Effect::None
                && self.shadow(mutation, asked).is_none()
        };
        match self.mutations.iter().any(may_be) {
            true => Ok(()),
            false => Err(format!("{place:?} exists, {asked:?}, though nothing can be there")),
        }
    }

    /// A put has been refused, since the place had that version.
    pub(super) fn mismatched(
        &mut self,
        number: u32,
        asked: Asked,
        existing: u64,
        clock: u64,
    ) -> Result<(), String> {
        let put = self.mutations[self.places[&number]].clone();
        self.end(number, Effect::None, clock);
        let attempted = put.put.as_ref().and_then(|put| put.version);
        if attempted.is_none_or(|attempted| existing < attempted) {
            return Err(format!("{put:?} is refused for the version {existing}"));
        }
        let has_it = |mutation: &Mutation| {
            mutation.put.as_ref().is_some_and(|put| put.version == Some(existing))
                && mutation.place() == put.place()
                && mutation.number != number
                && mutation.effect != Effect::None
                && self.shadow(mutation, asked).is_none()
        };
        match self.mutations.iter().any(has_it) {
            true => Ok(()),
            false => Err(format!("{put:?} is refused for {existing}, which is not there")),
        }
    }

    /// A mutation that took effect for sure behind `put`, and had ended when this was asked.
    fn shadow(&self, put: &Mutation, asked: Asked) -> Option<&Mutation> {
        self.mutations.iter().find(|other| {
            other.begun > put.known
                && other.ended < asked.begun
                && other.is_certain(asked.life)
                && other.covers(put)
        })
    }

    /// Something newer than `put` that a reader had seen, and had ended, when this was asked.
    fn seen_newer(&self, put: &Mutation, place: Place, asked: Asked) -> Option<&Mutation> {
        let sights = self.sights.get(&place)?;
        let seen = sights.iter().filter(|sight| sight.ended < asked.begun);
        seen.map(|sight| &self.mutations[self.places[&sight.number]])
            .find(|seen| seen.number != put.number && seen.begun > put.known)
    }

    /// Where nothing is forgotten, a miss needs a reason as well.
    fn missed(&self, place: Place, asked: Asked) -> Result<(), String> {
        if !self.is_roomy || self.is_closed {
            return Ok(());
        }
        let lasting = |mutation: &&Mutation| {
            mutation.place() == Some(place)
                && mutation.effect == Effect::Certain
                && mutation.ended < asked.begun
                && mutation.put.as_ref().is_some_and(|put| put.ttl.is_none())
        };
        match self.mutations.iter().filter(lasting).find(|put| self.stands(put, self.now)) {
            Some(put) => Err(format!("a get of {place:?}, {asked:?}, misses {put:?}")),
            None => Ok(()),
        }
    }

    /// Whether nothing else can have touched what was put, until then.
    fn stands(&self, put: &Mutation, until: u64) -> bool {
        !self.mutations.iter().any(|other| {
            other.number != put.number
                && other.effect != Effect::None
                && other.begun < until
                && other.ended > put.begun
                && other.covers(put)
        })
    }

    /// Of puts with one version over one place, with nothing else meanwhile, one wins.
    pub(super) fn check_races(&self) -> Result<(), String> {
        let versioned = |mutation: &&Mutation| {
            mutation.effect == Effect::Certain
                && mutation
                    .put
                    .as_ref()
                    .is_some_and(|put| put.version.is_some() && put.ttl.is_none())
        };
        let puts: Vec<&Mutation> = self.mutations.iter().filter(versioned).collect();
        for (at, first) in puts.iter().enumerate() {
            for second in &puts[at + 1..] {
                let version = |put: &Mutation| put.put.as_ref().and_then(|put| put.version);
                let is_ordered = first.ended < second.begun;
                let is_race = first.place() == second.place()
                    && (version(first) == version(second)
                        || (is_ordered && version(first) > version(second)));
                let span = (first.begun.min(second.begun), first.ended.max(second.ended));
                let is_alone = |other: &Mutation| {
                    other.number == first.number
                        || other.number == second.number
                        || other.effect == Effect::None
                        || other.begun > span.1
                        || other.ended < span.0
                        || !other.covers(first)
                };
                if self.is_roomy && is_race && self.mutations.iter().all(is_alone) {
                    return Err(format!("both have won: {first:?} and {second:?}"));
                }
            }
        }
        Ok(())
    }

    /// The mutations, for whoever has to understand them.
    pub(super) fn told(&self) -> String {
        let mutations = self.mutations.iter().map(|mutation| format!("{mutation:?}\n"));
        mutations.chain(self.ends.iter().cloned()).collect()
    }
}
