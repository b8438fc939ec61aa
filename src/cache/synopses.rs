//! Keeping the synopses of all namespaces good: one task, which sleeps until one is worn.

use std::sync::{Arc, Weak};

use crate::cache::bell::Bell;
use crate::cache::shared::Shared;
use crate::l2::Position;
use crate::namespace::Namespace;
use crate::step::{STEP_ENTRIES, pause};

/// The task: makes worn synopses anew until it is closed or the cache is gone.
pub(super) async fn renew(renewal: Arc<Bell>, shared: Weak<Shared>) {
    let upgrade = || shared.upgrade();
    // Bounded: a wait in each turn.
    loop {
        let mut next = Some(0);
        // Bounded: a step in each turn, then a pause.
        while let Some(from) = next {
            let Some(shared) = upgrade() else { return };
            let mut namespaces = Vec::new();
            next = shared.namespaces.some(from, &mut namespaces);
            drop(shared);
            // Bounded: by a step.
            for namespace in namespaces {
                // Bounded: a synopsis in each turn, which pauses.
                while namespace.synopsis().is_worn() {
                    let Some(shared) = upgrade() else { return };
                    let has_begun = shared.begin_synopsis(&namespace);
                    // Nobody who drops the cache has to wait for the rest.
                    drop(shared);
                    if !has_begun || !make(&namespace, &renewal).await {
                        break;
                    }
                    let Some(shared) = upgrade() else { return };
                    let old = namespace.finish_synopsis(&mut shared.order.section());
                    drop(old);
                }
            }
            pause().await;
        }
        if !renewal.is_rung().await {
            return;
        }
    }
}

impl Shared {
    /// To be asked by whoever has changed the index of a namespace.
    pub(super) fn look_after_synopsis(&self, namespace: &Namespace) {
        if namespace.synopsis().is_worn() {
            self.renewal.ring();
        }
    }

    /// In a section, so that nobody is between telling the old one of a hash and its slot.
    fn begin_synopsis(&self, namespace: &Namespace) -> bool {
        namespace.begin_synopsis(&mut self.order.section())
    }
}

/// Tells a synopsis that has been begun of all that the index holds. False where that is not needed
/// any more.
async fn make(namespace: &Namespace, renewal: &Bell) -> bool {
    let mut cursor = Some(Default::default());
    // Bounded: a step in each turn, then a pause.
    while let Some(from) = cursor {
        let (mut found, everything) = (Vec::new(), Position::FIRST..Position::LAST);
        cursor = namespace.index().scan(from, everything, STEP_ENTRIES, &mut found);
        namespace.synopsis().tell(found.into_iter().map(|(hash, _)| hash));
        pause().await;
        if renewal.is_closed() || namespace.has_ended() {
            return false;
        }
    }
    true
}
