//! The rules of a valid history. Calls are ordered in real time by ticks: one that ended before
//! another began came first; no other order is known. That determines which hits are invalid,
//! whatever was evicted, lost or dropped.

mod events;
mod fetches;
mod roomy;

use std::collections::{HashMap, HashSet};

use self::events::Heard;
pub(super) use self::events::Listener;
use super::call::{FullKey, Put, SPACES, Scope, Touch};
use super::typed::decodes;
use crate::error::CacheError;
use crate::fetch_policy::FetchPolicy;

/// Whether a mutation has taken effect, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Possibly, or it may yet.
    Possible,
    /// Yes, permanently.
    Certain,
    /// Yes, within that process.
    CertainInLife(u32),
    /// No.
    None,
}

#[derive(Clone, Debug)]
pub(super) struct Mutation {
    pub(super) number: u32,
    scope: Scope,
    put: Option<Put>,
    /// What it covers becomes stale.
    expires: bool,
    /// The entry that its key has gets other deadlines.
    touch: Option<Touch>,
    /// A value that a task may store, whatever becomes of its caller.
    is_fetch: bool,
    /// For a fill, the time of its read point: the value is no newer.
    begun: u64,
    /// From then on it had taken effect, if ever: it had returned, or was seen.
    known: u64,
    ended: u64,
    effect: Effect,
    /// Seconds of the clock from which its deadlines count, at the earliest.
    begun_clock: u64,
    /// The same at the latest; None until it is known.
    clock: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) number: u32,
    pub(super) version: Option<u64>,
    pub(super) is_stale: bool,
    /// Seconds of the clock when its deadlines were judged, at the earliest. None: they were not,
    /// as it was just fetched, and it may not have been stored.
    pub(super) clock: Option<u64>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) begun: u64,
    pub(super) clock: u64,
    pub(super) life: u32,
}

/// A value of a key that a reader has seen in this process.
#[derive(Clone, Copy, Debug)]
struct Sight {
    begun: u64,
    ended: u64,
    number: u32,
    is_stale: bool,
}

/// The latest clock at which an entry can become stale, and be gone, and its longest stale window.
#[derive(Debug, Default)]
struct Latest {
    stale: u64,
    gone: u64,
    window: u64,
}

#[derive(Debug, Default)]
pub(super) struct Checker {
    now: u64,
    /// Seconds of the clock when events were last heard.
    clock: u64,
    mutations: Vec<Mutation>,
    full_keys: HashMap<u32, usize>,
    sights: HashMap<FullKey, Vec<Sight>>,
    /// Fetches whose callers have gone.
    left: HashSet<u32>,
    /// Nothing is evicted, so misses and races of versions are checked, too.
    is_roomy: bool,
    /// Of the namespaces.
    fetch_policies: [FetchPolicy; SPACES.len()],
    /// When the calls of fetches were answered, by tick and by clock.
    answered: HashMap<u32, (u64, u64)>,
    /// Gets find nothing from now on.
    pub(super) is_closed: bool,
    /// How each process ended.
    ends: Vec<String>,
    /// By the listener of this process.
    heard: Heard,
    /// Misses of entries of whose ends a listener had been told.
    pub(super) misses_told: u64,
}

const NEVER: u64 = u64::MAX;

impl Mutation {
    fn full_key(&self) -> Option<FullKey> {
        match self.scope {
            Scope::Key(full_key) if self.put.is_some() => Some(full_key),
            _ => None,
        }
    }

