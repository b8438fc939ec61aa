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
// Bounded: by how many it takes at once.
#[derive(Default)]
struct Taken {
    writing: Mutex<VecDeque<Writing>>,
}

impl Taken {
    fn push(&self, writing: Writing) {
        self.writing.lock().push_back(writing);
    }

    /// The write that an answer is about.
    fn pop(&self, answer: &Result<Path>) -> Option<Writing> {
        let mut writing = self.writing.lock();
        match answer {
            Ok(path) => {
                let place = writing.iter().position(|writing| writing.is_of(path))?;
                writing.remove(place)
            }
            Err(Error::NotFound { .. }) => writing.pop_front(),
            Err(_) => None,
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
                if let Some(writing) = taken.pop(&answer) {
                    writing.end(true).await;
                }
                answer
            }
        });
        answers.boxed()
    }
}
