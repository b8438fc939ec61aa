//! `PendingInvalidations`: invalidations that are in force while the entries they cover are being
//! removed.
//!
//! An invalidation of many entries takes effect at one place in the order, as a
//! [`PendingInvalidation`]: from then on every reader that meets an older entry which the rule
//! covers treats it as gone. Removing those entries is a walk in bounded steps, which the caller
//! takes, and helped on by later mutations where the caller has gone away. When the walk is done
//! the rule is withdrawn.
//!
//! PendingInvalidations over labels walk postings. PendingInvalidations over prefixes, and flushed
//! namespaces whose memory is to come back, share one round over all entries of L1: a rule is done
//! when the round has come by the place where it stood when the rule was made.
//!
//! Locks: a walk comes before everything else; the list of rules is a leaf, and is taken inside
//! the append section to make a rule.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use crate::entry::Entry;
use crate::failpoint::{Failpoint, failpoint};
use crate::key::{KeyHash, LabelHash};
use crate::l1::Cursor;
use crate::namespace::Namespace;
use crate::sequence::Sequence;
use crate::waiters::Waiters;

/// The most rules at one time; an invalidation that would be one more waits for one to end.
const RULES_MAX: usize = 256;

/// What a rule covers, among the entries of its generation that are older than itself.
#[derive(Debug)]
pub(crate) enum Scope {
    /// Sorted, each once.
    Labels(Box<[LabelHash]>),
    Prefix(Box<[u8]>),
    /// Nothing that a reader could still meet: entries of namespaces that have ended.
    Ended,
}

#[derive(Debug)]
pub(crate) struct PendingInvalidation {
    pub(crate) sequence: Sequence,
    pub(crate) scope: Scope,
    /// Entries it has removed that were not known to be expired.
    removed: AtomicUsize,
    /// How far the walk over its postings has come; unused by rules that share the round.
    pub(crate) walk: Mutex<LabelWalk>,
    /// Where the round stood when the rule was made.
    round: Round,
    /// The generation whose entries it covers.
    pub(crate) namespace: Option<Arc<Namespace>>,
    /// The directories on disk have still to be looked through.
    is_scanning: AtomicBool,
}

/// The place of a walk over the postings of a rule's labels.
#[derive(Debug, Default)]
pub(crate) struct LabelWalk {
    /// Which of the labels; past the last one when the walk is done.
    pub(crate) label: usize,
    pub(crate) after: Option<KeyHash>,
}

/// The place of the walk over all entries, ordered: how often it has begun again, and where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Round {
    lap: u64,
    cursor: Cursor,
}

impl Round {
    /// The next place; None begins again.
    fn to(self, cursor: Option<Cursor>) -> Self {
        match cursor {
            Some(cursor) => Self { cursor, ..self },
            None => Self { lap: self.lap + 1, cursor: Cursor::default() },
        }
    }

    /// Whether a whole lap lies between `from` and here.
    pub(crate) fn is_round_since(self, from: Self) -> bool {
        self >= Self { lap: from.lap + 1, cursor: from.cursor }
    }
}

impl PendingInvalidation {
    fn covers(
        &self,
        generation: &Arc<Namespace>,
        sequence: Sequence,
        key: &[u8],
        labels: &[LabelHash],
    ) -> bool {
        sequence < self.sequence
            && self.namespace.as_ref().is_some_and(|covered| Arc::ptr_eq(covered, generation))
            && match &self.scope {
                Scope::Labels(covered) => {
                    labels.iter().any(|label| covered.binary_search(label).is_ok())
                }
                Scope::Prefix(prefix) => key.starts_with(prefix),
                Scope::Ended => false,
            }
    }

    /// Counts an entry that was removed and not known to be expired.
    pub(crate) fn count(&self) {
        self.removed.fetch_add(1, Ordering::Release);
    }

    fn is_scanning(&self) -> bool {
        self.is_scanning.load(Ordering::Acquire)
    }

    pub(crate) fn removed(&self) -> usize {
        self.removed.load(Ordering::Acquire)
    }

    fn hides_entries(&self) -> bool {
        !matches!(self.scope, Scope::Ended)
    }
}

