//! The naive model of a cache: what was put and invalidated, and when. It knows real time only:
//! which call had ended before which began. A hit is wrong if that rules it out.

use std::collections::BTreeMap;

use super::listing::Listed;
use super::value::FullKey;

/// Not yet.
const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    Key(FullKey),
    Prefix(usize, u8),
    Tag(usize, u8),
    /// A tag in all namespaces.
    TagEverywhere(u8),
    Space(usize),
    All,
}

/// A value that is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Put {
    pub(super) length: usize,
    pub(super) tag: Option<u8>,
    pub(super) version: Option<u64>,
    /// In seconds.
    pub(super) ttl: Option<u64>,
    /// It was read at a point: it is no newer, and may be refused silently.
    pub(super) is_fill: bool,
}

impl Put {
    /// Its stale window, in seconds.
    pub(super) fn window(&self) -> u64 {
        if self.length % 2 == 1 { 30 } else { 0 }
    }
}

/// Deadlines that an entry gets, in seconds from the call on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Touch {
    pub(super) ttl: u64,
    /// Its stale window.
    pub(super) window: u64,
}

/// Whether a mutation has taken effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Possible,
    Certain,
    /// In that process.
    CertainInLife(u32),
    None,
}

#[derive(Clone, Copy, Debug)]
struct Mutation {
    scope: Scope,
    put: Option<Put>,
    /// What it covers becomes stale.
    expires: bool,
    touch: Option<Touch>,
    begun: u64,
    /// From then on it had taken effect, if ever.
    known: u64,
    ended: u64,
    effect: Effect,
    /// Seconds of the clock at its end.
    clock: u64,
}

/// When a get began.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    begun: u64,
    clock: u64,
}

/// When an entry is stale and gone at the latest, and its longest stale window.
#[derive(Debug, Default)]
struct Latest {
    stale: u64,
    gone: u64,
    window: u64,
}

