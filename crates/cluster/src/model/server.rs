//! A server that loses, trims and forgets, and links to it that are slow, cut, or silent.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::sleep;

use crate::follower::{Answer, Record};
use crate::message::Message;
use crate::model::store::SimulatedStore;
use crate::position::{Position, ServerId};
use crate::transport::{Failure, Transport};

/// Records of one answer: few, so that many are needed.
const ANSWER_RECORDS_MAX: usize = 4;

#[derive(Debug)]
pub(super) struct Server {
    life: u64,
    epoch: u64,
    /// The records that are there, by number; the head may be further.
    records: Vec<(u64, Vec<u8>)>,
    head: u64,
    is_up: bool,
    /// The next record is one that no node understands, as one of a later version would be.
    garbles_next: bool,
}

impl Server {
    pub(super) fn new() -> Self {
        let records = vec![(0, b"begin".to_vec())];
        Self { life: 1, epoch: 1, records, head: 0, is_up: true, garbles_next: false }
    }

    fn head(&self) -> Position {
        Position { epoch: self.epoch, number: self.head }
    }

    /// The head, if its record is there and is understood.
    pub(super) fn anchor(&self) -> Option<Position> {
        let (number, bytes) = self.records.last()?;
        (*number == self.head && Message::decode(bytes).is_some()).then(|| self.head())
    }

    pub(super) fn garble_next(&mut self) {
        self.garbles_next = true;
    }

    fn append(&mut self, mut record: Vec<u8>) {
        if std::mem::take(&mut self.garbles_next) {
            record[0] += 1;
        }
        self.head += 1;
        self.records.push((self.head, record));
    }

    pub(super) fn stop(&mut self) {
        self.is_up = false;
    }

    /// Begins another life, without the last records.
    pub(super) fn start(&mut self, lost: u64) {
        self.is_up = true;
        self.life += 1;
        self.lose(lost);
    }

    /// Loses the last records in the middle of its life.
    pub(super) fn lose(&mut self, lost: u64) {
        self.head = self.head.saturating_sub(lost);
        let head = self.head;
        self.records.retain(|(number, _)| *number <= head);
    }

    /// Creates the log anew.
    pub(super) fn flush_all(&mut self) {
        self.epoch += 1;
        self.head = 0;
        self.records = vec![(0, b"begin".to_vec())];
    }

    pub(super) fn trim(&mut self, left: usize) {
        let from = self.records.len().saturating_sub(left);
        self.records.drain(..from);
    }

    fn answer(&self, from: Option<Position>) -> Answer {
        let from = from.filter(|it| it.epoch == self.epoch).unwrap_or(self.head());
        let records = self.records.iter().filter(|(number, _)| *number >= from.number);
        let record = |(number, bytes): &(u64, Vec<u8>)| Record {
            position: Position { epoch: self.epoch, number: *number },
            message: Message::decode(bytes),
        };
        Answer {
            server: ServerId(self.life.to_string()),
            head: self.head(),
            records: records.take(ANSWER_RECORDS_MAX).map(record).collect(),
        }
    }
}

/// How a node reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    /// Each way takes up to so many milliseconds.
    Within(u64),
    Cut,
    /// Calls have no outcome; the server may have carried them out.
    Silent,
}

pub(super) struct SimulatedLog {
    pub(super) server: Arc<Mutex<Server>>,
    pub(super) link: Arc<Mutex<Link>>,
    /// Of the node, which may be asleep.
    pub(super) store: SimulatedStore,
    pub(super) random: StdRng,
}

impl SimulatedLog {
    /// One way through the link. Returns whether the call goes on; if not, it is lost.
    async fn pass(&mut self) -> Result<bool, Failure> {
        let link = *self.link.lock();
        match link {
            Link::Within(most) => {
                let time = self.random.random_range(0..=most);
                sleep(Duration::from_millis(time)).await;
            }
            Link::Cut => return Err("cut".into()),
            Link::Silent => {}
        }
        match self.server.lock().is_up {
            true => Ok(link != Link::Silent),
            false => Err("refused".into()),
        }
    }

    async fn call<T>(&mut self, call: impl FnOnce(&mut Server) -> T) -> Result<T, Failure> {
        self.store.awake().await;
        let is_heard = self.pass().await?;
        let outcome = (is_heard || self.random.random()).then(|| call(&mut self.server.lock()));
        let is_answered = self.pass().await?;
        self.store.awake().await;
        match (is_answered, outcome) {
            (true, Some(outcome)) => Ok(outcome),
            _ => std::future::pending().await,
        }
    }
}

impl Transport for SimulatedLog {
    async fn ask(&mut self, from: Option<Position>) -> Result<Answer, Failure> {
        self.call(|server| server.answer(from)).await
    }

    async fn append(&mut self, record: Vec<u8>) -> Result<(), Failure> {
        self.call(|server| server.append(record)).await
    }

    async fn wait(&mut self, behind: Position, at_most: Duration) -> Result<bool, Failure> {
        let (step, mut left) = (Duration::from_millis(5), at_most);
        loop {
            let head = self.call(|server| server.head()).await?;
            if head != behind {
                return Ok(true);
            }
            if left.is_zero() {
                return Ok(false);
            }
            sleep(step).await;
            left = left.saturating_sub(step);
        }
    }
}