#[derive(Debug, Default)]
pub(crate) struct PendingInvalidations {
    /// Those not withdrawn, oldest first.
    rules: RwLock<Vec<Arc<PendingInvalidation>>>,
    /// How many there are, for those who need not lock when there are none.
    pending: AtomicUsize,
    /// How many of them hide entries that readers may meet.
    in_force: AtomicUsize,
    /// Somebody looks through the directories on disk, for all rules that want it.
    is_scanned: AtomicBool,
    /// Those who wait for that to be done for some rules.
    scans: Waiters,
    /// Held by whoever takes a step of the round.
    walker: Mutex<()>,
    /// Where the next step of the round begins. Held while a step collects its entries, so that a
    /// rule made meanwhile counts from behind them.
    round: Mutex<Round>,
}

/// One step of the round over all entries.
#[derive(Debug)]
pub(crate) struct RoundStep<'a> {
    rules: &'a PendingInvalidations,
    /// Where the round stands once the step is done.
    end: Round,
    _walker: MutexGuard<'a, ()>,
}

impl PendingInvalidations {
    /// Whether there are as many rules as there may be. Asked in a section, it is no later in it.
    pub(crate) fn is_full(&self) -> bool {
        self.in_force.load(Ordering::Acquire) >= RULES_MAX
    }

    /// Makes a rule, to be called in a section. `is_scanning`: the directories on disk are to be
    /// looked through for it, too.
    pub(crate) fn make(
        &self,
        sequence: Sequence,
        scope: Scope,
        namespace: Option<&Arc<Namespace>>,
        is_scanning: bool,
    ) -> Arc<PendingInvalidation> {
        let mut rules = self.rules.write();
        if matches!(scope, Scope::Ended) {
            // The newer one walks as far, and further.
            // Bounded: by the most rules at one time.
            rules.retain(|rule| rule.hides_entries());
        }
        // Held until the rule is in force: whoever takes a step from that place on knows of it.
        let round = self.round.lock();
        let rule = Arc::new(PendingInvalidation {
            sequence,
            scope,
            removed: AtomicUsize::new(0),
            walk: Mutex::default(),
            round: *round,
            namespace: namespace.cloned(),
            is_scanning: AtomicBool::new(is_scanning),
        });
        rules.push(Arc::clone(&rule));
        self.recount(&rules);
        drop(round);
        rule
    }

    /// Asks for a round over what has been flushed, once that has ended: a step that came before
    /// would take it for alive. Nobody has to be told that it is gone.
    pub(crate) fn sweep_ended(&self) {
        self.make(Sequence::default(), Scope::Ended, None, false);
    }

    /// True while a reader must ask [`PendingInvalidations::covering`]. One load, of a line that
    /// seldom changes.
    pub(crate) fn any_in_force(&self) -> bool {
        self.in_force.load(Ordering::Acquire) > 0
    }

    pub(crate) fn any_pending(&self) -> bool {
        self.pending.load(Ordering::Acquire) > 0
    }

    /// The first rule in force that covers the entry.
    pub(crate) fn matching(&self, entry: &Entry) -> Option<Arc<PendingInvalidation>> {
        self.matching_record(&entry.namespace, entry.sequence(), &entry.key, entry.labels())
    }

    /// The same of something with these properties.
    pub(crate) fn matching_record(
        &self,
        generation: &Arc<Namespace>,
        sequence: Sequence,
        key: &[u8],
        labels: &[LabelHash],
    ) -> Option<Arc<PendingInvalidation>> {
        if !self.any_in_force() {
            return None;
        }
        let covers =
            |rule: &&Arc<PendingInvalidation>| rule.covers(generation, sequence, key, labels);
        self.rules.read().iter().find(covers).cloned()
    }

    pub(crate) fn oldest(&self) -> Option<Arc<PendingInvalidation>> {
        self.rules.read().first().cloned()
    }

    /// Those over labels.
    pub(crate) fn over_labels(&self) -> Vec<Arc<PendingInvalidation>> {
        let is_over_labels =
            |rule: &&Arc<PendingInvalidation>| matches!(rule.scope, Scope::Labels(_));
        // Bounded: by the most rules at one time.
        self.rules.read().iter().filter(is_over_labels).cloned().collect()
    }

    pub(crate) fn withdraw(&self, rule: &Arc<PendingInvalidation>) {
        let mut rules = self.rules.write();
        // Bounded: by the most rules at one time.
        rules.retain(|held| !Arc::ptr_eq(held, rule));
        self.recount(&rules);
    }

