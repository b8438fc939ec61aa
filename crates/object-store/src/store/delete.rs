//! Deletes, in a stream: each path is a write from when the inner store takes it until its answer.
//!
//! The inner store answers in the order of the paths, but an error may stand for many of them. So a
//! path whose answer has not come by name is of unknown outcome when the stream ends.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{BoxStream, StreamExt};
use parking_lot::Mutex;

use super::Core;
use super::object_store::path::Path;
use super::object_store::{Error, Result};
use super::write::Writing;

/// The paths that the inner store has taken.
// Bounded: by how many it takes at once, and by those for which one error stands.
#[derive(Default)]
struct Taken {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    writing: VecDeque<Writing>,
    /// Since the last path that was told by its name there was an error that may stand for many.
    is_unclear: bool,
}

/// What an answer says of the paths that were taken.
#[derive(Default)]
struct Settled {
    known: Option<Writing>,
    /// Of unknown outcome, as their drop says.
    unknown: Vec<Writing>,
}

impl Taken {
    fn push(&self, writing: Writing) {
        self.state.lock().writing.push_back(writing);
    }

    fn settle(&self, answer: &Result<Path>) -> Settled {
        let mut state = self.state.lock();
        match answer {
            Ok(path) => {
                let place = state.writing.iter().position(|writing| writing.is_of(path));
                let Some(place) = place else { return Settled::default() };
                state.is_unclear = false;
                // Those before it had errors as answers.
                let unknown = state.writing.drain(..place).collect();
                Settled { known: state.writing.pop_front(), unknown }
            }
            Err(Error::NotFound { .. }) if !state.is_unclear => {
                Settled { known: state.writing.pop_front(), unknown: Vec::new() }
            }
            Err(_) => {
                state.is_unclear = true;
                Settled { known: None, unknown: state.writing.pop_front().into_iter().collect() }
            }
        }
    }
}

impl Core {
    pub(crate) fn delete_all(
        self: &Arc<Self>,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        let taken = Arc::new(Taken::default());
        let (core, taking) = (Arc::clone(self), Arc::clone(&taken));
        let locations = locations.then(move |location| {
            let (core, taken) = (Arc::clone(&core), Arc::clone(&taking));
            async move {
                let location = location?;
                taken.push(Writing::begin(&core, vec![location.clone()]).await);
                Ok(location)
            }
        });
        let answers = self.inner.delete_stream(locations.boxed());
        let answers = answers.then(move |answer| {
            let taken = Arc::clone(&taken);
            async move {
                let Settled { known, unknown } = taken.settle(&answer);
                drop(unknown);
                if let Some(writing) = known {
                    writing.end(true).await;
                }
                answer
            }
        });
        answers.boxed()
    }
}
