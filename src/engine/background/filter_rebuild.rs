//! `FilterRebuild`: rebuilds worn filters, in one task that sleeps until one is worn.

use std::sync::{Arc, Weak};

use crate::engine::background::filter_wear::FilterWear;
use crate::engine::background::wakeup::Wakeup;
use crate::engine::parts::Parts;
use crate::l2::Position;
use crate::namespace::{Namespace, Namespaces};
use crate::order::Order;
use crate::step::{STEP_ENTRIES, pause};

/// See the module.
pub(crate) struct FilterRebuild {
    order: Arc<Order>,
    namespaces: Arc<Namespaces>,
}

impl FilterRebuild {
    pub(crate) fn new(parts: &Parts) -> Self {
        Self { order: parts.order.clone(), namespaces: parts.namespaces.clone() }
    }

    /// In a section, so that nobody is between telling the old one of a hash and its slot.
    fn begin_synopsis(&self, namespace: &Namespace) -> bool {
        namespace.begin_synopsis(&mut self.order.section())
    }
}

/// The task: makes worn synopses anew until it is closed or the cache is gone.
pub(crate) async fn run(filters: Arc<FilterWear>, rebuild: Weak<FilterRebuild>) {
    let upgrade = || rebuild.upgrade();
    // Bounded: a wait in each turn.
    loop {
        let mut next = Some(0);
        // Bounded: a step in each turn, then a pause.
        while let Some(from) = next {
            let Some(this) = upgrade() else { return };
            let mut namespaces = Vec::new();
            next = this.namespaces.some(from, &mut namespaces);
            drop(this);
            // Bounded: by a step.
            for namespace in namespaces {
                // Bounded: a synopsis in each turn, which pauses.
                while namespace.synopsis().is_worn() {
                    let Some(this) = upgrade() else { return };
                    let has_begun = this.begin_synopsis(&namespace);
                    // Nobody who drops the cache has to wait for the rest.
                    drop(this);
                    if !has_begun || !make(&namespace, filters.wakeup()).await {
                        break;
                    }
                    let Some(this) = upgrade() else { return };
                    let old = namespace.finish_synopsis(&mut this.order.section());
                    drop(old);
                }
            }
            pause().await;
        }
        if !filters.wakeup().notified().await {
            return;
        }
    }
}

/// Tells a synopsis that has been begun of all that the index holds. False where that is not needed
/// any more.
async fn make(namespace: &Namespace, wakeup: &Wakeup) -> bool {
    let mut cursor = Some(Default::default());
    // Bounded: a step in each turn, then a pause.
    while let Some(from) = cursor {
        let (mut found, everything) = (Vec::new(), Position::FIRST..Position::LAST);
        cursor = namespace.index().scan(from, everything, STEP_ENTRIES, &mut found);
        namespace.synopsis().tell(found.into_iter().map(|(hash, _)| hash));
        pause().await;
        if wakeup.is_closed() || namespace.has_ended() {
            return false;
        }
    }
    true
}
