//! Stands for `src/io/linux/point/bell.rs`: a bell without a descriptor.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Poll, Waker};

use shuttle::sync::Mutex;

thread_local! {
    static BELLS: RefCell<BTreeMap<RawFd, Arc<Mutex<Rings>>>> = RefCell::default();
}

#[derive(Default)]
struct Rings {
    count: u64,
    listeners: Vec<Waker>,
}

pub(crate) struct Bell {
    descriptor: RawFd,
    rings: Arc<Mutex<Rings>>,
}

pub(crate) struct Listener {
    rings: Arc<Mutex<Rings>>,
    heard: AtomicU64,
}

impl Bell {
    pub(crate) fn new() -> io::Result<Self> {
        let rings = Arc::<Mutex<Rings>>::default();
        let descriptor = BELLS.with_borrow_mut(|bells| {
            let descriptor = RawFd::try_from(bells.len()).expect("few bells");
            bells.insert(descriptor, Arc::clone(&rings));
            descriptor
        });
        Ok(Self { descriptor, rings })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.descriptor
    }

    pub(crate) fn ring(&self) {
        ring(self.descriptor);
    }

    pub(crate) fn duplicate(&self) -> io::Result<Self> {
        Ok(Self { descriptor: self.descriptor, rings: Arc::clone(&self.rings) })
    }

    pub(crate) fn listen(self) -> Option<Listener> {
        Some(Listener { rings: self.rings, heard: AtomicU64::new(0) })
    }
}

impl Listener {
    pub(crate) async fn rung(&self) -> io::Result<()> {
        poll_fn(|context| {
            let mut rings = self.rings.lock().expect("no thread panics");
            if self.heard.swap(rings.count, Ordering::Relaxed) != rings.count {
                return Poll::Ready(Ok(()));
            }
            rings.listeners.push(context.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Forgets the bells of the schedule before.
pub(crate) fn begin() {
    BELLS.with_borrow_mut(BTreeMap::clear);
}

pub(crate) fn ring(descriptor: RawFd) {
    let Some(rings) = BELLS.with_borrow(|bells| bells.get(&descriptor).cloned()) else { return };
    let listeners = {
        let mut rings = rings.lock().expect("no thread panics");
        rings.count += 1;
        std::mem::take(&mut rings.listeners)
    };
    listeners.into_iter().for_each(Waker::wake);
}
