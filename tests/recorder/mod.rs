//! `Recorder`: a subscriber of `tracing` that keeps what it is told as lines, and may react.

use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_core::span::Current;

/// Called with the name of the method of the subscriber that was called, without a lock.
type Reaction = Box<dyn Fn(&'static str) + Send + Sync>;

/// While there is a single subscriber, an event that a thread without it tells for the first time
/// counts as one that no subscriber wants. So there is always another one, of no thread.
static OTHER: OnceLock<Dispatch> = OnceLock::new();

/// A handle: its clones record together.
#[derive(Clone)]
pub(crate) struct Recorder(Arc<State>);

struct State {
    lines: Mutex<Vec<String>>,
    /// The spans by number, and the numbers of those that are entered. For one thread.
    spans: Mutex<(Vec<Recorded>, Vec<usize>)>,
    calls: AtomicU64,
    react: Reaction,
}

struct Recorded {
    metadata: &'static Metadata<'static>,
    handles: usize,
}

/// The fields of an event as text.
#[derive(Default)]
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        match field.name() {
            "message" => write!(self.0, " {value:?}"),
            name => write!(self.0, " {name}={value:?}"),
        }
        .unwrap();
    }
}

impl Recorder {
    pub(crate) fn new(react: impl Fn(&'static str) + Send + Sync + 'static) -> Self {
        let (lines, spans) = (Mutex::default(), Mutex::default());
        Self(Arc::new(State { lines, spans, calls: 0.into(), react: Box::new(react) }))
    }

    /// Runs something on this thread with this as its subscriber.
    pub(crate) fn during<T>(&self, run: impl FnOnce() -> T) -> T {
        OTHER.get_or_init(|| Dispatch::new(Self::new(|_| ())));
        tracing::subscriber::with_default(self.clone(), run)
    }

    /// Calls of its methods so far.
    pub(crate) fn calls(&self) -> u64 {
        self.0.calls.load(Ordering::Relaxed)
    }

    /// `LEVEL target [spans] message fields`, or `new name fields` and `end name` of a span.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn has(&self, parts: &[&str]) -> bool {
        self.lines().iter().any(|line| parts.iter().all(|part| line.contains(part)))
    }

    fn called(&self, method: &'static str) {
        self.0.calls.fetch_add(1, Ordering::Relaxed);
        (self.0.react)(method);
    }

    fn keep(&self, line: String) {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    /// Does something with a span.
    fn of<R>(&self, id: &Id, with: impl FnOnce(&mut Recorded) -> R) -> R {
        let mut spans = self.0.spans.lock().unwrap_or_else(PoisonError::into_inner);
        with(&mut spans.0[number(id)])
    }

    fn name(&self, id: &Id) -> &'static str {
        self.of(id, |span| span.metadata.name())
    }
}

fn number(id: &Id) -> usize {
    usize::try_from(id.into_u64()).unwrap() - 1
}

impl Subscriber for Recorder {
    fn register_callsite(&self, _: &'static Metadata<'static>) -> Interest {
        Interest::sometimes()
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_ours = metadata.target().starts_with("tamis");
        if is_ours {
            self.called("enabled");
        }
        is_ours
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        self.called("new_span");
        let (metadata, mut text) = (span.metadata(), Text::default());
        span.record(&mut text);
        self.keep(format!("new {}{}", metadata.name(), text.0));
        let mut spans = self.0.spans.lock().unwrap_or_else(PoisonError::into_inner);
        spans.0.push(Recorded { metadata, handles: 1 });
        Id::from_u64(spans.0.len() as u64)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, span: &Id, cause: &Id) {
        self.called("record_follows_from");
        self.keep(format!("{} follows {}", self.name(span), self.name(cause)));
    }

    fn current_span(&self) -> Current {
        self.called("current_span");
        let spans = self.0.spans.lock().unwrap_or_else(PoisonError::into_inner);
        let id = |number: &usize| Id::from_u64(*number as u64 + 1);
        let current = spans.1.last().map(|number| (id(number), spans.0[*number].metadata));
        current.map_or_else(Current::none, |(id, metadata)| Current::new(id, metadata))
    }

    fn clone_span(&self, id: &Id) -> Id {
        self.called("clone_span");
        self.of(id, |span| span.handles += 1);
        id.clone()
    }

    fn event(&self, event: &Event<'_>) {
        self.called("event");
        let mut text = Text::default();
        event.record(&mut text);
        let spans = {
            let spans = self.0.spans.lock().unwrap_or_else(PoisonError::into_inner);
            let name = |&number: &usize| spans.0[number].metadata.name();
            let names: Vec<_> = spans.1.iter().map(name).collect();
            names.join(":")
        };
        let metadata = event.metadata();
        let (level, target) = (metadata.level(), metadata.target());
        self.keep(format!("{level} {target} [{spans}]{}", text.0));
    }

    fn enter(&self, id: &Id) {
        self.called("enter");
        self.0.spans.lock().unwrap_or_else(PoisonError::into_inner).1.push(number(id));
    }

    fn exit(&self, _: &Id) {
        self.called("exit");
        self.0.spans.lock().unwrap_or_else(PoisonError::into_inner).1.pop();
    }

    fn try_close(&self, id: Id) -> bool {
        self.called("try_close");
        let handles = self.of(&id, |span| {
            span.handles -= 1;
            span.handles
        });
        if handles == 0 {
            self.keep(format!("end {}", self.name(&id)));
        }
        handles == 0
    }
}
