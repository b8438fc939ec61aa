//! `RedisLog`: the shared log as a stream of a Redis server.
//!
//! A record is an entry `EPOCH-NUMBER` of the stream with one field, `e`. The epoch is drawn by the
//! client that finds no stream, and stands in the place of the milliseconds; the server counts the
//! numbers (`XADD key EPOCH-*`), which are dense therefore. The server's identity is its run id
//! with its replication id: the first changes when it restarts, the second when it is promoted, or
//! has been a replica meanwhile. Both calls are scripts, so that all that they say is of one
//! instant.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult, Script};

use crate::error::ClusterError;
use crate::follower::{Answer, Record};
use crate::message::{Message, Stamp};
use crate::position::{Position, ServerId};
use crate::transport::{Failure, Transport};

/// The field of an entry that has the record.
const FIELD: &[u8] = b"e";

/// Entries of one answer, the anchor among them.
const ANSWER_RECORDS_MAX: usize = 128;

/// `KEYS` the stream; `ARGV` an epoch and a record, for a stream that has to be created.
const HEAD: &str = "
    local key = KEYS[1]
    if redis.call('EXISTS', key) == 0 then
        redis.call('XADD', key, ARGV[1] .. '-*', 'e', ARGV[2])
    end
    local info, head = redis.call('XINFO', 'STREAM', key), ''
    for i = 1, #info, 2 do
        if info[i] == 'last-generated-id' then head = info[i + 1] end
    end
    local epoch = string.match(head, '^%d+')
";

/// Further `ARGV`: epoch and number from which to read, and how many.
const ASK: &str = "
    local from = head
    if ARGV[3] == epoch then from = ARGV[3] .. '-' .. ARGV[4] end
    local server, roles = redis.call('INFO', 'server'), redis.call('INFO', 'replication')
    return {
        string.match(server, 'run_id:(%w+)') or '',
        string.match(roles, 'role:(%w+)') or '',
        string.match(roles, 'master_replid:(%w+)') or '',
        head,
        redis.call('XRANGE', key, from, '+', 'COUNT', ARGV[5]),
    }
";

/// Further `ARGV`: the record, and how many to retain.
const APPEND: &str = "
    return redis.call('XADD', key, 'MAXLEN', '~', ARGV[4], epoch .. '-*', 'e', ARGV[3])
";

#[derive(Clone)]
pub(crate) struct RedisLog {
    client: Client,
    stream: String,
    retained: u64,
    ask: Arc<Script>,
    append: Arc<Script>,
    connection: Connection,
}

/// Another clone connects by itself.
#[derive(Default)]
struct Connection(Option<MultiplexedConnection>);

impl Clone for Connection {
    fn clone(&self) -> Self {
        Self::default()
    }
}

/// Run id, role, replication id, head, and entries: an id with its fields and values.
type Told = (String, String, String, String, Vec<(String, Vec<Vec<u8>>)>);

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the server is no master: its role is {role:?}")]
    NoMaster { role: String },
    #[error("the server does not say who it is")]
    Unnamed,
    #[error("{id:?} is no position")]
    NoPosition { id: String },
}

impl RedisLog {
    pub(crate) fn new(address: &str, stream: &str, retained: u64) -> Result<Self, ClusterError> {
        let client = Client::open(address)
            .map_err(|error| ClusterError::Address { reason: error.to_string() })?;
        Ok(Self {
            client,
            stream: stream.to_owned(),
            retained,
            ask: Arc::new(Script::new(&format!("{HEAD}{ASK}"))),
            append: Arc::new(Script::new(&format!("{HEAD}{APPEND}"))),
            connection: Connection::default(),
        })
    }

    /// Takes the connection, so that a call that is dropped gives it up.
    async fn connection(&mut self) -> RedisResult<MultiplexedConnection> {
        if let Some(connection) = self.connection.0.take() {
            return Ok(connection);
        }
        // The tasks know how long to wait.
        let config = AsyncConnectionConfig::new();
        let config = config.set_connection_timeout(None).set_response_timeout(None);
        self.client.get_multiplexed_async_connection_with_config(&config).await
    }
}

