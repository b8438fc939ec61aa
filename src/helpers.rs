//! `Helpers`: threads that compute for one long call, so that it uses all cores.
//!
//! A job is a future that waits for nothing but its own yields. Without threads the caller runs it
//! in its own polls, in the order in which it asks for it: that is deterministic. A job whose
//! caller has gone ends within a batch, and the threads end with the last job.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;

use tokio::sync::oneshot;

use crate::wake::contained;

pub(crate) struct Helpers {
    /// None without threads.
    jobs: Option<mpsc::Sender<Job>>,
    count: usize,
}

type Job = Box<dyn FnOnce() + Send>;

impl Helpers {
    /// Starts so many threads; fewer if the system refuses some.
    pub(crate) fn start(wanted: usize) -> Self {
        let (jobs, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        // Bounded: by the cores.
        let started = (0..wanted).map_while(|_| {
            let waiting = Arc::clone(&waiting);
            let thread = thread::Builder::new().name("tamis-helper".to_owned());
            thread.spawn(move || help(&waiting)).ok()
        });
        let count = started.count();
        Self { jobs: (count > 0).then_some(jobs), count }
    }

    /// The number of threads.
    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// Runs a job on a thread, or here if there is none. None if it panics on the thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let Some(jobs) = &self.jobs else { return Some(job.await) };
        let (sender, result) = oneshot::channel();
        jobs.send(Box::new(move || run_to_end(job, sender))).ok()?;
        result.await.ok()
    }
}

fn help(waiting: &Mutex<mpsc::Receiver<Job>>) {
    // Bounded: on a thread of its own.
    loop {
        // Idle threads wait for this lock: see `Monitor` for why it is not one of parking_lot.
        let job = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        contained(job);
    }
}

fn run_to_end<T>(job: impl Future<Output = T>, sender: oneshot::Sender<T>) {
    let mut job = pin!(job);
    let mut context = Context::from_waker(Waker::noop());
    // Bounded: on a thread of its own.
    while !sender.is_closed() {
        if let Poll::Ready(result) = job.as_mut().poll(&mut context) {
            // Nobody waits for it any more, if this fails.
            let _ = sender.send(result);
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use futures::executor::block_on;
    use futures::future::join_all;

    use super::*;
    use crate::batch::yield_now;

    async fn squared(number: u64) -> u64 {
        yield_now().await;
        number * number
    }

    #[test]
    fn jobs_give_their_results_with_and_without_threads() {
        for count in [0, 1, 3] {
            let helpers = Helpers::start(count);
            assert_eq!(helpers.count(), count);
            let results = block_on(join_all((0..100).map(|number| helpers.run(squared(number)))));
            assert_eq!(results, (0..100).map(|it| Some(it * it)).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_job_that_panics_gives_none_and_its_thread_goes_on() {
        let helpers = Helpers::start(1);
        let panicking = async { panic!("as planned") };
        assert_eq!(block_on(helpers.run::<u64>(panicking)), None);
        assert_eq!(block_on(helpers.run(squared(3))), Some(9));
    }

    #[test]
    fn a_job_ends_soon_after_its_caller_has_gone() {
        struct Ended(Arc<AtomicBool>);
        impl Drop for Ended {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let ended = Arc::new(AtomicBool::new(false));
        let helpers = Helpers::start(1);
        let (guard, (sender, begun)) = (Ended(Arc::clone(&ended)), mpsc::channel());
        let endless = async move {
            let _guard = guard;
            loop {
                let _ = sender.send(());
                yield_now().await;
            }
        };
        let mut run = Box::pin(helpers.run::<()>(endless));
        assert!(run.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        begun.recv().unwrap();
        drop(run);
        let limit = Instant::now() + Duration::from_secs(60);
        while !ended.load(Ordering::Relaxed) && Instant::now() < limit {
            thread::yield_now();
        }
        assert!(ended.load(Ordering::Relaxed));
    }
}