    /// Whether the caller is to look through the directories on disk, until there is no rule left
    /// that wants it: nobody else does, and a rule may.
    pub(crate) fn begin_scan(&self) -> bool {
        !self.is_scanned.swap(true, Ordering::AcqRel)
    }

    /// The rules to look through them for. None are left: the scan has ended, unless one has been
    /// made at that moment.
    pub(crate) fn to_scan(&self) -> Vec<Arc<PendingInvalidation>> {
        // Bounded: by the rules that are made meanwhile.
        loop {
            let rules = self.rules.read();
            let wanting = rules.iter().filter(|rule| rule.is_scanning()).cloned();
            // Bounded: by the most rules at one time.
            let wanting: Vec<_> = wanting.collect();
            if !wanting.is_empty() {
                return wanting;
            }
            drop(rules);
            self.is_scanned.store(false, Ordering::Release);
            let is_wanted = self.rules.read().iter().any(|rule| rule.is_scanning());
            if !is_wanted || !self.begin_scan() {
                return Vec::new();
            }
        }
    }

    /// The directories on disk have been looked through for these rules.
    pub(crate) async fn scanned(&self, rules: &[Arc<PendingInvalidation>]) {
        // Bounded: by the most rules at one time.
        rules.iter().for_each(|rule| rule.is_scanning.store(false, Ordering::Release));
        self.scans.wake_all().await;
    }

    /// The same where nothing can be awaited: the scan has broken down.
    pub(crate) fn given_up(&self, rules: &[Arc<PendingInvalidation>]) {
        // Bounded: by the most rules at one time.
        rules.iter().for_each(|rule| rule.is_scanning.store(false, Ordering::Release));
        self.scans.wake_all_at_once();
    }

    /// Resolves once they have been for this one and for those of its namespace that are older:
    /// which prefixes cover what is on disk only, labels do not tell, and it counts for the first.
    pub(crate) async fn until_scanned(&self, rule: &PendingInvalidation) {
        self.scans.until((), || (!self.is_scanning_up_to(rule)).then_some(())).await;
    }

    fn is_scanning_up_to(&self, rule: &PendingInvalidation) -> bool {
        let is_of = |held: &&Arc<PendingInvalidation>| match (&held.namespace, &rule.namespace) {
            (Some(held), Some(namespace)) => Arc::ptr_eq(held, namespace),
            _ => false,
        };
        let rules = self.rules.read();
        let older = rules.iter().take_while(|held| held.sequence <= rule.sequence);
        older.filter(is_of).any(|held| held.is_scanning())
    }

    pub(crate) fn is_withdrawn(&self, rule: &Arc<PendingInvalidation>) -> bool {
        !self.rules.read().iter().any(|held| Arc::ptr_eq(held, rule))
    }

    /// Where the round over all entries stands.
    pub(crate) fn round(&self) -> Round {
        *self.round.lock()
    }

    /// Begins a step of the round: `collect` takes entries from where it stands, and says where to
    /// go on, None at the end. None where somebody else is at a step and `wait` is not asked.
    pub(crate) fn step(
        &self,
        wait: bool,
        collect: impl FnOnce(Cursor) -> Option<Cursor>,
    ) -> Option<RoundStep<'_>> {
        let walker = if wait { self.walker.lock() } else { self.walker.try_lock()? };
        let mut round = self.round.lock();
        *round = round.to(collect(round.cursor));
        Some(RoundStep { rules: self, end: *round, _walker: walker })
    }

    fn recount(&self, rules: &[Arc<PendingInvalidation>]) {
        self.pending.store(rules.len(), Ordering::Release);
        let in_force = rules.iter().filter(|rule| rule.hides_entries()).count();
        self.in_force.store(in_force, Ordering::Release);
    }
}

impl RoundStep<'_> {
    /// Where the round stands once it is done.
    pub(crate) fn end(&self) -> Round {
        self.end
    }

    /// What was collected has been dealt with: withdraws the rules that the round has served.
    pub(crate) fn done(self) {
        let served = |rule: &PendingInvalidation| {
            !matches!(rule.scope, Scope::Labels(_))
                && (!rule.is_scanning() || failpoint(Failpoint::RuleWithdrawnEarly))
                && self.end.is_round_since(rule.round)
        };
        let mut rules = self.rules.rules.write();
        // Bounded: by the most rules at one time.
        rules.retain(|rule| !served(rule));
        self.rules.recount(&rules);
    }
}
