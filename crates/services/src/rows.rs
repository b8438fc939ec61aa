//! Results of SQL queries, cached over gRPC: `proto/rows.proto` has the calls.
//!
//! A result has the tables that it reads as dependencies, so a change of a table drops every result
//! that reads it, a join as well, and no other. There is no ttl: a result stays until one of its
//! tables changes, or it makes room.
//!
//! **A change that has returned is seen by every query that begins later.** A change commits, then
//! drops the results, then returns. A query that has read before the commit and is done after it
//! is not stored, since the cache takes its read point before it calls the fetch.
//!
//! **Changes that the service does not see**: other programs write to the file while the service
//! runs or is down, and a kill can come between a commit and the drop of results. So the database
//! has a random stamp for each table, which triggers renew with each change, whoever makes it. The
//! cache keeps the stamps that its results are up to date with. [`Rows::catch_up`] compares them,
//! when the service starts and once a second, and drops the results of tables whose stamps differ.
//! What has not changed is warm after a restart. A database that has no triggers begins with
//! `invalidate` in place of that, or has a version of its data in the name of the namespace.

mod database;
mod statements;

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::Connection;
use sqlx::error::{DatabaseError, ErrorKind};
use tamis::{
    BlobCache, BlobCachePolicy, CacheError, CacheTier, FetchError, FetchPolicy, Postcard, TypedHit,
    TypedNamespace, TypedPut,
};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use self::database::{Database, Stamps};
use self::proto::rows_server::RowsServer;
use self::proto::{
    Call, ChangeAnswer, ChangeRequest, QueryAnswer, Source, StatsAnswer, StatsRequest, Table,
};
use self::statements::{CHANGES, Mistake, QUERIES, Statement};
use crate::with_grace;

/// The messages, the client and the server of `proto/rows.proto`.
#[allow(missing_docs, unreachable_pub, reason = "generated; its docs are in that file")]
#[allow(clippy::missing_errors_doc, clippy::too_many_lines, reason = "generated")]
pub mod proto {
    tonic::include_proto!("tamis.rows.v1");
}

/// In the names of the namespaces. A release that changes a statement, or the messages that are
/// cached, raises it: what an older release has stored is not asked for any more.
const VERSION: u32 = 1;

/// The key of the stamps, in a namespace of their own.
const STAMPS: &str = "stamps";

/// A change that another program has made is seen after so long at most.
const CATCH_UP_EVERY: Duration = Duration::from_secs(1);

/// SQLite's code for a database that is locked: the low byte of the codes that say why as well.
const BUSY: u32 = 5;

const STEPS_MAX: usize = 1000;

/// The service. A clone is the same service.
#[derive(Clone, Debug)]
pub struct Rows {
    database: Arc<Database>,
    results: TypedNamespace<Table, Postcard>,
    /// What the results are up to date with.
    known: TypedNamespace<Stamps, Postcard>,
    calls: Arc<AtomicU64>,
    /// Each read of the database takes so much longer.
    delay: Duration,
}

impl Rows {
    /// Opens the database, which it makes if there is none, and drops the results that it has left
    /// behind. Each query takes `delay` longer, as if the database were far away.
    ///
    /// # Errors
    ///
    /// [`Status`], with what the database or the cache has refused.
    pub async fn open(cache: &BlobCache, database: &Path, delay: Duration) -> Result<Self, Status> {
        let (results, known) = (format!("rows-{VERSION}"), format!("stamps-{VERSION}"));
        if let Some(before) = VERSION.checked_sub(1) {
            for name in [format!("rows-{before}"), format!("stamps-{before}")] {
                cache.invalidate_namespace(&name).await.map_err(refused)?;
            }
        }
        // Whoever waits for a result waits for so long at most, and a failing database is asked
        // once in a second and not by every client.
        let fetching = FetchPolicy::default()
            .hard_timeout(Duration::from_secs(5))
            .retry_after(Duration::from_secs(1));
        let results = cache.namespace(&results).with_fetch_policy(fetching).map_err(refused)?;
        // All results are dropped if the stamps are gone: they make room last.
        let kept = BlobCachePolicy::default().priority(u8::MAX);
        let known = cache.namespace(&known).with_policy(kept);
        let rows = Self {
            database: Arc::new(Database::open(database).await.map_err(failed)?),
            results: results.typed(Postcard),
            known: known.typed(Postcard),
            calls: Arc::default(),
            delay,
        };
        rows.catch_up().await?;
        Ok(rows)
    }

