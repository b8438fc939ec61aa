//! `Waiters`: callers who wait for the log to come somewhere.

use futures::channel::oneshot;

/// Those who wait, each for something of its own. One that has gone away is let go of before the
/// list has to grow.
#[derive(Debug)]
pub(super) struct Waiters<T>(Vec<(T, oneshot::Sender<()>)>);

impl<T> Waiters<T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    /// The end of this wait: told, or dropped where there is nothing to be waited for any more.
    pub(super) fn wait(&mut self, reason: T) -> oneshot::Receiver<()> {
        if self.0.len() == self.0.capacity() {
            self.0.retain(|(_, waiter)| !waiter.is_canceled());
        }
        let (waiter, waiting) = oneshot::channel();
        self.0.push((reason, waiter));
        waiting
    }

    /// Takes out those whose reason has come, to be told once no lock is held.
    pub(super) fn take(&mut self, has_come: impl Fn(&T) -> bool) -> Told {
        let (mut told, mut next) = (Vec::new(), 0);
        while let Some((reason, _)) = self.0.get(next) {
            if has_come(reason) {
                told.push(self.0.swap_remove(next).1);
            } else {
                next += 1;
            }
        }
        Told(told)
    }

    /// Lets go of all of them.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

/// Waiters who have to be told.
#[derive(Debug)]
#[must_use = "nobody has been told yet"]
pub(super) struct Told(Vec<oneshot::Sender<()>>);

impl Told {
    pub(super) fn tell(self) {
        for waiter in self.0 {
            // Whoever has gone away need not know.
            let _ = waiter.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn each_is_told_when_its_reason_has_come() {
        let mut waiters = Waiters::new();
        let mut waiting: Vec<_> = (0..10).map(|reason| waiters.wait(reason)).collect();
        waiters.take(|reason| reason % 2 == 0).tell();
        for (reason, waiting) in waiting.iter_mut().enumerate() {
            assert_eq!(waiting.now_or_never().is_some(), reason % 2 == 0);
        }
        waiters.clear();
        assert!(waiting[1].try_recv().is_err(), "let go of");
    }

    #[test]
    fn those_who_go_away_do_not_pile_up() {
        let mut waiters = Waiters::new();
        for number in 0..100_000 {
            drop(waiters.wait(number));
        }
        assert!(waiters.0.len() < 10, "{} are left", waiters.0.len());
    }
}