/// What a stream that has to be created begins with.
fn beginning() -> (u64, Vec<u8>) {
    let stamp = Stamp { node: rand::random(), nonce: 0 };
    let record = Message { stamp, invalidations: Vec::new() };
    // Smaller than the largest, behind which there would be no other.
    (rand::random::<u64>() >> 1, record.encode())
}

fn position(id: &str) -> Result<Position, Refusal> {
    let parts = id.split_once('-');
    let parts = parts.and_then(|(epoch, number)| Some((epoch.parse().ok()?, number.parse().ok()?)));
    let (epoch, number) = parts.ok_or_else(|| Refusal::NoPosition { id: id.to_owned() })?;
    Ok(Position { epoch, number })
}

fn record(id: &str, fields: &[Vec<u8>]) -> Result<Record, Refusal> {
    let message = match fields {
        [field, value] if field == FIELD => Message::decode(value),
        _ => None,
    };
    Ok(Record { position: position(id)?, message })
}

impl Transport for RedisLog {
    async fn ask(&mut self, from: Option<Position>) -> Result<Answer, Failure> {
        let mut connection = self.connection().await?;
        let (epoch, genesis) = beginning();
        let (from_epoch, from_number) = match from {
            Some(from) => (from.epoch.to_string(), from.number.to_string()),
            None => Default::default(),
        };
        let mut script = self.ask.key(&self.stream);
        script.arg(epoch).arg(genesis).arg(from_epoch).arg(from_number).arg(ANSWER_RECORDS_MAX);
        let told: Told = script.invoke_async(&mut connection).await?;
        let (run_id, role, replication_id, head, entries) = told;
        if role != "master" {
            return Err(Refusal::NoMaster { role }.into());
        }
        if run_id.is_empty() || replication_id.is_empty() {
            return Err(Refusal::Unnamed.into());
        }
        let records = entries.iter().map(|(id, fields)| record(id, fields));
        let records = records.collect::<Result<_, _>>()?;
        let answer = Answer {
            server: ServerId(format!("{run_id}/{replication_id}")),
            head: position(&head)?,
            records,
        };
        self.connection.0 = Some(connection);
        Ok(answer)
    }

    async fn append(&mut self, record: Vec<u8>) -> Result<(), Failure> {
        let mut connection = self.connection().await?;
        let (epoch, genesis) = beginning();
        let mut script = self.append.key(&self.stream);
        script.arg(epoch).arg(genesis).arg(record).arg(self.retained);
        let _id: String = script.invoke_async(&mut connection).await?;
        self.connection.0 = Some(connection);
        Ok(())
    }

    async fn wait(&mut self, behind: Position, at_most: Duration) -> Result<bool, Failure> {
        let mut connection = self.connection().await?;
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(at_most.as_millis().max(1).to_string());
        command.arg("STREAMS").arg(&self.stream);
        command.arg(format!("{}-{}", behind.epoch, behind.number));
        let entry: redis::Value = command.query_async(&mut connection).await?;
        self.connection.0 = Some(connection);
        Ok(entry != redis::Value::Nil)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_no_node_has_written_are_not_understood() {
        let (_, bytes) = beginning();
        let understood = record("7-1", &[FIELD.to_vec(), bytes.clone()]).unwrap();
        assert_eq!(understood.position, Position { epoch: 7, number: 1 });
        assert!(understood.message.is_some());
        for fields in [vec![], vec![b"x".to_vec(), bytes.clone()], vec![FIELD.to_vec(); 4]] {
            assert!(record("7-1", &fields).unwrap().message.is_none());
        }
        for id in ["", "7", "7-", "-7", "7-x", "99999999999999999999-1"] {
            assert!(position(id).is_err(), "{id}");
        }
    }
}