    fn covers(&self, put: &Mutation) -> bool {
        let (Some(full_key), Some(what)) = (put.full_key(), &put.put) else { return false };
        match self.scope {
            Scope::Key(of) => of == full_key,
            Scope::Prefix(space, first) => space == full_key.space && full_key.name()[0] == first,
            Scope::Tag(space, tag) => space == full_key.space && what.tags.contains(&tag),
            Scope::TagEverywhere(tag) => what.tags.contains(&tag),
            Scope::Dependency(space, on) => {
                space == full_key.space && what.dependencies.contains(&on)
            }
            Scope::DependencyEverywhere(on) => what.dependencies.contains(&on),
            Scope::Space(space) => space == full_key.space,
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
    pub(super) fn new(is_roomy: bool, fetch_policies: [FetchPolicy; SPACES.len()]) -> Self {
        Self { is_roomy, fetch_policies, ..Self::default() }
    }

    pub(super) fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub(super) fn begin(&mut self, number: u32, scope: Scope, put: Option<Put>) {
        let begun = self.tick();
        self.full_keys.insert(number, self.mutations.len());
        self.mutations.push(Mutation {
            number,
            scope,
            put,
            expires: false,
            touch: None,
            is_fetch: false,
            begun,
            begun_clock: self.clock,
            known: NEVER,
            ended: NEVER,
            effect: Effect::Possible,
            clock: None,
        });
    }

    pub(super) fn begin_expiry(&mut self, number: u32, scope: Scope) {
        self.begin(number, scope, None);
        let at = self.full_keys[&number];
        self.mutations[at].expires = true;
    }

    pub(super) fn begin_touch(&mut self, number: u32, full_key: FullKey, touch: Touch) {
        self.begin(number, Scope::Key(full_key), None);
        let at = self.full_keys[&number];
        self.mutations[at].touch = Some(touch);
    }

    /// A call was dropped; a mutation may have taken effect, or may yet.
    pub(super) fn dropped(&mut self, number: u32, clock: u64) {
        match self.full_keys.get(&number) {
            Some(&at) if self.mutations[at].is_fetch => self.left(number),
            Some(_) => self.end(number, Effect::Possible, clock),
            None => {}
        }
    }

    pub(super) fn is_invalidation(&self, number: u32) -> bool {
        let mutation = &self.mutations[self.full_keys[&number]];
        mutation.put.is_none() && mutation.touch.is_none()
    }

    /// Whether a mutation is about the dependencies of all namespaces.
    pub(super) fn is_over_namespaces(&self, number: u32) -> bool {
        let mutation = &self.mutations[self.full_keys[&number]];
        matches!(mutation.scope, Scope::DependencyEverywhere(_))
    }

    /// Whether a put has the policy of its namespace.
    pub(super) fn is_default(&self, number: u32) -> bool {
        let mutation = self.full_keys.get(&number).map(|&at| &self.mutations[at]);
        mutation.and_then(|it| it.put.as_ref()).is_some_and(|put| put.is_default)
    }

    pub(super) fn end(&mut self, number: u32, effect: Effect, clock: u64) {
        let now = self.tick();
        let mutation = &mut self.mutations[self.full_keys[&number]];
        // A fill may be as old as its read point; storing it does not make it newer.
        let is_fill = mutation.put.as_ref().is_some_and(|put| put.is_fill);
        let known = if is_fill { mutation.begun } else { now };
        mutation.known = mutation.known.min(known);
        mutation.ended = now;
        mutation.clock.get_or_insert(clock);
        let is_refusable = is_fill && effect != Effect::None;
        mutation.effect = if is_refusable { Effect::Possible } else { effect };
    }

    /// The process has ended with all its calls.
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

    pub(super) fn got(
        &mut self,
        full_key: FullKey,
        asked: Asked,
        found: Option<Found>,
    ) -> Result<(), String> {
        let now = self.tick();
        let Some(found) = found else { return self.missed(full_key, asked, |_| true) };
        let Some(&at) = self.full_keys.get(&found.number) else {
            return Err(format!("a get of {full_key:?} finds {found:?}, which was never put"));
        };
        let told = |checker: &Self, what: String| {
            let put = &checker.mutations[at];
            Err(format!("a get of {full_key:?}, {asked:?} to {now}, finds {put:?}: {what}"))
        };
        let mutation = &self.mutations[at];
        let Some(put) = &mutation.put else { return told(self, "not a put".to_owned()) };
        if mutation.full_key() != Some(full_key) {
            return told(self, "which was put elsewhere".to_owned());
        }
        if mutation.effect == Effect::None {
            return told(self, "which was refused".to_owned());
        }
        if put.version != found.version {
            return told(self, format!("with the version {:?}", found.version));
        }
        let latest = self.latest(mutation, asked);
        let is_past = |end| found.clock.is_some_and(|clock| clock >= end);
        if is_past(latest.gone) {
            return told(self, "which is past its life".to_owned());
        }
        if !found.is_stale && is_past(latest.stale) {
            return told(self, "which is past its ttl, and not said to be stale".to_owned());
        }
        if let Some(expired) = self.expiry_of(mutation, asked) {
            if !found.is_stale {
                return told(self, format!("not said to be stale, behind {expired:?}"));
            }
            if expired.clock.is_some_and(|clock| is_past(clock + latest.window)) {
                return told(self, format!("past its stale window, behind {expired:?}"));
            }
        }
        if let Some(newer) = self.shadow(mutation, asked) {
            return told(self, format!("behind {newer:?}"));
        }
        if let Some(seen) = self.seen_newer(mutation, full_key, asked) {
            return told(self, format!("after another had seen {seen:?}"));
        }
        if !found.is_stale && self.was_stale(full_key, found.number, asked) {
            return told(self, "fresh again after another had seen it stale".to_owned());
        }
        if found.clock.is_none() {
            return Ok(());
        }
        self.mutations[at].known = self.mutations[at].known.min(now);
        let Found { number, is_stale, .. } = found;
        let sight = Sight { begun: asked.begun, ended: now, number, is_stale };
        self.sights.entry(full_key).or_default().push(sight);
        Ok(())
    }

    /// Checks that a listing did not have a key.
    pub(super) fn unlisted(&mut self, full_key: FullKey, asked: Asked) -> Result<(), String> {
        self.tick();
        self.missed(full_key, asked, |_| true)
    }

    /// Checks a miss through a typed handle.
    pub(super) fn missed_typed(&mut self, full_key: FullKey, asked: Asked) -> Result<(), String> {
        self.tick();
        self.missed(full_key, asked, decodes)
    }

    /// Checks a positive `exists`.
    pub(super) fn existed(&mut self, full_key: FullKey, asked: Asked) -> Result<(), String> {
        self.tick();
        let may_be = |mutation: &Mutation| {
            mutation.full_key() == Some(full_key)
                && mutation.effect != Effect::None
                && self.shadow(mutation, asked).is_none()
        };
        if self.mutations.iter().any(may_be) {
            Ok(())
        } else {
            Err(format!("{full_key:?} exists, {asked:?}, though nothing can be there"))
        }
    }

    /// Ends a touch, and checks one that has found an entry.
    pub(super) fn touched(
        &mut self,
        number: u32,
        asked: Asked,
        result: Option<Result<bool, CacheError>>,
        (clock, is_bad_disk): (u64, bool),
    ) -> Result<(), String> {
        let effect = match &result {
            Some(Ok(true)) => Effect::Certain,
            Some(Ok(false)) => Effect::None,
            None | Some(Err(CacheError::Closed)) => Effect::Possible,
            Some(Err(CacheError::L2Io { .. })) if is_bad_disk => Effect::Possible,
            Some(Err(error)) => return Err(format!("touch {number} fails: {error}")),
        };
        // What it has found does not owe its life to it.
        self.end(number, if effect == Effect::Certain { Effect::None } else { effect }, clock);
        let at = self.full_keys[&number];
        let touch = &self.mutations[at];
        let Scope::Key(full_key) = touch.scope else { return Ok(()) };
        let may_be = |put: &Mutation| {
            put.full_key() == Some(full_key)
                && put.effect != Effect::None
                && self.shadow(put, asked).is_none()
                && self.expiry_of(put, asked).is_none()
                && asked.clock < self.latest(put, asked).gone
        };
        if effect != Effect::Certain || self.mutations.iter().any(may_be) {
            self.mutations[at].effect = effect;
            return Ok(());
        }
        Err(format!("{touch:?}, {asked:?}, finds an entry, though nothing can be there"))
    }

    /// The latest deadlines that an entry can have: of its put, and of the touches that may have
    /// come to it, but those before one that certainly has.
    fn latest(&self, put: &Mutation, asked: Asked) -> Latest {
        let of_key = |other: &&Mutation| {
            other.effect != Effect::None
                && other.ended > put.begun
                && matches!(other.scope, Scope::Key(of) if Some(of) == put.full_key())
        };
        let others: Vec<&Mutation> = self.mutations.iter().filter(of_key).collect();
        let is_other_put = |other: &&&Mutation| other.put.is_some() && other.number != put.number;
        let came_to_it = |touch: &&&Mutation| {
            let is_before = |other: &&Mutation| other.begun < touch.ended;
            touch.touch.is_some()
                && touch.is_certain(asked.life)
                && put.ended < touch.begun
                && touch.ended < asked.begun
                && !others.iter().filter(is_other_put).any(is_before)
        };
        let certain: Vec<u64> = others.iter().filter(came_to_it).map(|it| it.begun).collect();
        let counts = |setter: &&Mutation| !certain.iter().any(|begun| *begun > setter.ended);
        let touches = others.iter().copied().filter(|it| it.touch.is_some());
        let mut latest = Latest::default();
        for setter in touches.chain([put]).filter(counts) {
            let of_put = setter.put.as_ref().map(|put| (put.ttl, put.stale));
            let of_touch = setter.touch.map(|touch| (touch.ttl, touch.stale));
            let Some((ttl, window)) = of_put.or(of_touch) else { continue };
            let stale = ttl.zip(setter.clock).map_or(NEVER, |(ttl, clock)| clock + ttl);
            latest.stale = latest.stale.max(stale);
            latest.gone = latest.gone.max(stale.saturating_add(window));
            latest.window = latest.window.max(window);
        }
        latest
    }

    /// Checks a put refused because of that version.
    pub(super) fn mismatched(
        &mut self,
        number: u32,
        asked: Asked,
        existing: u64,
        clock: u64,
    ) -> Result<(), String> {
        let put = self.mutations[self.full_keys[&number]].clone();
        self.end(number, Effect::None, clock);
        let attempted = put.put.as_ref().and_then(|put| put.version);
        if attempted.is_none_or(|attempted| existing < attempted) {
            return Err(format!("{put:?} is refused for the version {existing}"));
        }
        let has_it = |mutation: &Mutation| {
            mutation.put.as_ref().is_some_and(|put| put.version == Some(existing))
                && mutation.full_key() == put.full_key()
                && mutation.number != number
                && mutation.effect != Effect::None
                && self.shadow(mutation, asked).is_none()
        };
        if self.mutations.iter().any(has_it) {
            Ok(())
        } else {
            Err(format!("{put:?} is refused for {existing}, which is not there"))
        }
    }

    /// A mutation that certainly took effect after `put`, and had ended before the read.
    fn shadow(&self, put: &Mutation, asked: Asked) -> Option<&Mutation> {
        self.after(put, asked).find(|other| !other.expires && other.touch.is_none())
    }

    /// The same for one that makes it stale.
    fn expiry_of(&self, put: &Mutation, asked: Asked) -> Option<&Mutation> {
        self.after(put, asked).find(|other| other.expires)
    }

    /// Mutations that cover `put`, certainly took effect after it, and had ended before the read.
    fn after(&self, put: &Mutation, asked: Asked) -> impl Iterator<Item = &Mutation> {
        self.mutations.iter().filter(move |other| {
            other.begun > put.known
                && other.ended < asked.begun
                && other.is_certain(asked.life)
                && other.covers(put)
        })
    }

    /// Whether another reader had seen this value stale before this read began.
    fn was_stale(&self, full_key: FullKey, number: u32, asked: Asked) -> bool {
        let sights = self.sights.get(&full_key).into_iter().flatten();
        let mut before = sights.filter(|sight| sight.ended < asked.begun);
        before.any(|sight| {
            sight.number == number && sight.is_stale && !self.may_be_touched_since(full_key, sight)
        })
    }

    fn may_be_touched_since(&self, full_key: FullKey, sight: &Sight) -> bool {
        self.mutations.iter().any(|other| {
            other.touch.is_some()
                && other.effect != Effect::None
                && other.ended > sight.begun
                && matches!(other.scope, Scope::Key(of) if of == full_key)
        })
    }

    /// A newer value than `put` that another reader had seen before this read began.
    fn seen_newer(&self, put: &Mutation, full_key: FullKey, asked: Asked) -> Option<&Mutation> {
        let sights = self.sights.get(&full_key)?;
        let seen = sights.iter().filter(|sight| sight.ended < asked.begun);
        seen.map(|sight| &self.mutations[self.full_keys[&sight.number]])
            .find(|seen| seen.number != put.number && seen.begun > put.known)
    }

    pub(super) fn told(&self) -> String {
        let mutations = self.mutations.iter().map(|mutation| format!("{mutation:?}\n"));
        mutations.chain(self.ends.iter().cloned()).collect()
    }
}
