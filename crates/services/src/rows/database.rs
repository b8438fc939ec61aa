//! The database: connections that read, and one that writes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteRow};
use sqlx::{Column, Row as _, Sqlite, SqliteConnection, SqlitePool, TypeInfo, ValueRef};

use super::proto::value::Kind;
use super::proto::{Call, Row, Table, Value};
use super::statements::{SCHEMA, Statement, TABLES, stamp_of};
use crate::GRACE;

const READERS: u32 = 4;

/// A call waits so long at most for a connection, and so long again for another program.
const WAIT: Duration = Duration::from_secs(4);

// Else a change that has waited for both is left at the end, committed and not answered.
const _: () = assert!(2 * WAIT.as_millis() < GRACE.as_millis());

/// The stamp of each table, by its name.
pub(super) type Stamps = BTreeMap<String, String>;

#[derive(Debug)]
pub(super) struct Database {
    readers: SqlitePool,
    /// SQLite has one writer at a time in any case.
    writer: SqlitePool,
    queries: AtomicU64,
}

impl Database {
    /// Opens the file, or makes it.
    pub(super) async fn open(path: &Path) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new().filename(path).busy_timeout(WAIT);
        // Readers see what is committed, and go on while somebody writes.
        let writing = options.clone().create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
        let pool = |connections| {
            SqlitePoolOptions::new().max_connections(connections).acquire_timeout(WAIT)
        };
        let writer = pool(1).connect_with(writing).await?;
        let mut change = writer.begin_with("BEGIN IMMEDIATE").await?;
        sqlx::raw_sql(SCHEMA).execute(&mut *change).await?;
        for table in TABLES {
            sqlx::raw_sql(&stamp_of(table)).execute(&mut *change).await?;
        }
        change.commit().await?;
        let readers = pool(READERS).connect_with(options.read_only(true)).await?;
        Ok(Self { readers, writer, queries: AtomicU64::new(0) })
    }

    /// The result of a statement, as of the last commit.
    pub(super) async fn query(
        &self,
        statement: &Statement,
        parameters: &[Value],
    ) -> Result<Table, sqlx::Error> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        let rows = bound(statement, parameters).fetch_all(&self.readers).await?;
        let names = |row: &SqliteRow| row.columns().iter().map(|it| it.name().to_owned()).collect();
        let columns = rows.first().map(names).unwrap_or_default();
        let rows = rows.iter().map(values).collect::<Result<_, _>>()?;
        Ok(Table { columns, rows })
    }

    /// How many statements of queries it has run.
    pub(super) fn queries(&self) -> u64 {
        self.queries.load(Ordering::Relaxed)
    }

    /// The connection that writes: others wait until it is dropped.
    pub(super) async fn writer(&self) -> Result<PoolConnection<Sqlite>, sqlx::Error> {
        self.writer.acquire().await
    }

    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Runs a statement that changes something.
pub(super) async fn run(
    connection: &mut SqliteConnection,
    statement: &Statement,
    step: &Call,
) -> Result<(), sqlx::Error> {
    bound(statement, &step.parameters).execute(connection).await.map(drop)
}

/// The stamps as this connection sees them.
pub(super) async fn stamps(connection: &mut SqliteConnection) -> Result<Stamps, sqlx::Error> {
    // With the schema's version, since no trigger tells that a table was altered.
    let sql = "SELECT name, hex(stamp) || ' ' || schema_version FROM stamps, pragma_schema_version";
    let stamps: Vec<(String, String)> = sqlx::query_as(sql).fetch_all(connection).await?;
    Ok(stamps.into_iter().collect())
}

type Bound<'a> = sqlx::query::Query<'a, Sqlite, sqlx::sqlite::SqliteArguments<'a>>;

fn bound<'a>(statement: &Statement, parameters: &'a [Value]) -> Bound<'a> {
    let query = sqlx::query(statement.sql);
    parameters.iter().fold(query, |query, parameter| match &parameter.kind {
        Some(Kind::Integer(integer)) => query.bind(*integer),
        Some(Kind::Text(text)) => query.bind(text.as_str()),
        None => query.bind(None::<i64>),
    })
}

fn values(row: &SqliteRow) -> Result<Row, sqlx::Error> {
    let value = |at| {
        let kind = match row.try_get_raw(at)?.type_info().name() {
            "NULL" => None,
            "INTEGER" => Some(Kind::Integer(row.try_get(at)?)),
            _ => Some(Kind::Text(row.try_get(at)?)),
        };
        Ok(Value { kind })
    };
    let values = (0..row.len()).map(value).collect::<Result<_, sqlx::Error>>()?;
    Ok(Row { values })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::statements::QUERIES;
    use super::*;

    /// The tables whose rows or indexes a statement opens, by the program that it is compiled to.
    async fn opened(pool: &SqlitePool, sql: &str) -> BTreeSet<String> {
        let steps = sqlx::query(&format!("EXPLAIN {sql}")).fetch_all(pool).await.unwrap();
        let mut tables = BTreeSet::new();
        for step in steps {
            if step.get::<String, _>("opcode") != "OpenRead" {
                continue;
            }
            let named = "SELECT tbl_name FROM sqlite_schema WHERE rootpage = ?1";
            let root: i64 = step.get("p2");
            tables.insert(sqlx::query_scalar(named).bind(root).fetch_one(pool).await.unwrap());
        }
        tables
    }

    #[tokio::test]
    async fn no_statement_reads_a_table_that_it_does_not_name() {
        let folder = tempfile::tempdir().unwrap();
        let database = Database::open(&folder.path().join("rows.db")).await.unwrap();
        for statement in QUERIES {
            let named = statement.tables.iter().map(|&table| table.to_owned()).collect();
            assert_eq!(opened(&database.readers, statement.sql).await, named, "{statement:?}");
        }
        let named = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'stamps'";
        let named = sqlx::query_scalar(named).fetch_all(&database.readers).await.unwrap();
        let named: BTreeSet<String> = named.into_iter().collect();
        assert_eq!(named, TABLES.map(str::to_owned).into(), "tables that have stamps");
        database.close().await;
    }
}