    /// Serves until `stop` ends, then answers the calls that have begun, for ten seconds at most,
    /// and closes the database. The cache stays open.
    ///
    /// # Errors
    ///
    /// Those of the transport.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        let catching_up = tokio::spawn(self.clone().keep_up());
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let mut server = Server::builder();
        let server = server.add_service(RowsServer::new(self.clone()));
        let (stop, out_of_patience) = with_grace(stop);
        let served = tokio::select! {
            served = server.serve_with_incoming_shutdown(incoming, stop) => served,
            () = out_of_patience => Ok(()),
        };
        catching_up.abort();
        self.database.close().await;
        served
    }

    async fn keep_up(self) {
        loop {
            sleep(CATCH_UP_EVERY).await;
            if let Err(status) = self.catch_up().await {
                eprintln!("changes by other programs are not seen: {}", status.message());
            }
        }
    }

    /// Drops the results of the tables that have changed since it was called last, and returns how
    /// many these were.
    ///
    /// # Errors
    ///
    /// [`Status`], with what the database or the cache has refused.
    pub async fn catch_up(&self) -> Result<usize, Status> {
        // A change has the writer until its results are dropped, and is not taken for that of
        // another program meanwhile.
        let mut writer = self.database.writer().await.map_err(failed)?;
        let stamps = database::stamps(&mut writer).await.map_err(failed)?;
        self.learn(stamps).await.map_err(refused)
    }

    async fn learn(&self, stamps: Stamps) -> Result<usize, CacheError> {
        let known = self.known.get(STAMPS).await.and_then(TypedHit::into_value).unwrap_or_default();
        let differs = |(table, stamp): &(&String, &String)| known.get(*table) != Some(*stamp);
        let changed: Vec<_> = stamps.iter().filter(differs).map(|(table, _)| table).collect();
        if changed.is_empty() {
            return Ok(0);
        }
        let dropped = self.results.invalidate_dependencies(&changed).await?;
        // Not before: whoever finds these stamps, after a kill too, relies on the results being
        // dropped. If they cannot be stored the results are dropped once more, which does no harm.
        let _ = self.known.put(STAMPS, stamps).await;
        Ok(dropped)
    }

    async fn find(&self, call: Call) -> Result<QueryAnswer, Status> {
        let statement = statements::find(QUERIES, &call).map_err(mistaken)?;
        self.calls.fetch_add(1, Ordering::Relaxed);
        // Each text is preceded by its length, so no two calls have one key.
        let key = postcard::to_stdvec(&(statement.name, &call.parameters))
            .map_err(|error| Status::internal(error.to_string()))?;
        let (database, delay) = (Arc::clone(&self.database), self.delay);
        let read = move || async move {
            let table = database.query(statement, &call.parameters).await?;
            sleep(delay).await;
            Ok(TypedPut::new(table).with_dependencies(statement.tables.iter().copied()))
        };
        let hit = self.results.get_or_fetch_spawned(key, read).await.map_err(not_fetched)?;
        let source = match hit.tier() {
            CacheTier::L1 => Source::Memory,
            CacheTier::L2 => Source::Disk,
            _ => Source::Database,
        };
        Ok(QueryAnswer { table: hit.into_value(), source: source.into() })
    }

    async fn carry_out(self, steps: Vec<(&Statement, Call)>) -> Result<ChangeAnswer, Status> {
        let mut writer = self.database.writer().await.map_err(failed)?;
        // Nobody else writes between the first step and the stamps.
        let mut change = writer.begin_with("BEGIN IMMEDIATE").await.map_err(failed)?;
        for (statement, step) in steps {
            database::run(&mut change, statement, &step).await.map_err(failed)?;
        }
        // Before the commit: afterwards nothing that can fail comes before the results are dropped.
        let stamps = database::stamps(&mut change).await.map_err(failed)?;
        let committed = change.commit().await;
        // Also if the commit has failed, since the file may have it all the same.
        let dropped = self.learn(stamps).await;
        committed.map_err(failed)?;
        let dropped = u64::try_from(dropped.map_err(refused)?).unwrap_or(u64::MAX);
        Ok(ChangeAnswer { dropped })
    }
}

