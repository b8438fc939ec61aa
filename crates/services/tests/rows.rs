//! The service of queries, started for real and asked by a client of gRPC.

#![allow(clippy::unwrap_used, reason = "a panic fails the test")]

mod program;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, SqliteConnection};
use tamis_services::rows::proto::rows_client::RowsClient;
use tamis_services::rows::proto::value::Kind;
use tamis_services::rows::proto::{
    Call, ChangeAnswer, ChangeRequest, QueryAnswer, Source, StatsAnswer, StatsRequest, Value,
};
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use self::program::Program;

fn folder() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn call<const N: usize>(statement: &str, parameters: [Kind; N]) -> Call {
    let parameters = parameters.map(|kind| Value { kind: Some(kind) }).into();
    Call { statement: statement.to_owned(), parameters }
}

fn integer(integer: i64) -> Kind {
    Kind::Integer(integer)
}

fn text(text: &str) -> Kind {
    Kind::Text(text.to_owned())
}

fn put_product(id: i64, category: &str, price: i64) -> Call {
    let name = text(&format!("product {id}"));
    call("put_product", [integer(id), name, text(category), integer(price)])
}

fn put_stock(product: i64, pieces: i64) -> Call {
    call("put_stock", [integer(product), text("shelf"), integer(pieces)])
}

fn product(id: i64) -> Call {
    call("product", [integer(id)])
}

fn stock(product: i64) -> Call {
    call("stock", [integer(product)])
}

fn category(name: &str) -> Call {
    call("category", [text(name)])
}

fn available(category: &str) -> Call {
    call("available", [text(category)])
}

struct Rows {
    program: Program,
    client: RowsClient<Channel>,
}

impl Rows {
    async fn start(folder: &Path, delay_ms: u64) -> Self {
        let (database, l2) = (folder.join("shop.db"), folder.join("l2"));
        let (database, l2) = (database.to_str().unwrap(), l2.to_str().unwrap());
        let delay_ms = delay_ms.to_string();
        let arguments = ["--database", database, "--l2", l2, "--delay-ms", &delay_ms];
        let program = Program::start(env!("CARGO_BIN_EXE_rows"), &arguments);
        let client = RowsClient::connect(program.address.clone()).await.unwrap();
        Self { program, client }
    }

    /// With two products in the kitchen, and pieces of both.
    async fn filled(folder: &Path, delay_ms: u64) -> Self {
        let rows = Self::start(folder, delay_ms).await;
        let products = [put_product(1, "kitchen", 10), put_product(2, "kitchen", 20)];
        rows.change(products).await.unwrap();
        rows.change([put_stock(1, 3), put_stock(2, 4)]).await.unwrap();
        rows
    }

    /// The rows, with their values by commas, and where they come from.
    async fn query(&self, call: Call) -> Result<(Vec<String>, Source), Status> {
        let answer = self.client.clone().query(call).await?.into_inner();
        Ok((rows(&answer), answer.source()))
    }

    async fn found(&self, call: Call) -> (String, Source) {
        let (rows, source) = self.query(call).await.unwrap();
        (rows.join("; "), source)
    }

    async fn change<const N: usize>(&self, steps: [Call; N]) -> Result<u64, Status> {
        let request = ChangeRequest { steps: steps.into() };
        let ChangeAnswer { dropped } = self.client.clone().change(request).await?.into_inner();
        Ok(dropped)
    }

    async fn stats(&self) -> StatsAnswer {
        self.client.clone().stats(StatsRequest {}).await.unwrap().into_inner()
    }

