//! `Namespaces`: names in use, each with the generation that its entries belong to.
//!
//! A [`Namespace`] is one generation: it begins when a put first needs the name, and ends, once and
//! for all, when it is flushed or gives up its slot after running empty. Entries point to their
//! generation, so that a flush is one store, seen by every reader, whatever the number of entries.
//!
//! Locks: the table comes before the append section, and is never taken inside it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::RwLock;

use crate::error::CacheError;
use crate::order::{Order, Section};

/// One generation of a namespace.
#[derive(Debug)]
pub(crate) struct Namespace {
    name: Box<str>,
    /// Set under the append lock, never cleared: what belongs to this generation is gone.
    ended: AtomicBool,
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

impl Namespace {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn entries(&self) -> usize {
        self.entries.load(Ordering::Relaxed)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn grow(&self, bytes: usize) {
        self.entries.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn shrink(&self, bytes: usize) {
        self.entries.fetch_sub(1, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Takes the section as a witness that its lock is held.
    fn end(&self, _section: &mut Section<'_>) {
        self.ended.store(true, Ordering::Release);
    }
}

/// The generations that are alive, by name.
#[derive(Debug)]
pub(crate) struct Namespaces {
    table: RwLock<HashMap<Box<str>, Arc<Namespace>>>,
    max: usize,
}

impl Namespaces {
    pub(crate) fn new(max: usize) -> Self {
        Self { table: RwLock::new(HashMap::new()), max }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Namespace>> {
        self.table.read().get(name).cloned()
    }

    /// The name's generation, begun if there is none. Where all slots are taken, one that has run
    /// empty is given up for it.
    pub(crate) fn find_or_begin(
        &self,
        name: &str,
        order: &Order,
    ) -> Result<Arc<Namespace>, CacheError> {
        if let Some(namespace) = self.find(name) {
            return Ok(namespace);
        }
        let mut table = self.table.write();
        if let Some(namespace) = table.get(name) {
            return Ok(Arc::clone(namespace));
        }
        if table.len() >= self.max {
            // Under the append lock nothing can be put into a namespace that is found empty.
            let mut section = order.section();
            let empty = table.values().find(|namespace| namespace.entries() == 0).cloned();
            let empty = empty.ok_or(CacheError::TooManyNamespaces { max: self.max })?;
            empty.end(&mut section);
            table.remove(empty.name());
        }
        let namespace = Arc::new(Namespace {
            name: name.into(),
            ended: AtomicBool::new(false),
            entries: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
        });
        table.insert(name.into(), Arc::clone(&namespace));
        Ok(namespace)
    }

    /// Does `then` while no generation can begin or end.
    pub(crate) fn with<T>(&self, name: &str, then: impl FnOnce(Option<&Namespace>) -> T) -> T {
        let table = self.table.read();
        then(table.get(name).map(Arc::as_ref))
    }

    /// Ends the name's generation, with what `mark` does in the same section. None: the name is
    /// not in use, as `mark` is told, and only that has been done.
    pub(crate) fn flush(
        &self,
        name: &str,
        order: &Order,
        mark: impl FnOnce(&mut Section<'_>, bool),
    ) -> Option<Arc<Namespace>> {
        let mut table = self.table.write();
        let mut section = order.section();
        let flushed = table.remove(name);
        if let Some(namespace) = &flushed {
            namespace.end(&mut section);
        }
        mark(&mut section, flushed.is_some());
        flushed
    }

    /// Ends every generation, likewise.
    pub(crate) fn flush_all(
        &self,
        order: &Order,
        mark: impl FnOnce(&mut Section<'_>),
    ) -> Vec<Arc<Namespace>> {
        let mut table = self.table.write();
        let mut section = order.section();
        let flushed: Vec<_> = table.drain().map(|(_, namespace)| namespace).collect();
        for namespace in &flushed {
            namespace.end(&mut section);
        }
        mark(&mut section);
        flushed
    }

    pub(crate) fn len(&self) -> usize {
        self.table.read().len()
    }

    /// Entries of all generations that are alive.
    pub(crate) fn entries(&self) -> usize {
        self.table.read().values().map(|namespace| namespace.entries()).sum()
    }
}