#[tonic::async_trait]
impl proto::rows_server::Rows for Rows {
    async fn query(&self, request: Request<Call>) -> Result<Response<QueryAnswer>, Status> {
        self.find(request.into_inner()).await.map(Response::new)
    }

    async fn change(
        &self,
        request: Request<ChangeRequest>,
    ) -> Result<Response<ChangeAnswer>, Status> {
        let steps = request.into_inner().steps;
        if steps.is_empty() || steps.len() > STEPS_MAX {
            return Err(Status::invalid_argument(format!("1 to {STEPS_MAX} steps")));
        }
        let find = |step| Ok((statements::find(CHANGES, &step)?, step));
        let steps = steps.into_iter().map(find).collect::<Result<_, _>>().map_err(mistaken)?;
        // In a task, since what is committed must be dropped though the client goes away.
        let changed = tokio::spawn(self.clone().carry_out(steps)).await;
        let changed = changed.map_err(|error| Status::internal(error.to_string()))?;
        changed.map(Response::new)
    }

    async fn stats(
        &self,
        _request: Request<StatsRequest>,
    ) -> Result<Response<StatsAnswer>, Status> {
        let (calls, queries) = (self.calls.load(Ordering::Relaxed), self.database.queries());
        Ok(Response::new(StatsAnswer { calls, queries }))
    }
}

fn mistaken(mistake: Mistake) -> Status {
    match mistake {
        Mistake::Unknown => Status::not_found("there is no such statement"),
        Mistake::Parameters => Status::invalid_argument("these are not its parameters"),
    }
}

fn failed(error: sqlx::Error) -> Status {
    told(&error)
}

fn told(error: &sqlx::Error) -> Status {
    match error {
        // Another program has written for too long.
        sqlx::Error::Database(it) if is_busy(&**it) => Status::unavailable(error.to_string()),
        // What the schema refuses.
        sqlx::Error::Database(it) if !matches!(it.kind(), ErrorKind::Other) => {
            Status::failed_precondition(error.to_string())
        }
        sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed => {
            Status::unavailable(error.to_string())
        }
        _ => Status::internal(error.to_string()),
    }
}

fn is_busy(error: &dyn DatabaseError) -> bool {
    let code = error.code().and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == BUSY)
}

fn not_fetched(error: FetchError<sqlx::Error>) -> Status {
    match error {
        FetchError::Fetch(error) => told(&error),
        FetchError::TimedOut => Status::deadline_exceeded("the database is slow"),
        other => Status::internal(other.to_string()),
    }
}

fn refused(error: CacheError) -> Status {
    Status::unavailable(format!("the cache: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_database_that_is_locked_for_any_reason_may_be_asked_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rows.db");
        let database = Database::open(&path).await.unwrap();
        // A transaction that has read what is overwritten since cannot write any more.
        let mut late = sqlx::SqliteConnection::connect(path.to_str().unwrap()).await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT * FROM stamps").execute(&mut late).await.unwrap();
        let change = "UPDATE stamps SET stamp = randomblob(16)";
        let mut writer = database.writer().await.unwrap();
        sqlx::raw_sql(change).execute(&mut *writer).await.unwrap();
        let error = sqlx::raw_sql(change).execute(&mut late).await.unwrap_err();
        let code = error.as_database_error().and_then(DatabaseError::code);
        assert_eq!(code.as_deref(), Some("517"), "SQLITE_BUSY_SNAPSHOT: {error}");
        assert_eq!(failed(error).code(), tonic::Code::Unavailable);
    }
}