#[derive(Debug, Default)]
pub(super) struct Model {
    now: u64,
    pub(super) life: u32,
    /// Seconds.
    pub(super) clock: u64,
    mutations: Vec<Mutation>,
    /// When a process has seen which value of a key.
    sights: BTreeMap<FullKey, Vec<(u64, usize)>>,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }

    pub(super) fn asked(&mut self) -> Asked {
        Asked { begun: self.tick(), clock: self.clock }
    }

    /// A mutation begins. Returns its number.
    pub(super) fn begin(&mut self, scope: Scope, put: Option<Put>) -> usize {
        let begun = self.tick();
        let is_fill = put.is_some_and(|put| put.is_fill);
        self.mutations.push(Mutation {
            scope,
            put,
            expires: false,
            touch: None,
            begun,
            known: if is_fill { begun } else { NEVER },
            ended: NEVER,
            effect: Effect::Possible,
            clock: 0,
        });
        self.mutations.len() - 1
    }

    pub(super) fn begin_expiry(&mut self, scope: Scope) -> usize {
        let number = self.begin(scope, None);
        self.mutations[number].expires = true;
        number
    }

    pub(super) fn begin_touch(&mut self, full_key: FullKey, touch: Touch) -> usize {
        let number = self.begin(Scope::Key(full_key), None);
        self.mutations[number].touch = Some(touch);
        number
    }

    /// It has ended, or was dropped.
    pub(super) fn end(&mut self, number: usize, effect: Effect) {
        let (now, clock) = (self.tick(), self.clock);
        let mutation = &mut self.mutations[number];
        if mutation.ended != NEVER {
            return;
        }
        mutation.known = mutation.known.min(now);
        (mutation.ended, mutation.clock) = (now, clock);
        let is_fill = mutation.put.is_some_and(|put| put.is_fill);
        let is_refusable = is_fill && effect != Effect::None;
        mutation.effect = if is_refusable { Effect::Possible } else { effect };
    }

    /// The process has ended, with all its calls.
    pub(super) fn end_life(&mut self) {
        for number in 0..self.mutations.len() {
            self.end(number, Effect::Possible);
        }
        self.sights.clear();
        self.life += 1;
    }

    /// A call has found a value.
    pub(super) fn found(
        &mut self,
        full_key: FullKey,
        asked: Asked,
        (number, length, version): (u32, usize, Option<u64>),
        is_stale: bool,
    ) {
        let now = self.tick();
        let number = number as usize;
        let found = self.mutations.get(number).copied();
        let found = found.unwrap_or_else(|| panic!("{full_key:?} was never put"));
        let told = format!("a hit of {full_key:?}, {asked:?} to {now}: {found:?}");
        let Some(put) = found.put else { panic!("no put: {told}") };
        assert_eq!(found.scope, Scope::Key(full_key), "put elsewhere: {told}");
        assert_ne!(found.effect, Effect::None, "refused: {told}");
        assert_eq!((put.length, put.version), (length, version), "{told}");
        let Latest { stale, gone, window } = self.latest(&found, asked);
        assert!(asked.clock < stale || is_stale, "past its ttl: {told}");
        assert!(asked.clock < gone, "past its stale window: {told}");
        let mut after = self.mutations.iter().filter(|other| self.follows(other, &found, asked));
        if let Some(expiry) = after.find(|other| other.expires) {
            assert!(is_stale, "not said to be stale: {told}, behind {expiry:?}");
            let end = expiry.clock + window;
            assert!(asked.clock < end, "past its stale window: {told}, behind {expiry:?}");
        }
        let newer = self.mutations.iter().find(|other| self.shadows(other, &found, asked));
        assert!(newer.is_none(), "stale: {told}, behind {newer:?}");
        let sights = self.sights.get(&full_key).into_iter().flatten();
        let mut seen = sights.filter(|(ended, _)| *ended < asked.begun);
        let newer = seen.find(|(_, of)| *of != number && self.mutations[*of].begun > found.known);
        assert!(newer.is_none(), "older than what was seen before: {told}, {newer:?}");
        self.mutations[number].known = found.known.min(now);
        self.sights.entry(full_key).or_default().push((now, number));
    }

    /// A listing has an entry. `tag`: one that it carries.
    pub(super) fn listed(&mut self, asked: Asked, tag: Option<u8>, listed: Listed) {
        self.tick();
        let Listed { full_key, version, is_stale } = listed;
        let may_be = |put: &Mutation| {
            let Some(what) = put.put.filter(|_| put.scope == Scope::Key(full_key)) else {
                return false;
            };
            let is_other = what.version != version || (tag.is_some() && what.tag != tag);
            let Latest { stale, gone, window } = self.latest(put, asked);
            let mut after = self.mutations.iter().filter(|other| self.follows(other, put, asked));
            let is_over = after.any(|other| {
                let is_expired = is_stale == Some(false) || asked.clock >= other.clock + window;
                let is_touch = other.touch.is_some();
                !is_touch && (!other.expires || is_expired)
            });
            let is_past = asked.clock >= gone || (is_stale == Some(false) && asked.clock >= stale);
            put.effect != Effect::None && !is_other && !is_over && !is_past
        };
        let is_right = self.mutations.iter().any(may_be);
        assert!(is_right, "{listed:?} is listed, {asked:?} to {}, and cannot be there", self.now);
    }

    /// A put was refused, because the cache has that version.
    pub(super) fn mismatched(&mut self, number: usize, asked: Asked, existing: u64) {
        self.end(number, Effect::None);
        let refused = self.mutations[number];
        let attempted = refused.put.and_then(|put| put.version);
        assert!(attempted.is_some_and(|attempted| existing >= attempted), "{refused:?}");
        let has_it = |(of, other): (usize, &Mutation)| {
            other.put.is_some_and(|put| put.version == Some(existing))
                && (of != number && other.scope == refused.scope && other.effect != Effect::None)
                && !self.mutations.iter().any(|newer| self.shadows(newer, other, asked))
        };
        let is_there = self.mutations.iter().enumerate().any(has_it);
        assert!(is_there, "{refused:?} is refused for {existing}, which is not there");
    }

    /// The latest deadlines that an entry can have: of its put, and of the touches that may have
    /// come to it, but those before one that certainly has.
    fn latest(&self, put: &Mutation, asked: Asked) -> Latest {
        let is_near = |other: &&Mutation| {
            other.scope == put.scope && other.effect != Effect::None && other.ended > put.begun
        };
        let near: Vec<&Mutation> = self.mutations.iter().filter(is_near).collect();
        let has_come = |touch: &&&Mutation| {
            let is_other = |other: &&&Mutation| other.put.is_some() && other.begun != put.begun;
            let is_order_known = put.ended < touch.begun && touch.ended < asked.begun;
            touch.touch.is_some()
                && touch.effect == Effect::Certain
                && is_order_known
                && !near.iter().filter(is_other).any(|other| other.begun < touch.ended)
        };
        let come: Vec<u64> = near.iter().filter(has_come).map(|touch| touch.begun).collect();
        let touches = near.iter().copied().filter(|other| other.touch.is_some());
        let mut latest = Latest::default();
        for setter in touches.chain([put]) {
            if come.iter().any(|begun| *begun > setter.ended) {
                continue;
            }
            let of_put = setter.put.map(|put| (put.ttl, put.window()));
            let of_touch = setter.touch.map(|touch| (Some(touch.ttl), touch.window));
            let (ttl, window) = of_put.or(of_touch).unwrap_or_default();
            let ttl = ttl.filter(|_| setter.ended != NEVER);
            let stale = ttl.map_or(NEVER, |ttl| setter.clock + ttl);
            latest.stale = latest.stale.max(stale);
            latest.gone = latest.gone.max(stale.saturating_add(window));
            latest.window = latest.window.max(window);
        }
        latest
    }

    /// Whether `other` certainly removed `put` before the question.
    fn shadows(&self, other: &Mutation, put: &Mutation, asked: Asked) -> bool {
        !other.expires && other.touch.is_none() && self.follows(other, put, asked)
    }

    /// Whether `other` certainly took effect after `put`, and before the question.
    fn follows(&self, other: &Mutation, put: &Mutation, asked: Asked) -> bool {
        let is_certain = match other.effect {
            Effect::Certain => true,
            Effect::CertainInLife(life) => life == self.life,
            Effect::Possible | Effect::None => false,
        };
        other.begun > put.known && other.ended < asked.begun && is_certain && other.covers(put)
    }
}

impl Mutation {
    fn covers(&self, put: &Self) -> bool {
        let (Scope::Key(full_key), Some(what)) = (put.scope, put.put) else { return false };
        match self.scope {
            Scope::Key(of) => of == full_key,
            Scope::Prefix(space, first) => space == full_key.space && full_key.name()[0] == first,
            Scope::Tag(space, tag) => space == full_key.space && what.tag == Some(tag),
            Scope::TagEverywhere(tag) => what.tag == Some(tag),
            Scope::Space(space) => space == full_key.space,
            Scope::All => true,
        }
    }
}