    /// Until the database has been asked so often.
    async fn asked(&self, queries: u64) {
        while self.stats().await.queries < queries {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Until the rows are these.
    async fn becomes(&self, call: Call, rows: &str) {
        for _ in 0..500 {
            if self.found(call.clone()).await.0 == rows {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{call:?} does not become {rows}");
    }
}

fn rows(answer: &QueryAnswer) -> Vec<String> {
    let shown = |value: &Value| match &value.kind {
        Some(Kind::Integer(integer)) => integer.to_string(),
        Some(Kind::Text(text)) => text.clone(),
        None => "NULL".to_owned(),
    };
    let rows = answer.table.as_ref().unwrap().rows.iter();
    rows.map(|row| row.values.iter().map(shown).collect::<Vec<_>>().join(",")).collect()
}

/// Without a protocol.
fn connect(program: &Program) -> TcpStream {
    TcpStream::connect(program.address.trim_start_matches("http://")).unwrap()
}

/// Another program that has the database open.
async fn stranger(folder: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(folder.join("shop.db")).connect().await.unwrap()
}

async fn execute(connection: &mut SqliteConnection, sql: &str) {
    sqlx::raw_sql(sql).execute(connection).await.unwrap();
}

fn from(rows: &str, source: Source) -> (String, Source) {
    (rows.to_owned(), source)
}

#[tokio::test]
async fn a_change_of_a_table_drops_what_reads_it_and_nothing_else() {
    use Source::{Database, Memory};
    let folder = folder();
    let rows = Rows::filled(folder.path(), 0).await;
    for source in [Database, Memory] {
        assert_eq!(rows.found(product(1)).await, from("1,product 1,kitchen,10", source));
        let kitchen = "1,product 1,10; 2,product 2,20";
        assert_eq!(rows.found(category("kitchen")).await, from(kitchen, source));
        assert_eq!(rows.found(stock(1)).await, from("shelf,3", source));
        let kitchen = "1,product 1,3; 2,product 2,4";
        assert_eq!(rows.found(available("kitchen")).await, from(kitchen, source));
        // No rows are a result as well.
        assert_eq!(rows.found(product(9)).await, from("", source));
    }
    assert_eq!(rows.stats().await, StatsAnswer { calls: 10, queries: 5 });

    assert_eq!(rows.change([put_stock(1, 7)]).await.unwrap(), 2, "stock, and its join");
    assert_eq!(rows.found(product(1)).await.1, Memory);
    assert_eq!(rows.found(category("kitchen")).await.1, Memory);
    assert_eq!(rows.found(stock(1)).await, from("shelf,7", Database));
    let kitchen = "1,product 1,7; 2,product 2,4";
    assert_eq!(rows.found(available("kitchen")).await, from(kitchen, Database));

    let steps = [put_product(1, "kitchen", 99), put_product(9, "garden", 5)];
    assert_eq!(rows.change(steps).await.unwrap(), 4, "all but stock");
    assert_eq!(rows.found(stock(1)).await.1, Memory);
    assert_eq!(rows.found(product(1)).await, from("1,product 1,kitchen,99", Database));
    assert_eq!(rows.found(product(9)).await, from("9,product 9,garden,5", Database));
    assert_eq!(rows.found(available("kitchen")).await, from(kitchen, Database));

    // A change of products that the schema carries on to stock.
    rows.change([call("remove_product", [integer(1)])]).await.unwrap();
    assert_eq!(rows.found(stock(1)).await, from("", Database));
    assert_eq!(rows.found(available("kitchen")).await, from("2,product 2,4", Database));
    // A change that changes nothing.
    assert_eq!(rows.change([call("remove_product", [integer(1)])]).await.unwrap(), 0);
    assert_eq!(rows.found(stock(1)).await.1, Memory);

    let columns = rows.client.clone().query(available("kitchen")).await.unwrap().into_inner();
    assert_eq!(columns.table.unwrap().columns, ["id", "name", "pieces"]);
}

#[tokio::test]
async fn a_stampede_runs_the_query_once() {
    let folder = folder();
    let rows = Arc::new(Rows::filled(folder.path(), 100).await);
    let mut crowd = JoinSet::new();
    for _ in 0..100 {
        let rows = Arc::clone(&rows);
        crowd.spawn(async move { rows.found(available("kitchen")).await.0 });
    }
    for found in crowd.join_all().await {
        assert_eq!(found, "1,product 1,3; 2,product 2,4");
    }
    assert_eq!(rows.stats().await, StatsAnswer { calls: 100, queries: 1 });
}

#[tokio::test]
async fn what_was_read_before_a_change_is_not_stored_after_it() {
    let folder = folder();
    let rows = Arc::new(Rows::filled(folder.path(), 500).await);
    let early = tokio::spawn({
        let rows = Arc::clone(&rows);
        async move { rows.found(product(1)).await }
    });
    rows.asked(1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // It has read, and is on its way back.
    rows.change([put_product(1, "kitchen", 99)]).await.unwrap();
    let late = rows.found(product(1)).await;
    assert_eq!(late, from("1,product 1,kitchen,99", Source::Database), "and not that of the first");
    early.await.unwrap();
    assert_eq!(rows.found(product(1)).await.0, "1,product 1,kitchen,99");
}

#[tokio::test]
async fn a_change_that_has_returned_is_seen_by_every_later_query() {
    const CHANGES: i64 = 150;
    let folder = folder();
    let rows = Arc::new(Rows::filled(folder.path(), 1).await);
    let returned = Arc::new(AtomicI64::new(0));
    let mut readers = JoinSet::new();
    for number in 0..8 {
        let (rows, returned) = (Arc::clone(&rows), Arc::clone(&returned));
        readers.spawn(async move {
            let mut cached = 0;
            while returned.load(Ordering::SeqCst) < CHANGES {
                let call = if number % 2 == 0 { stock(1) } else { available("kitchen") };
                let before = returned.load(Ordering::SeqCst);
                let (found, source) = rows.query(call).await.unwrap();
                let pieces: i64 = found[0].rsplit(',').next().unwrap().parse().unwrap();
                assert!(pieces >= before, "{pieces} pieces, and {before} before: {source:?}");
                cached += i64::from(source != Source::Database);
            }
            cached
        });
    }
    for pieces in 1..=CHANGES {
        rows.change([put_stock(1, pieces)]).await.unwrap();
        returned.store(pieces, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(4)).await;
    }
    let cached: i64 = readers.join_all().await.iter().sum();
    assert!(cached > 0, "the cache took part");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_is_warm_but_for_what_others_have_changed() {
    use Source::{Database, Disk};
    let folder = folder();
    let rows = Rows::filled(folder.path(), 0).await;
    rows.found(product(1)).await;
    rows.found(stock(1)).await;
    rows.program.stop("-TERM");

    let rows = Rows::start(folder.path(), 0).await;
    assert_eq!(rows.found(product(1)).await, from("1,product 1,kitchen,10", Disk));
    assert_eq!(rows.found(stock(1)).await, from("shelf,3", Disk));
    assert_eq!(rows.stats().await.queries, 0);
    rows.program.stop("-INT");

    let mut other = stranger(folder.path()).await;
    execute(&mut other, "UPDATE products SET price = 11 WHERE id = 1").await;
    let rows = Rows::start(folder.path(), 0).await;
    assert_eq!(rows.found(product(1)).await, from("1,product 1,kitchen,11", Database));
    assert_eq!(rows.found(stock(1)).await, from("shelf,3", Disk));

    // While it runs.
    execute(&mut other, "DELETE FROM stock").await;
    rows.becomes(stock(1), "").await;
    assert_eq!(rows.found(product(1)).await.1, Source::Memory);

    // A kill, and a change that no trigger tells.
    rows.program.signal("-KILL");
    drop(rows);
    let rows = Rows::start(folder.path(), 0).await;
    assert_eq!(rows.found(product(1)).await, from("1,product 1,kitchen,11", Disk));
    rows.program.signal("-KILL");
    drop(rows);
    let altered = "ALTER TABLE products RENAME COLUMN name TO called;
                   ALTER TABLE products ADD COLUMN name TEXT DEFAULT 'nameless'";
    execute(&mut other, altered).await;
    let rows = Rows::start(folder.path(), 0).await;
    assert_eq!(rows.found(product(1)).await, from("1,nameless,kitchen,11", Database));
}

#[tokio::test]
async fn a_change_goes_on_though_its_client_goes_away() {
    let folder = folder();
    let rows = Rows::filled(folder.path(), 0).await;
    rows.found(product(1)).await;
    // It waits for another one that writes.
    let mut other = stranger(folder.path()).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let change = rows.change([put_product(1, "kitchen", 99)]);
    let changed = tokio::time::timeout(Duration::from_millis(500), change).await;
    assert!(changed.is_err(), "{changed:?}");
    assert_eq!(rows.found(product(1)).await.0, "1,product 1,kitchen,10");
    execute(&mut other, "COMMIT").await;
    rows.becomes(product(1), "1,product 1,kitchen,99").await;
}

#[tokio::test]
async fn a_change_that_waits_too_long_for_another_program_may_be_tried_again() {
    let folder = folder();
    let rows = Rows::filled(folder.path(), 0).await;
    let mut other = stranger(folder.path()).await;
    execute(&mut other, "BEGIN IMMEDIATE").await;
    let change = || rows.change([put_stock(1, 9)]);
    assert_eq!(change().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(rows.found(stock(1)).await, from("shelf,3", Source::Database));
    execute(&mut other, "COMMIT").await;
    change().await.unwrap();
    assert_eq!(rows.found(stock(1)).await, from("shelf,9", Source::Database));
}

#[tokio::test]
async fn garbage_gets_a_status_and_changes_nothing() {
    let folder = folder();
    let rows = Rows::filled(folder.path(), 0).await;
    let all = [product(1), category("kitchen"), stock(1), available("kitchen")];
    let mut before = Vec::new();
    for call in all.clone() {
        before.push(rows.found(call).await.0);
    }

    let null = Call { statement: "product".into(), parameters: vec![Value { kind: None }] };
    let wrong = [
        (call("none", []), Code::NotFound),
        (call("", []), Code::NotFound),
        (call("product; DROP TABLE products", [integer(1)]), Code::NotFound),
        (put_stock(1, 1), Code::NotFound),
        (call("product", []), Code::InvalidArgument),
        (call("product", [text("1")]), Code::InvalidArgument),
        (call("product", [integer(1), integer(1)]), Code::InvalidArgument),
        (null, Code::InvalidArgument),
        (category(&"k".repeat(1025)), Code::InvalidArgument),
    ];
    for (call, code) in wrong {
        assert_eq!(rows.query(call.clone()).await.unwrap_err().code(), code, "{call:?}");
    }
    let injected = "kitchen'; DROP TABLE products; --";
    assert_eq!(rows.found(category(injected)).await, from("", Source::Database));

    // None of the steps counts if one of them does not.
    let wrong = [
        (product(1), Code::NotFound),
        (call("remove_product", [text("1")]), Code::InvalidArgument),
        (put_product(2, "kitchen", -1), Code::FailedPrecondition),
        (put_stock(77, 1), Code::FailedPrecondition),
    ];
    for (step, code) in wrong {
        let steps = [put_product(1, "garden", 1), put_stock(1, 1), step.clone()];
        assert_eq!(rows.change(steps).await.unwrap_err().code(), code, "{step:?}");
    }
    assert_eq!(rows.change([]).await.unwrap_err().code(), Code::InvalidArgument);
    let many = ChangeRequest { steps: vec![put_stock(1, 1); 1001] };
    assert_eq!(rows.client.clone().change(many).await.unwrap_err().code(), Code::InvalidArgument);

    // No message of this call; no call; no protocol.
    let channel =
        Channel::from_shared(rows.program.address.clone()).unwrap().connect().await.unwrap();
    let mut raw = tonic::client::Grpc::new(channel);
    for (method, code) in [("Change", Code::Internal), ("None", Code::Unimplemented)] {
        raw.ready().await.unwrap();
        let path = format!("/tamis.rows.v1.Rows/{method}").parse().unwrap();
        let codec = tonic_prost::ProstCodec::<StatsAnswer, StatsAnswer>::default();
        let message = Request::new(StatsAnswer { calls: 1, queries: 2 });
        let answer = raw.unary(message, path, codec).await;
        assert_eq!(answer.unwrap_err().code(), code, "{method}");
    }
    let mut stream = connect(&rows.program);
    stream.write_all(&[0x7f; 4096]).unwrap();
    let mut told = Vec::new();
    // Whatever it says, it ends the connection.
    let _ = stream.read_to_end(&mut told);

    for (call, before) in all.into_iter().zip(before) {
        assert_eq!(rows.found(call).await, (before, Source::Memory));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_has_begun_is_answered_before_the_end() {
    for signal in ["-TERM", "-INT"] {
        let folder = folder();
        let rows = Rows::filled(folder.path(), 500).await;
        let mut client = rows.client.clone();
        let begun = tokio::spawn(async move { client.query(stock(1)).await });
        rows.asked(1).await;
        rows.program.stop(signal);
        let answer = begun.await.unwrap().unwrap().into_inner();
        assert_eq!(self::rows(&answer), ["shelf,3"]);
        let rows = Rows::start(folder.path(), 0).await;
        assert_eq!(rows.found(stock(1)).await, from("shelf,3", Source::Disk), "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_answer_does_not_hold_up_the_end() {
    let folder = folder();
    let rows = Rows::filled(folder.path(), 0).await;
    rows.found(stock(1)).await;
    let mut silent = connect(&rows.program);
    // The preface of HTTP/2 and an empty frame of settings, and then nothing any more.
    silent.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").unwrap();
    let mut answer = [0; 9];
    silent.read_exact(&mut answer).unwrap();
    rows.program.stop("-TERM");
    let rows = Rows::start(folder.path(), 0).await;
    assert_eq!(rows.found(stock(1)).await, from("shelf,3", Source::Disk));
}
