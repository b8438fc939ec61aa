//! `StatusAnswers`: what the status socket of a store asks its cache.

/// Answers the clients of a status socket, which are other processes.
pub(crate) trait StatusAnswers: Send + Sync + 'static {
    /// The answer to a request: one line, without its end, of bounded length. It waits for nothing
    /// and changes nothing.
    fn answer(&self, request: &str) -> String;
}
